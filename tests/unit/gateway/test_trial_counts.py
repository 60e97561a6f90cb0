"""What is counted for the judge of a rollout, in every protocol: streams by their first response and by their end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from headrace.core import errors
from headrace.core.fallbacks import ConstantFallback, DeploymentFallback, Fallback
from headrace.core.models import SlotKind, Slots
from headrace.core.tallies import Outcome, Tally
from headrace.core.tensors import DType, Tensor
from headrace.core.traffic import TrafficPolicy
from headrace.pipeline.tallying import DeploymentCounter
from headrace.protocols import grpc_frames
from headrace.protocols.proto import open_inference_pb2 as pb
from tests.fakes import ROWS, ComputingReplica, deployment_route, until
from tests.gateways import Exchange, Gateway, doubled, run

STREAM, GENERATE, GRPC = "generate_stream", "generate", "ModelStreamInfer"
BODY = json.dumps({"x": [[1.0, 2.0]]}).encode()
STREAMS: dict[str, Any] = {
    "signature": msgspec.structs.replace(ROWS, streaming=True),
    "slots": Slots(SlotKind.CONCURRENT, 8),
    "stream_stall_s": 5.0,
}


def numbers(count: int, error: errors.HeadraceError | None = None) -> Callable[[list[Any]], Iterator[list[Tensor]]]:
    """So many responses, then an error if there is one."""

    def chunks(arrays: list[Any]) -> Iterator[list[Tensor]]:
        for number in range(count):
            yield [Tensor("n", DType.INT64, np.array([number]))]
        if error is not None:
            raise error

    return chunks


def counted(gateway: Gateway) -> DeploymentCounter:
    """Counts what the one deployment of the endpoint ``m`` does from now on."""
    (deployment,) = gateway.services.router.endpoints["m"].deployments.values()
    deployment.counter = DeploymentCounter()
    return deployment.counter


def ask(gateway: Gateway, how: str, body: bytes = BODY) -> Exchange:
    if how != GRPC:
        return Exchange(gateway, f"/v2/models/m/{how}").body(body)
    request = pb.ModelInferRequest(model_name="m")
    request.inputs.add(name="x" if body == BODY else "wrong", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(np.ones(2, np.float32).tobytes())
    headers = {"content-type": "application/grpc", "te": "trailers"}
    path = f"/inference.GRPCInferenceService/{GRPC}"
    return Exchange(gateway, path, headers=headers).body(grpc_frames.frame(request.SerializeToString()))


def timed(tally: Tally) -> int:
    return sum(tally.latency.values())


@pytest.mark.parametrize("how", [STREAM, GRPC])
@pytest.mark.parametrize(
    ("chunks", "outcome", "times"),
    [
        (numbers(5), Outcome.OK, 1),
        (numbers(0), Outcome.OK, 1),
        (numbers(0, errors.ModelRaised("no")), Outcome.ERROR, 0),
        (numbers(3, errors.ModelRaised("no")), Outcome.ERROR, 1),
        (numbers(0, errors.ReplicaDied("no")), Outcome.ERROR, 0),
        (numbers(0, errors.Overloaded("no")), Outcome.REFUSED, 0),
        (numbers(0, errors.DeadlineExceeded("no")), Outcome.ERROR, 1),
    ],
)
def test_every_stream_is_counted_once(tmp_path: Path, how: str, chunks: Any, outcome: Outcome, times: int) -> None:
    async def test(gateway: Gateway) -> None:
        gateway.serve(chunks=chunks, **STREAMS)
        counter = counted(gateway)
        await ask(gateway, how).end()
        tally = counter.tally()
        assert tally.outcomes == {outcome: 1}
        assert timed(tally) == times

    run(tmp_path, test)


@pytest.mark.parametrize("how", [STREAM, GRPC, GENERATE])
def test_what_does_not_fit_is_a_rejection(tmp_path: Path, how: str) -> None:
    async def test(gateway: Gateway) -> None:
        gateway.serve(chunks=numbers(1), **STREAMS)
        counter = counted(gateway)
        await ask(gateway, how, b'{"x": [[1]]}').end()
        assert (counter.tally().outcomes, timed(counter.tally())) == ({Outcome.REJECTED: 1}, 0)

    run(tmp_path, test)


@pytest.mark.parametrize("how", [STREAM, GRPC])
def test_time_and_prediction_are_of_the_first_response_and_counted_when_it_comes(tmp_path: Path, how: str) -> None:
    async def test(gateway: Gateway) -> None:
        replica = gateway.serve(chunks=numbers(500), **STREAMS)
        counter = counted(gateway)
        going = ask(gateway, how)
        await going.message(2)
        going.send_blocked.clear()
        await until(lambda: not replica._credit[1])
        tally = counter.tally()
        assert (tally.outcomes, timed(tally), tally.predictions) == ({}, 1, {"n": {"0": 1}})
        going.send_blocked.set()
        await going.end()
        assert counter.tally().outcomes == {Outcome.OK: 1}
        assert (counter.tally().latency, counter.tally().predictions) == (tally.latency, tally.predictions)

    run(tmp_path, test)


@pytest.mark.parametrize("how", [STREAM, GRPC])
def test_a_caller_that_leaves_in_the_middle_is_no_error(tmp_path: Path, how: str) -> None:
    async def test(gateway: Gateway) -> None:
        gateway.serve(chunks=numbers(100_000), **STREAMS)
        counter = counted(gateway)
        going = ask(gateway, how)
        going.send_error, going.fail_from = ConnectionResetError("gone"), 4
        await going.end()
        await until(lambda: counter.tally().outcomes)
        assert (counter.tally().outcomes, timed(counter.tally())) == ({Outcome.CANCELLED: 1}, 1)

    run(tmp_path, test)


def test_a_caller_that_leaves_before_the_first_response_has_waited(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        replica = gateway.serve(chunks=numbers(3), **STREAMS)
        replica.alive = False
        counter = counted(gateway)
        going = ask(gateway, STREAM)
        await until(lambda: gateway.services.router.find("m", "").queue.count)
        await going.leave().end()
        assert (counter.tally().outcomes, timed(counter.tally())) == ({Outcome.CANCELLED: 1}, 1)
        gateway.services.router.sweep(1e12)

    run(tmp_path, test)


@pytest.mark.parametrize("how", [STREAM, GRPC, GENERATE])
def test_a_model_that_answers_once_counts_as_it_does_without_a_stream(tmp_path: Path, how: str) -> None:
    async def test(gateway: Gateway) -> None:
        gateway.serve(lambda arrays: [Tensor("n", DType.INT64, np.array([7]))])
        counter = counted(gateway)
        await ask(gateway, how).end()
        tally = counter.tally()
        assert (tally.outcomes, timed(tally), tally.predictions) == ({Outcome.OK: 1}, 1, {"n": {"7": 1}})
        assert sum(batch.batches for batch in tally.compute.values()) == 1

    run(tmp_path, test)


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("fallback", [DeploymentFallback("other"), ConstantFallback({"y": [9.0, 9.0]})])
def test_what_a_fallback_answered_is_an_error_of_who_was_asked(
    tmp_path: Path, fallback: Fallback, streams: bool
) -> None:
    def failing(arrays: list[Any]) -> list[Tensor]:
        raise errors.ModelRaised("no")

    async def test(gateway: Gateway) -> None:
        more = STREAMS if streams else {}
        routes = [
            deployment_route(id=f"m@{n}", version=n, name=name, **more) for n, name in (("1", "main"), ("2", "other"))
        ]
        asked, other = gateway.deploy(*routes, traffic={"m@1": 1.0}, policy=TrafficPolicy(fallback=(fallback,)))
        asked.counter, other.counter = DeploymentCounter(), DeploymentCounter()
        asked.add_replica(ComputingReplica(asked, failing, chunks=numbers(0, errors.ModelRaised("no")), id="a"))
        other.add_replica(ComputingReplica(other, doubled, chunks=numbers(2), id="b"))
        assert (await ask(gateway, STREAM).end()).headers["x-headrace-fallback"]
        assert (asked.counter.tally().outcomes, timed(asked.counter.tally())) == ({Outcome.ERROR: 1}, 0)
        assert (other.counter.tally().outcomes, timed(other.counter.tally())) == ({}, 0)

    run(tmp_path, test)
