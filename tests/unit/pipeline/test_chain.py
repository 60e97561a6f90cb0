"""A request from its body to its response: stages in order, large batches split and joined, one record at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from headrace.core import errors
from headrace.core.calls import Call
from headrace.core.endpoints import AdmissionSettings, BatchingSettings
from headrace.core.models import Signature
from headrace.core.requests import InferenceRequest, InferenceResponse, Outcome
from headrace.core.tensors import DType, Tensor
from headrace.pipeline import chain
from headrace.pipeline.chain import Exchange
from headrace.pipeline.deployment import Deployment, maker
from tests import fakes
from tests.fakes import ComputingReplica, FakeRecorder, deployment_route


class PlainCodec:
    """Bodies are arrays already."""

    def parse_request(self, body: Any, json_size: int | None, signature: Signature) -> tuple[InferenceRequest, Any]:
        if isinstance(body, Exception):
            raise body
        return InferenceRequest([Tensor("x", DType.FP32, body)], id="caller's"), "rendering"

    def render_response(self, response: InferenceResponse, rendering: Any, signature: Signature) -> Any:
        assert rendering == "rendering"
        return response.outputs[0].array


def doubled(arrays: list[Any]) -> list[Tensor]:
    return [Tensor("y", DType.FP32, arrays[0] * 2)]


def deploy(compute: Callable[[list[Any]], list[Tensor]] = doubled, **route: Any) -> tuple[Deployment, ComputingReplica]:
    """Must be called on a running loop."""
    deployment = maker(asyncio.get_running_loop(), FakeRecorder())("m", deployment_route(**route), 1)
    replica = ComputingReplica(deployment, compute)
    deployment.add_replica(replica)
    return deployment, replica


def exchange(deployment: Deployment, body: Any, timeout: float = 60.0) -> Exchange:
    now = monotonic()
    made = Exchange(deployment, PlainCodec(), "test", now, now + timeout, "id")
    made.body = body
    return made


def rows(count: int) -> Any:
    return np.arange(count * 2, dtype=np.float32).reshape(count, 2)


def test_stages_before_the_queue_are_one_visible_list() -> None:
    assert [stage.__name__ for stage in chain.BEFORE_QUEUE] == ["_decode", "_bind", "_admit"]


def test_run_encode_record() -> None:
    async def scenario() -> None:
        deployment, _ = deploy()
        going = exchange(deployment, rows(3))
        await chain.run(going)
        chain.encode(going)
        assert (going.reply == rows(3) * 2).all()
        assert going.response is not None
        assert (going.response.model_name, going.response.model_version, going.response.id) == ("m", "1", "caller's")
        record = chain.record(going, None)
        assert (record.model, record.version, record.outcome, record.rows) == ("m", "1", Outcome.OK, 3)
        assert record.replica == "r#1"
        assert record.error == ""
        for stage in (record.decode, record.queue, record.batch_wait, record.compute, record.encode):
            assert 0 <= stage <= record.total
        assert deployment.idle

    asyncio.run(scenario())


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 16, 61])
def test_batches_larger_than_the_limit_are_split_and_joined(count: int) -> None:
    async def scenario() -> None:
        deployment, replica = deploy(batching=BatchingSettings(max_batch_size=8))
        going = exchange(deployment, rows(count))
        await chain.run(going)
        assert going.response is not None
        assert (going.response.outputs[0].array == rows(count) * 2).all()
        assert max(sum(c.rows for c in calls) for calls, *_ in replica.sent) <= 8
        assert sum(c.rows for calls, *_ in replica.sent for c in calls) == count
        assert deployment.idle

    asyncio.run(scenario())


def test_first_failing_piece_ends_the_request_and_the_other_pieces_are_not_computed() -> None:
    def compute(arrays: list[Any]) -> list[Tensor]:
        if arrays[0][0, 0] == 0:
            raise errors.ModelRaised("bad row")
        return doubled(arrays)

    async def scenario() -> None:
        deployment, replica = deploy(compute, batching=BatchingSettings(max_batch_size=2))
        with pytest.raises(errors.ModelRaised, match="bad row"):
            await chain.run(exchange(deployment, rows(100)))
        replica.resume()
        assert deployment.idle
        assert len(replica.sent) < 6, "nobody needs the other pieces"

    asyncio.run(scenario())


def test_small_request_takes_its_turn_between_the_pieces_of_a_large_one() -> None:
    async def scenario() -> None:
        deployment, replica = deploy(batching=BatchingSettings(max_batch_size=2))
        large = asyncio.create_task(chain.run(exchange(deployment, rows(200))))
        while len(replica.sent) < 5:  # noqa: ASYNC110 - turns of the loop, not time
            await asyncio.sleep(0)
        await chain.run(exchange(deployment, rows(1)))
        assert len(replica.sent) < 20
        assert not large.done()
        await large

    asyncio.run(scenario())


def test_large_request_is_admitted_by_the_pieces_that_wait_together() -> None:
    async def scenario() -> None:
        deployment, _ = deploy(
            batching=BatchingSettings(max_batch_size=2), admission=AdmissionSettings(max_queue_rows=8)
        )
        deployment.queue.push(Call(fakes.bound(1), float("inf"), 0.0, fakes.FakeWaiter()))
        await chain.run(exchange(deployment, rows(100)))

    asyncio.run(scenario())


def test_pieces_that_do_not_fit_together_are_the_models_fault() -> None:
    def compute(arrays: list[Any]) -> list[Tensor]:
        width = 1 if arrays[0][0, 0] == 0 else 2
        return [Tensor("y", DType.FP32, np.zeros((len(arrays[0]), width), np.float32))]

    async def scenario() -> None:
        deployment, _ = deploy(compute, batching=BatchingSettings(max_batch_size=2))
        with pytest.raises(errors.BadModelOutput, match="do not fit together"):
            await chain.run(exchange(deployment, rows(6)))

    asyncio.run(scenario())


@pytest.mark.parametrize("count", [1, 40])
def test_caller_that_leaves_takes_its_calls_along(count: int) -> None:
    async def scenario() -> None:
        deployment, replica = deploy(batching=BatchingSettings(max_batch_size=4))
        replica.paused = True
        task = asyncio.create_task(chain.run(exchange(deployment, rows(count))))
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        sent = len(replica.sent)
        replica.resume()
        assert deployment.idle
        assert len(replica.sent) == sent, "what the caller left behind is dropped, not computed"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (errors.InvalidInput("not a body"), errors.InvalidInput),
        (np.zeros((2, 3), np.float32), errors.InvalidInput),
    ],
)
def test_errors_before_the_queue_leave_nothing_behind(body: Any, error: type[Exception]) -> None:
    async def scenario() -> None:
        deployment, _ = deploy()
        going = exchange(deployment, body)
        with pytest.raises(error):
            await chain.run(going)
        assert deployment.queue.count == 0
        assert going.call is None
        record = chain.record(going, errors.InvalidInput())
        assert record.outcome == Outcome.CALLER_ERROR
        assert record.queue == record.compute == 0.0

    asyncio.run(scenario())


def test_past_deadline_is_refused_before_the_queue() -> None:
    async def scenario() -> None:
        deployment, replica = deploy()
        with pytest.raises(errors.DeadlineExceeded):
            await chain.run(exchange(deployment, rows(1), timeout=-1.0))
        assert not replica.sent

    asyncio.run(scenario())


def test_many_callers_each_get_their_own_rows() -> None:
    async def scenario() -> None:
        deployment, replica = deploy(batching=BatchingSettings(max_batch_size=16))

        async def one(index: int) -> None:
            body = np.full((index % 5, 2), index, np.float32)
            going = exchange(deployment, body)
            await chain.run(going)
            assert going.response is not None
            assert (going.response.outputs[0].array == body * 2).all()

        await asyncio.gather(*(one(i) for i in range(300)))
        assert len(replica.sent) < 300
        assert deployment.idle

    asyncio.run(scenario())


def test_encode_and_join_refuse_to_guess() -> None:
    async def scenario() -> None:
        deployment, _ = deploy()
        with pytest.raises(errors.Bug):
            chain.encode(exchange(deployment, rows(1)))

    asyncio.run(scenario())


@given(st.integers(1, 300), st.integers(1, 64))
def test_split_covers_every_row_once(count: int, limit: int) -> None:
    whole = fakes.bound(count)
    pieces = list(chain.split(whole, limit))
    assert all(1 <= p.rows <= limit and len(p.arrays[0]) == p.rows for p in pieces)
    assert (np.concatenate([p.arrays[0] for p in pieces]) == whole.arrays[0]).all()
    assert all(p.key == whole.key for p in pieces)
    assert sum(p.nbytes for p in pieces) <= whole.nbytes
    assert all(np.shares_memory(p.arrays[0], whole.arrays[0]) for p in pieces)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (errors.InvalidInput(), Outcome.CALLER_ERROR),
        (errors.UnknownModel(), Outcome.CALLER_ERROR),
        (errors.Cancelled(), Outcome.CANCELLED),
        (errors.NotReady(), Outcome.NOT_READY),
        (errors.Overloaded(), Outcome.OVERLOADED),
        (errors.QuotaExceeded(), Outcome.OVERLOADED),
        (errors.DeadlineExceeded(), Outcome.DEADLINE),
        (errors.ModelRaised(), Outcome.MODEL_ERROR),
        (errors.PoisonRequest(), Outcome.MODEL_ERROR),
        (errors.Bug(), Outcome.BUG),
        (errors.HeadraceError(), Outcome.BUG),
    ],
)
def test_every_error_has_an_outcome(error: errors.HeadraceError, outcome: int) -> None:
    assert chain.outcome_of(error) == outcome
    assert chain.record_unrouted("oip", error, "id", monotonic()).outcome == outcome
