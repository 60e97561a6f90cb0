"""Route tables as they come: which are taken, what they change, and what happens to those that leave."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from headrace.core import errors
from headrace.core.endpoints import BatchingSettings
from headrace.core.routes import EndpointRoute, RouteTable
from headrace.pipeline.router import Router
from tests import fakes
from tests.fakes import World, deployment_route, route_table

V1 = deployment_route()
V2 = deployment_route(id="m@2", version="2")


def router() -> tuple[World, Router]:
    world = World()
    return world, world.router()


def two(weights: dict[str, float], version: int = 1) -> RouteTable:
    return RouteTable(version, 1, (EndpointRoute("m", (V1, V2), weights),))


@pytest.mark.parametrize(
    ("epoch", "version", "taken"),
    [(5, 8, True), (5, 7, False), (5, 6, False), (6, 1, True), (4, 100, False)],
)
def test_only_newer_tables_are_taken(epoch: int, version: int, taken: bool) -> None:
    _, following = router()
    assert following.apply(route_table(7, 5, m=[V1]))
    assert following.apply(route_table(version, epoch, other=[V1])) is taken
    assert ("other" in following.endpoints) is taken
    assert following.table_version == (version if taken else 7)


def test_find_by_endpoint_and_by_version() -> None:
    _, following = router()
    following.apply(two({"m@1": 1.0}))
    assert following.find("m", "").route.id == "m@1"
    assert following.find("m", "2").route.id == "m@2"
    with pytest.raises(errors.UnknownModel, match=r"no version '3'; deployed: 1, 2"):
        following.find("m", "3")
    with pytest.raises(errors.UnknownModel, match="model 'n' not found; this server has: m"):
        following.find("n", "")


def test_unknown_names_list_what_there_is_but_not_endlessly() -> None:
    _, following = router()
    with pytest.raises(errors.NotReady, match="starting"):
        following.find("m", "")
    following.apply(route_table(1))
    with pytest.raises(errors.UnknownModel, match="no models yet"):
        following.find("m", "")
    following.apply(route_table(2, m=[V1], **{f"e{i:02}": [V1] for i in range(20)}))
    with pytest.raises(errors.UnknownModel, match="and 11 more"):
        following.find("nope", "")


def test_an_unknown_version_lists_those_there_are_in_numeric_order() -> None:
    _, following = router()
    versions = ("10", "3", "beta", "1")
    following.apply(route_table(1, m=[deployment_route(id=f"m@{v}", version=v) for v in versions]))
    with pytest.raises(errors.UnknownModel, match=r"no version '9'; deployed: beta, 1, 3, 10$"):
        following.find("m", "9")


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"m@1": 1.0}, {"1": 1.0}),
        ({"m@1": 95.0, "m@2": 5.0}, {"1": 0.95, "2": 0.05}),
        ({"m@1": 0.0, "m@2": 1.0}, {"2": 1.0}),
        ({"m@2": 1.0, "elsewhere": 9.0}, {"2": 1.0}),
    ],
)
def test_traffic_follows_the_weights(weights: dict[str, float], expected: dict[str, float]) -> None:
    world = World()
    following = Router(world.make, random.Random(3).random)
    following.apply(two(weights))
    found = Counter(following.find("m", "").route.version for _ in range(4000))
    assert set(found) == set(expected)
    for version, share in expected.items():
        assert found[version] / 4000 == pytest.approx(share, abs=0.02)


def test_no_weight_means_not_ready() -> None:
    _, following = router()
    following.apply(two({}))
    with pytest.raises(errors.NotReady, match="no version that takes traffic"):
        following.find("m", "")
    assert following.find("m", "1").route.id == "m@1"


def test_same_deployment_is_updated_in_place() -> None:
    _, following = router()
    following.apply(route_table(m=[V1]))
    before = following.find("m", "")
    changed = deployment_route(batching=BatchingSettings(max_batch_size=2))
    following.apply(route_table(2, m=[changed]))
    assert following.find("m", "") is before
    assert before.decision.limit == 2


def test_leaving_deployment_finishes_what_it_holds() -> None:
    world, following = router()
    following.apply(route_table(m=[V1]))
    old = following.find("m", "")
    replica = fakes.FakeReplica(old)
    old.add_replica(replica)
    world.deployment = old
    running = world.call()
    world.run()
    following.apply(route_table(2, m=[V2]))
    waiting = world.call()
    assert following.leaving == [old]
    following.sweep(world.clock())
    assert not replica.closed
    replica.answer()
    following.sweep(world.clock())
    assert not replica.closed, "one more call came before it was over"
    replica.answer()
    following.sweep(world.clock())
    assert replica.closed
    assert following.leaving == []
    assert running.error is waiting.error is None


def test_leaving_deployment_waits_for_its_suspects() -> None:
    world, following = router()
    following.apply(route_table(m=[V1]))
    old = world.deployment = following.find("m", "")
    dying, other = fakes.FakeReplica(old, "a"), fakes.FakeReplica(old, "b")
    old.add_replica(dying)
    first, second = world.call(), world.call()
    world.run()
    old.add_replica(other)
    following.apply(route_table(2, m=[V2]))
    dying.die()
    other.answer()
    following.sweep(world.clock())
    assert not other.closed, "the second suspect is still to be answered"
    other.answer()
    following.sweep(world.clock())
    assert other.closed
    assert first.error is second.error is None


def test_leaving_deployment_that_lost_its_replicas_ends_its_calls() -> None:
    world, following = router()
    following.apply(route_table(m=[V1]))
    old = world.deployment = following.find("m", "")
    replica = fakes.FakeReplica(old)
    old.add_replica(replica)
    call = world.call()
    world.run()
    following.apply(route_table(2))
    replica.die()
    following.sweep(world.clock())
    assert isinstance(call.error, errors.NotReady)
    assert following.deployments() == []
    with pytest.raises(errors.NotReady):
        old.admit(1, 8, world.clock(), world.clock() + 60)


def test_sweep_reaches_every_deployment() -> None:
    world, following = router()
    following.apply(two({"m@1": 1.0}))
    calls = []
    for deployment in following.deployments():
        world.deployment = deployment
        calls.append(world.call(timeout=1.0))
    world.clock.now += 2.0
    following.sweep(world.clock())
    assert all(isinstance(c.error, errors.DeadlineExceeded) for c in calls)


def test_an_endpoint_that_comes_back_is_a_new_deployment() -> None:
    _, following = router()
    following.apply(route_table(1, m=[V1]))
    before = following.find("m", "")
    following.apply(route_table(2))
    following.apply(route_table(3, m=[V1]))
    assert following.find("m", "") is not before


def test_shut_reaches_every_deployment_and_follows_no_table_any_more() -> None:
    world = World()
    router = world.router()
    router.apply(route_table(1, a=[deployment_route()], b=[deployment_route(id="b@1")]))
    gone = errors.NotReady("the server is shutting down")
    router.shut(gone)
    for name in ("a", "b"):
        with pytest.raises(errors.NotReady, match="shutting down"):
            router.find(name, "").admit(1, 4, 0.0, 1.0)
    assert not router.apply(route_table(2, a=[deployment_route()], c=[deployment_route()]))
    assert "c" not in router.endpoints
