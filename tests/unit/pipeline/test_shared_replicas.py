"""Several gateways feed one replica: what the status page tells decides when a batch leaves."""

from __future__ import annotations

import pytest

from headrace.core.endpoints import BatchingSettings
from tests import fakes
from tests.fakes import World


def shared_world(gateways: int = 2) -> tuple[World, fakes.FakeReplica]:
    world = World(gateways=gateways, batching=BatchingSettings(max_batch_size=8))
    world.deployment.learn([(1, 0.010)] * 5)
    return world, world.replica()


def test_replica_that_computes_for_another_gateway_is_busy() -> None:
    world, replica = shared_world()
    replica.shared = (world.clock(), 1)
    world.call()
    world.run()
    assert replica.sent == []


def test_backlog_leaves_just_before_the_other_gateways_batch_ends() -> None:
    world, replica = shared_world()
    replica.shared = (world.clock(), 1)
    for _ in range(3):
        world.call()
    world.run()
    world.clock.now += 0.005
    world.call()
    world.loop.run()
    assert replica.sent == []
    world.clock.now += 0.004
    world.loop.run()
    assert [len(calls) for calls, *_ in replica.sent] == [4]


def test_full_batch_does_not_wait_for_the_end() -> None:
    world, replica = shared_world()
    replica.shared = (world.clock(), 1)
    for _ in range(8):
        world.call()
    world.run()
    assert [len(calls) for calls, *_ in replica.sent] == [8]


def test_coarse_timer_finds_a_replica_that_became_idle_earlier_than_predicted() -> None:
    world, replica = shared_world()
    replica.shared = (world.clock(), 1)
    world.call()
    world.run()
    replica.shared = None
    world.run(0.002)
    assert [len(calls) for calls, *_ in replica.sent] == [1]


def test_nothing_is_put_behind_a_batch_that_is_far_too_late() -> None:
    world, replica = shared_world()
    replica.shared = (world.clock() - 5.0, 1)
    world.call()
    world.run()
    assert replica.sent == []


@pytest.mark.parametrize("gateways", [1, 2])
def test_unknown_page_leaves_the_gateways_own_view(gateways: int) -> None:
    world, replica = shared_world(gateways)
    world.call()
    world.run()
    world.call()
    world.run()
    assert [len(calls) for calls, *_ in replica.sent] == [1]
    replica.answer()
    assert [len(calls) for calls, *_ in replica.sent] == [1, 1]
