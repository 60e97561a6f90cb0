"""Shadows get what is left over: after the answer, while they are idle, or not at all; and every request is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest

from headrace.core import errors
from headrace.core.endpoints import BatchingSettings
from headrace.core.routes import DeploymentRoute, EndpointRoute, RouteTable
from headrace.core.shadows import Mirrored, Shadow, ShadowLoad
from headrace.core.tensors import DType, Tensor
from headrace.core.traffic import TrafficPolicy
from headrace.pipeline import mirror
from headrace.pipeline.deployment import Deployment
from headrace.pipeline.router import Router
from tests import fakes
from tests.fakes import World, deployment_route

LIVE = deployment_route(id="m@1", version="1", name="champion")
DARK = deployment_route(id="m@2", version="2", name="dark", batching=BatchingSettings(max_batch_size=8))


class Shadowed:
    """A live deployment, its shadow with one replica, and a loop that turns when the test says so."""

    def __init__(self, percent: float = 100.0, draw: float = 0.0, dark: DeploymentRoute = DARK) -> None:
        self.loop = asyncio.new_event_loop()
        self.world = World()
        self.world.make_future = self.loop.create_future
        self.router = Router(self.world.make, lambda: draw, self.world.clock)
        self.version = 0
        self.apply(TrafficPolicy({"champion": 1.0}, shadows=(Shadow("dark", percent),)), dark)
        deployments = self.router.endpoints["m"].deployments
        self.live, self.dark = deployments["1"], deployments["2"]
        self.replica = fakes.FakeReplica(self.dark)
        self.dark.add_replica(self.replica)

    def apply(self, policy: TrafficPolicy, dark: DeploymentRoute = DARK) -> None:
        self.version += 1
        self.router.apply(RouteTable(self.version, 1, (EndpointRoute("m", (LIVE, dark), {"m@1": 1.0}, policy),)))

    def answered(self, value: float = 1.0, rows: int = 1, request_id: str = "r") -> None:
        """A live request has been answered."""
        assert self.live.offer is not None
        self.live.offer(fakes.bound(rows), [output(value, rows)], 0.002, request_id, self.live)
        self.turn()

    def turn(self) -> None:
        self.world.run()
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()
        self.world.run()

    def answer(self, value: float = 1.0, rows: int = 1) -> None:
        """The shadow answers what it was sent."""
        (batch,) = self.replica.batches.values()
        for call in batch.calls:
            call.outputs, call.compute = [output(value, rows)], 0.005
        self.replica.batches.clear()
        self.dark.finished(self.replica, batch, 0.005, batch.rows)
        self.turn()

    @property
    def load(self) -> ShadowLoad:
        assert self.dark.shadow_load is not None
        return self.dark.shadow_load

    def counts(self) -> tuple[int, int, int, int]:
        """agreed, disagreed, failed, dropped; as counted for metrics too."""
        load = self.load
        told = [outcome for _, outcome in self.world.recorder.shadows]
        found = load.agreed, load.disagreed, load.failed, load.dropped
        assert found == tuple(told.count(outcome) for outcome in Mirrored)
        return found


def output(value: float, rows: int = 1) -> Tensor:
    return Tensor("y", DType.FP32, np.full(rows, value, np.float32))


@pytest.fixture
def shadowed() -> Iterator[Shadowed]:
    made = Shadowed()
    yield made
    made.loop.close()


def test_answers_are_compared(shadowed: Shadowed) -> None:
    shadowed.answered(1.0)
    shadowed.answer(1.0)
    shadowed.answered(2.0, request_id="odd")
    shadowed.answer(3.0)
    assert shadowed.counts() == (1, 1, 0, 0)
    load = shadowed.load
    assert (load.max_absolute, load.max_relative) == (1.0, 0.5)
    assert (load.live_ms, load.shadow_ms) == (pytest.approx(4.0), pytest.approx(10.0))
    (told,) = load.sample
    assert (told.request_id, told.output, told.live, told.shadow) == ("odd", "y", "[1]: 2.0", "[1]: 3.0")
    assert shadowed.world.recorder.compared_seconds == [(0.002, 0.005)] * 2


def test_errors_of_a_shadow_are_counted_and_nobody_reads_them(shadowed: Shadowed) -> None:
    shadowed.answered()
    shadowed.replica.answer(error=errors.ModelRaised("no"))
    shadowed.turn()
    assert shadowed.counts() == (0, 0, 1, 0)


def test_only_an_idle_shadow_is_asked_and_one_request_at_a_time(shadowed: Shadowed) -> None:
    for _ in range(3):
        shadowed.answered()
    assert len(shadowed.replica.sent) == 1
    shadowed.answer()
    assert len(shadowed.replica.sent) == 2
    shadowed.answer()
    shadowed.answer()
    assert shadowed.counts() == (3, 0, 0, 0)


def test_a_shadow_waits_while_live_requests_do(shadowed: Shadowed) -> None:
    shadowed.world.deployment = shadowed.live
    waiting = shadowed.world.call()
    shadowed.answered()
    assert shadowed.replica.sent == []
    waiting.fail(errors.Cancelled())
    shadowed.live.queue.expire(shadowed.world.clock() + 1e6)
    shadowed.router.sweep(shadowed.world.clock())
    shadowed.turn()
    assert len(shadowed.replica.sent) == 1
    shadowed.answer()


def test_what_waits_too_long_or_finds_no_room_is_dropped(shadowed: Shadowed) -> None:
    shadowed.dark.remove_replica(shadowed.replica)
    for _ in range(mirror.CAPACITY + 5):
        shadowed.answered()
    assert shadowed.counts() == (0, 0, 0, 5)
    shadowed.world.clock.now += mirror.PATIENCE_S + 1
    shadowed.router.sweep(shadowed.world.clock())
    assert shadowed.counts() == (0, 0, 0, mirror.CAPACITY + 5)


def test_bytes_are_bounded_too(shadowed: Shadowed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "CAPACITY_BYTES", 3 * (fakes.bound().nbytes + 4))
    shadowed.dark.remove_replica(shadowed.replica)
    for _ in range(5):
        shadowed.answered()
    assert shadowed.counts() == (0, 0, 0, 2)


def test_requests_that_the_shadow_does_not_take_are_dropped() -> None:
    made = Shadowed()
    made.answered(rows=9)
    assert made.counts() == (0, 0, 0, 1)
    made.loop.close()
    made = Shadowed(dark=deployment_route(id="m@2", version="2", name="dark", signature=None))
    made.answered()
    assert made.counts() == (0, 0, 0, 1)
    made.loop.close()


@pytest.mark.parametrize(("draw", "mirrored"), [(0.099, 1), (0.1, 0)])
def test_chance_chooses_the_share(draw: float, mirrored: int) -> None:
    made = Shadowed(percent=10.0, draw=draw)
    made.answered()
    assert len(made.replica.sent) == mirrored
    if mirrored:
        made.answer()
    made.loop.close()


def test_results_stay_over_route_tables_and_end_with_the_shadow(shadowed: Shadowed) -> None:
    shadowed.answered()
    shadowed.answer()
    shadowed.apply(TrafficPolicy({"champion": 1.0}, shadows=(Shadow("dark", 50.0),)))
    assert shadowed.counts() == (1, 0, 0, 0)
    shadowed.answered()
    shadowed.answered()
    shadowed.apply(TrafficPolicy({"champion": 1.0}, shadows=(Shadow("nobody", 50.0),)))
    assert shadowed.dark.shadow_load is None
    assert shadowed.live.offer is None
    assert [outcome for _, outcome in shadowed.world.recorder.shadows] == [Mirrored.AGREED, Mirrored.DROPPED]
    shadowed.answer()
    assert shadowed.dark.shadow_load is None, "what it was still computing is of no interest"


def test_an_endpoint_that_leaves_takes_its_shadows_along(shadowed: Shadowed) -> None:
    shadowed.answered()
    shadowed.answered()
    shadowed.router.apply(RouteTable(9, 1, ()))
    assert [outcome for _, outcome in shadowed.world.recorder.shadows] == [Mirrored.DROPPED]
    shadowed.answer()
    shadowed.router.sweep(shadowed.world.clock())
    assert shadowed.replica.closed


def test_the_sample_is_bounded(shadowed: Shadowed) -> None:
    for number in range(mirror.SAMPLE + 4):
        shadowed.answered(request_id=str(number))
        shadowed.answer(2.0)
    assert [d.request_id for d in shadowed.load.sample] == [str(n) for n in range(4, mirror.SAMPLE + 4)]


def test_a_shadow_does_not_shadow_itself(shadowed: Shadowed) -> None:
    dark: Deployment = shadowed.dark
    assert dark.offer is not None
    dark.offer(fakes.bound(), [output(1.0)], 0.001, "r", dark)
    assert shadowed.counts() == (0, 0, 0, 0)
