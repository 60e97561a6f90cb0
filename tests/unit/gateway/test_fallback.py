"""Who answers when a deployment cannot, in every protocol; and when nobody else may."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from headrace.core import errors
from headrace.core.fallbacks import ConstantFallback, DeploymentFallback, Fallback
from headrace.core.models import SlotKind, Slots, TensorSpec
from headrace.core.requests import Outcome
from headrace.core.tensors import DType, Tensor
from headrace.core.traffic import OVERRIDES, TrafficPolicy
from headrace.pipeline.breaker import ENOUGH, BreakerState
from headrace.pipeline.deployment import Deployment
from headrace.protocols import grpc_frames
from headrace.protocols.grpc_status import Code
from headrace.protocols.proto import open_inference_pb2 as pb
from tests.fakes import ROWS, ComputingReplica, deployment_route, until
from tests.gateways import Exchange, Gateway, run

INFER = "/v2/models/m/infer"
TO_OTHER: tuple[Fallback, ...] = (DeploymentFallback("challenger"),)
TO_CONSTANT: tuple[Fallback, ...] = (ConstantFallback({"y": [9.0, 9.0]}),)
STREAMS = msgspec.structs.replace(ROWS, streaming=True)
CONCURRENT = Slots(SlotKind.CONCURRENT, 4)


class Champion:
    """Raises ``error`` when there is one, after ``chunks_before`` chunks of a stream; counts what it was asked."""

    def __init__(self, error: Exception | None = None, chunks_before: int = 0) -> None:
        self.error = error
        self.chunks_before = chunks_before
        self.asked = 0

    def __call__(self, arrays: list[Any]) -> list[Tensor]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return answering(1)(arrays)

    def chunks(self, arrays: list[Any]) -> Any:
        self.asked += 1
        for _ in range(self.chunks_before):
            yield answering(1)(arrays)
        if self.error is not None:
            raise self.error


def answering(number: int) -> Callable[[list[Any]], list[Tensor]]:
    return lambda arrays: [Tensor("y", DType.FP32, np.full_like(arrays[0], number))]


def deploy(
    gateway: Gateway,
    champion: Champion,
    fallback: tuple[Fallback, ...],
    other: dict[str, Any] | None = None,
    **own: Any,
) -> list[Deployment]:
    """A champion that gets everything, a challenger that answers 2."""
    routes = (
        deployment_route(**{"id": "m@1", "version": "1", "name": "champion", **own}),
        deployment_route(**{"id": "m@2", "version": "2", "name": "challenger", **(other or {})}),
    )
    policy = TrafficPolicy(fallback=fallback, overrides=OVERRIDES)
    first, second = gateway.deploy(*routes, traffic={"m@1": 1.0}, policy=policy)
    first.add_replica(ComputingReplica(first, champion, chunks=champion.chunks, id="a"))
    second.add_replica(ComputingReplica(second, answering(2), chunks=lambda a: [answering(2)(a)], id="b"))
    return [first, second]


def document(name: str = "x") -> dict[str, Any]:
    return {"inputs": [{"name": name, "datatype": "FP32", "shape": [1, 2], "data": [1.0, 1.0]}]}


async def ask(gateway: Gateway, path: str = INFER, name: str = "x", **headers: str) -> httpx.Response:
    async with gateway.client() as client:
        return await client.post(
            path, json=document(name), headers={k.replace("_", "-"): v for k, v in headers.items()}
        )


def call(gateway: Gateway, method: str) -> Exchange:
    request = pb.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(np.ones(2, np.float32).tobytes())
    headers = {"content-type": "application/grpc", "te": "trailers"}
    path = f"/inference.GRPCInferenceService/{method}"
    return Exchange(gateway, path, headers=headers).body(grpc_frames.frame(request.SerializeToString()))


@pytest.mark.parametrize(
    ("fallback", "version", "value", "said"),
    [
        (TO_OTHER, "2", 2.0, "challenger"),
        (TO_CONSTANT, "1", 9.0, "constant"),
        ((*TO_OTHER, *TO_CONSTANT), "2", 2.0, "challenger"),
        ((DeploymentFallback("champion"), DeploymentFallback("gone"), *TO_CONSTANT), "1", 9.0, "constant"),
    ],
)
def test_something_else_answers_in_every_protocol_and_is_told(
    tmp_path: Path, fallback: tuple[Fallback, ...], version: str, value: float, said: str
) -> None:
    async def test(gateway: Gateway) -> None:
        deploy(gateway, Champion(errors.ModelRaised("no")), fallback)
        answer = await ask(gateway)
        assert (answer.status_code, answer.json()["outputs"][0]["data"]) == (200, [value] * 2)
        assert (answer.json()["model_version"], answer.headers["x-headrace-fallback"]) == (version, said)
        unary = await call(gateway, "ModelInfer").end()
        assert (unary.grpc()[0], unary.headers["x-headrace-fallback"]) == (Code.OK, said)
        assert pb.ModelInferResponse.FromString(unary.grpc()[1][0]).model_version == version
        stream = await call(gateway, "ModelStreamInfer").end()
        told = pb.ModelStreamInferResponse.FromString(stream.grpc()[1][0])
        assert told.infer_response.model_version == version
        gateway.records.flush()
        assert [(r.version, r.outcome, r.fallback) for r in gateway.seen] == [(version, Outcome.OK, said)] * 3
        kind = "constant" if said == "constant" else "deployment"
        assert gateway.fallbacks() == {("m", "1", kind): 3.0}

    run(tmp_path, test)


def test_a_healthy_deployment_answers_itself(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        deploy(gateway, Champion(), TO_OTHER)
        answer = await ask(gateway)
        assert (answer.json()["model_version"], "x-headrace-fallback" in answer.headers) == ("1", False)
        gateway.records.flush()
        assert [r.fallback for r in gateway.seen] == [""]
        assert gateway.fallbacks() == {}

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.ModelRaised("no"), 200),
        (errors.BadModelOutput("no"), 200),
        (errors.ReplicaDied("no"), 200),
        (errors.DeadlineExceeded("no"), 200),
        (errors.Overloaded("no"), 200),
        (errors.NotReady("no"), 200),
        (errors.PoisonRequest("no"), 500),
        (errors.InvalidInput("no"), 400),
        (errors.QuotaExceeded("no"), 429),
        (errors.Bug("no"), 500),
    ],
)
def test_which_errors_another_deployment_may_not_have(tmp_path: Path, error: Exception, status: int) -> None:
    async def test(gateway: Gateway) -> None:
        deploy(gateway, Champion(error), TO_OTHER)
        assert (await ask(gateway)).status_code == status

    run(tmp_path, test)


def test_a_poison_request_gets_a_constant(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        deploy(gateway, Champion(errors.PoisonRequest()), (*TO_OTHER, *TO_CONSTANT))
        assert (await ask(gateway)).headers["x-headrace-fallback"] == "constant"

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/v2/models/m/versions/1/infer", {}), (INFER, {"X_Headrace_Deployment": "champion"})],
)
def test_who_names_a_deployment_gets_that_one_or_its_error(tmp_path: Path, path: str, headers: dict[str, str]) -> None:
    async def test(gateway: Gateway) -> None:
        deploy(gateway, Champion(errors.ModelRaised("no")), TO_OTHER)
        assert (await ask(gateway, path, **headers)).status_code == 500

    run(tmp_path, test)


def test_what_may_have_run_is_not_tried_again_where_that_does_harm(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        champion = Champion(errors.ModelRaised("no"))
        (first, _) = deploy(gateway, champion, (*TO_OTHER, *TO_CONSTANT), idempotent=False)
        assert (await ask(gateway)).status_code == 500
        assert champion.asked == 1
        first.remove_replica(first.replicas[0])
        first.update(msgspec.structs.replace(first.route, failed=True, replicas=(), reason="gone"), 1)
        refused = await ask(gateway)
        assert refused.headers["x-headrace-fallback"] == "challenger", "it never ran"

    run(tmp_path, test)


def test_second_attempts_are_paid_from_the_retry_budget_and_constants_are_free(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        champion = Champion(errors.ModelRaised("no"))
        (first, _) = deploy(gateway, champion, TO_OTHER)
        first._budget.tokens = 1.0
        assert (await ask(gateway)).status_code == 200
        first._budget.tokens = 0.0
        failed = await ask(gateway)
        assert (failed.status_code, "no" in failed.json()["error"]) == (500, True)
        first.fallback = TO_CONSTANT
        assert (await ask(gateway)).status_code == 200

    run(tmp_path, test)


def test_a_circuit_that_is_open_sends_requests_elsewhere_at_once(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        champion = Champion(errors.ModelRaised("no"))
        (first, _) = deploy(gateway, champion, TO_OTHER)
        for _ in range(ENOUGH + 5):
            assert (await ask(gateway)).status_code == 200
        assert (champion.asked, first.breaker.state) == (ENOUGH, BreakerState.OPEN)
        first.fallback = TO_CONSTANT
        assert (await ask(gateway)).json()["outputs"][0]["data"] == [9.0] * 2
        assert (await ask(gateway, name="wrong")).status_code == 400, "also a constant wants a valid request"
        assert champion.asked == ENOUGH
        champion.error = None
        first.breaker._opened -= 10.0
        assert (await ask(gateway)).headers.get("x-headrace-fallback") is None
        assert (champion.asked, first.breaker.state) == (ENOUGH + 1, BreakerState.CLOSED)

    run(tmp_path, test)


def test_overload_opens_no_circuit(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        (first, _) = deploy(gateway, Champion(errors.Overloaded("full")), TO_OTHER)
        for _ in range(2 * ENOUGH):
            assert (await ask(gateway)).status_code == 200
        assert first.breaker.state is BreakerState.CLOSED

    run(tmp_path, test)


def test_deadlines_of_callers_open_no_circuit_and_those_of_the_deployment_do(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        (first, _) = deploy(gateway, Champion(), TO_OTHER, timeout_s=1e-9)
        for _ in range(2 * ENOUGH):
            assert (await ask(gateway, x_request_timeout_ms="0.000001")).status_code == 504
        assert first.breaker.state is BreakerState.CLOSED
        for _ in range(ENOUGH):
            assert (await ask(gateway)).status_code == 200
        assert first.breaker.state is BreakerState.OPEN

    run(tmp_path, test)


def test_a_late_answer_is_given_by_another_unless_the_caller_set_the_time(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        deploy(gateway, Champion(), TO_OTHER, timeout_s=1e-9)
        assert (await ask(gateway)).headers["x-headrace-fallback"] == "challenger"
        (first, second) = deploy(gateway, Champion(), (*TO_OTHER, *TO_CONSTANT))
        for deployment in (first, second):
            deployment.breaker.left()
        mine = await ask(gateway, x_request_timeout_ms="0.000001")
        assert mine.headers["x-headrace-fallback"] == "constant", "no time is left for a model"

    run(tmp_path, test)


def test_the_first_error_is_told_when_nobody_can(tmp_path: Path) -> None:
    other = msgspec.structs.replace(ROWS, inputs=(TensorSpec("other", DType.FP32, (-1, 2)),))

    async def test(gateway: Gateway) -> None:
        champion = Champion(errors.ModelRaised("the champion is out"))
        deploy(gateway, champion, TO_OTHER, other={"signature": other})
        failed = await ask(gateway)
        assert (failed.status_code, failed.json()["error"]) == (500, "the champion is out")
        deploy(gateway, champion, (ConstantFallback({"z": 1}),))
        wrong = await ask(gateway)
        assert (wrong.status_code, "has no output 'y'" in wrong.json()["error"]) == (500, True)

    run(tmp_path, test)


def test_another_signature_reads_the_body_anew(tmp_path: Path) -> None:
    wider = msgspec.structs.replace(ROWS, parameters=())

    async def test(gateway: Gateway) -> None:
        deploy(gateway, Champion(errors.ModelRaised("no")), TO_OTHER, other={"signature": wider})
        assert (await ask(gateway)).json()["model_version"] == "2"

    run(tmp_path, test)


@pytest.mark.parametrize(("before", "version"), [(0, "2"), (1, "1")])
def test_a_stream_has_another_until_its_first_chunk(tmp_path: Path, before: int, version: str) -> None:
    async def test(gateway: Gateway) -> None:
        champion = Champion(errors.ModelRaised("no"), before)
        settings = {"signature": STREAMS, "slots": CONCURRENT}
        deploy(gateway, champion, TO_OTHER, other=settings, **settings)
        stream = await call(gateway, "ModelStreamInfer").end()
        answers = [pb.ModelStreamInferResponse.FromString(m) for m in stream.grpc()[1]]
        assert answers[0].infer_response.model_version == version
        assert (answers[-1].error_message == "no") is bool(before)
        async with gateway.client() as client:
            told = await client.post("/v2/models/m/generate_stream", json={"x": [[1.0, 1.0]]})
        assert told.headers.get("x-headrace-fallback") == ("challenger" if not before else None)
        gateway.records.flush()
        expected = (Outcome.OK, "challenger") if not before else (Outcome.MODEL_ERROR, "")
        assert {(r.outcome, r.fallback) for r in gateway.seen[:1]} == {expected}

    run(tmp_path, test)


def test_callers_that_leave_leave_the_circuit_as_it_is(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        (first, _) = deploy(gateway, Champion(), TO_OTHER)
        replica = first.replicas[0]
        assert isinstance(replica, ComputingReplica)
        replica.paused = True
        first.breaker.state = BreakerState.HALF_OPEN
        going = call(gateway, "ModelInfer")
        await until(lambda: bool(replica.batches))
        assert not first.breaker.enter(0.0)
        going.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going.task
        assert first.breaker.enter(0.0), "the next one may find out"
        for batch in list(replica.batches.values()):
            replica.compute(batch)

    run(tmp_path, test)
