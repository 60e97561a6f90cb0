"""(desired, observed, now) → actions, as tables; and that repeating the loop reaches what was asked for and stops."""

from __future__ import annotations

import itertools
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from headrace.control import plan as planning
from headrace.control.observed import Desired, Observed, ObservedEnvironment, ObservedReplica, ObservedWorker
from headrace.control.plan import DrainWorker, ProvideEnvironment, StartWorker, StopWorker, backoff, pack, plan
from headrace.core.endpoints import DeploymentSpec, Isolation, ResourceSettings
from headrace.core.environments import EnvironmentSpec
from headrace.core.models import Artifact, Format
from headrace.core.replicas import ReplicaState


def spec(endpoint: str = "m", version: str = "1", digest: str = "d1", **fields: Any) -> DeploymentSpec:
    runtime, bearing = fields.pop("runtime", "onnx"), fields.pop("code_bearing", False)
    artifact = Artifact(f"/{endpoint}", Format.ONNX, runtime, digest, code_bearing=bearing)
    return DeploymentSpec(endpoint, version, artifact, **fields)


def desired(*specs: DeploymentSpec) -> Desired:
    return Desired(deployments={s.id: s for s in specs})


def observed(*workers: ObservedWorker) -> Observed:
    return Observed(workers={w.id: w for w in workers})


_ids = itertools.count()


def worker(
    *replicas: DeploymentSpec, state: ReplicaState = ReplicaState.READY, stopping: float | None = None
) -> ObservedWorker:
    number = next(_ids)
    made = [
        ObservedReplica(f"{r.id}#{number}-{i}", r.id, r.artifact.digest, r.load_key, state)
        for i, r in enumerate(replicas)
    ]
    return ObservedWorker(f"w{number}", made, "unix:/x", "/x", "t", stopping)


NOTHING: frozenset[str] = frozenset()


def test_starts_what_is_missing() -> None:
    one, two = spec("a"), spec("b", replicas=3)
    actions = plan(desired(one, two), observed(worker(two)), NOTHING, 0.0)
    assert actions == [StartWorker((one,)), StartWorker((two,)), StartWorker((two,))]


@pytest.mark.parametrize(
    "state", [ReplicaState.STARTING, ReplicaState.LOADING, ReplicaState.WARMING, ReplicaState.READY]
)
def test_does_nothing_when_all_is_there_or_on_its_way(state: ReplicaState) -> None:
    assert plan(desired(spec()), observed(worker(spec(), state=state)), NOTHING, 0.0) == []


def test_drains_what_is_not_wanted_and_stops_it_when_idle() -> None:
    old = worker(spec("gone"))
    assert plan(desired(), observed(old), NOTHING, 0.0) == [DrainWorker(old.id)]
    old.stopping_since = 1.0
    assert plan(desired(), observed(old), NOTHING, 0.0) == []
    assert plan(desired(), observed(old), frozenset({old.id}), 0.0) == [StopWorker(old.id)]


def test_another_digest_is_another_model() -> None:
    old = worker(spec(digest="d1"))
    new = spec(digest="d2")
    assert plan(desired(new), observed(old), NOTHING, 0.0) == [DrainWorker(old.id), StartWorker((new,))]


def test_scales_down_from_the_end() -> None:
    workers = [worker(spec()) for _ in range(3)]
    assert plan(desired(spec(replicas=1)), observed(*workers), NOTHING, 0.0) == [
        DrainWorker(workers[1].id),
        DrainWorker(workers[2].id),
    ]


def test_draining_workers_do_not_count() -> None:
    assert plan(desired(spec()), observed(worker(spec(), stopping=1.0)), NOTHING, 0.0) == [StartWorker((spec(),))]


def test_backoff_delays_starts_of_this_deployment_only() -> None:
    seen = observed()
    seen.restarts_of("m@1").not_before = 10.0
    other = spec("other")
    assert plan(desired(spec(), other), seen, NOTHING, 9.9) == [StartWorker((other,))]
    assert len(plan(desired(spec(), other), seen, NOTHING, 10.0)) == 2


def test_what_cannot_be_loaded_is_not_tried_again_and_its_worker_goes() -> None:
    failed = worker(spec(), state=ReplicaState.FAILED)
    seen = observed(failed)
    seen.restarts_of("m@1").load_failure = "no such file"
    assert plan(desired(spec()), seen, NOTHING, 0.0) == [DrainWorker(failed.id)]


def test_replicas_that_serve_survive_a_sibling_that_cannot_load_any_more() -> None:
    """The file was deleted while serving: one replica dies, its successor cannot load, the other must serve on."""
    serving, loading, failed = (
        worker(spec(replicas=3)),
        worker(spec(replicas=3), state=ReplicaState.LOADING),
        worker(spec(replicas=3), state=ReplicaState.FAILED),
    )
    seen = observed(serving, loading, failed)
    seen.restarts_of("m@1").load_failure = "no such file"
    actions = plan(desired(spec(replicas=3)), seen, NOTHING, 0.0)
    assert actions == [DrainWorker(loading.id), DrainWorker(failed.id)]


def test_failed_replica_in_a_pack_does_not_take_the_others_along() -> None:
    a, b = spec("a", isolation=Isolation.PACKED), spec("b", isolation=Isolation.PACKED)
    packed = worker(a, b)
    packed.replicas[0].state = ReplicaState.FAILED
    seen = observed(packed)
    seen.restarts_of("a@1").load_failure = "broken"
    assert plan(desired(a, b), seen, NOTHING, 0.0) == []


ENVIRONMENT = EnvironmentSpec("k", ("numpy==1.26.4",), ())


def test_replicas_wait_for_their_environment_and_others_do_not() -> None:
    old, twin, new = spec("old", environment=ENVIRONMENT), spec("twin", environment=ENVIRONMENT), spec("new")
    world = observed()
    assert plan(desired(old, twin, new), world, NOTHING, 0.0) == [ProvideEnvironment(ENVIRONMENT), StartWorker((new,))]
    world.environments["k"] = ObservedEnvironment(reason="building")
    assert plan(desired(old, new), world, NOTHING, 0.0) == [StartWorker((new,))]
    world.environments["k"] = ObservedEnvironment(python="/k/bin/python")
    assert plan(desired(old, twin), world, NOTHING, 0.0) == [StartWorker((old,)), StartWorker((twin,))]


def test_an_environment_in_use_is_asked_for_after_a_restart_of_the_controller() -> None:
    old = spec(environment=ENVIRONMENT)
    assert plan(desired(old), observed(worker(old)), NOTHING, 0.0) == [ProvideEnvironment(ENVIRONMENT)]


def test_an_environment_that_cannot_be_built_is_not_tried_again() -> None:
    old = spec(environment=ENVIRONMENT)
    world = observed()
    world.restarts_of(old.id).load_failure = "there is no such package"
    assert plan(desired(old), world, NOTHING, 0.0) == []


def test_packs_share_one_environment() -> None:
    def packed(name: str, **fields: Any) -> DeploymentSpec:
        return spec(name, isolation=Isolation.PACKED, **fields)

    here, there, alone = packed("a", environment=ENVIRONMENT), packed("b", environment=ENVIRONMENT), packed("c")
    assert pack([here, there, alone]) == [(here, there), (alone,)]


def test_planning_changes_nothing() -> None:
    seen = observed(worker(spec()))
    plan(desired(spec()), seen, NOTHING, 0.0)
    assert seen.restarts == {}


@pytest.mark.parametrize(
    ("fruitless", "seconds"),
    [(0, 0.0), (1, 0.0), (2, 0.5), (3, 1.0), (4, 2.0), (9, 60.0), (100, 60.0), (100_000, 60.0)],
)
def test_backoff(fruitless: int, seconds: float) -> None:
    assert backoff(fruitless) == seconds


def test_packing_keeps_runtimes_trust_and_limits_apart() -> None:
    def packed(name: str, **fields: Any) -> DeploymentSpec:
        return spec(name, isolation=Isolation.PACKED, **fields)

    a, b, c = packed("a"), packed("b"), packed("c", runtime="sklearn")
    code1, code2 = packed("p", digest="d8", code_bearing=True), packed("q", digest="d9", code_bearing=True)
    large = packed("l", resources=ResourceSettings(memory=1 << 30))
    shadow = packed("s", yields=True)
    alone = spec("x")
    assert pack([a, alone, b, c, code1, code2, large, shadow, a]) == [
        (alone,),
        (a, b),
        (a,),
        (c,),
        (code1,),
        (code2,),
        (large,),
        (shadow,),
    ]
    many = [packed(f"m{i}") for i in range(planning.PACK_SIZE + 1)]
    assert [len(group) for group in pack(many)] == [planning.PACK_SIZE, 1]


@given(
    wanted=st.dictionaries(
        st.sampled_from("abc"), st.tuples(st.integers(1, 3), st.sampled_from(["d1", "d2"]), st.booleans())
    ),
    before=st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from(["d1", "d2"]), st.sampled_from(list(ReplicaState)))
    ),
)
def test_loop_reaches_what_is_asked_for(
    wanted: dict[str, tuple[int, str, bool]], before: list[tuple[str, str, ReplicaState]]
) -> None:
    specs = [
        spec(name, digest=digest, replicas=count, isolation=Isolation.PACKED if packed else Isolation.PROCESS)
        for name, (count, digest, packed) in wanted.items()
    ]
    goal = desired(*specs)
    # A worker with a failed replica has exited, or its deployment has a load failure; neither is the case here.
    world = observed(
        *(
            worker(spec(name, digest=digest), state=state)
            for name, digest, state in before
            if state is not ReplicaState.FAILED
        )
    )
    for now in range(16):  # replicas that are loaded otherwise are replaced one by one
        actions = plan(goal, world, frozenset(world.workers), float(now))
        for action in actions:
            match action:
                case StartWorker(deployments):
                    started = worker(*deployments)
                    world.workers[started.id] = started
                case DrainWorker(id):
                    world.workers[id].stopping_since = float(now)
                case StopWorker(id):
                    del world.workers[id]
    assert plan(goal, world, frozenset(world.workers), 9.0) == []
    for one in specs:
        assert len(world.replicas(one.id)) == one.replicas
        assert {(r.digest, r.load_key) for r in world.replicas(one.id)} <= {(one.artifact.digest, one.load_key)}
    assert sum(len(w.replicas) for w in world.workers.values()) == sum(s.replicas for s in specs)


@given(replicas=st.integers(1, 4), slow=st.lists(st.booleans(), min_size=40, max_size=40))
def test_replicas_that_are_loaded_anew_take_over_one_by_one(replicas: int, slow: list[bool]) -> None:
    """A restart by hand, or other threads: as many as asked for serve at any time, and at most one more is loaded."""
    old, new = spec(replicas=replicas), spec(replicas=replicas, restarts=1)
    world = observed(*(worker(old) for _ in range(replicas)))
    for now, wait in enumerate(slow):
        for action in plan(desired(new), world, frozenset(world.workers), float(now)):
            match action:
                case StartWorker(deployments):
                    started = worker(*deployments, state=ReplicaState.LOADING)
                    world.workers[started.id] = started
                case DrainWorker(id):
                    world.workers[id].stopping_since = float(now)
                case StopWorker(id):
                    del world.workers[id]
        live = [w for w in world.workers.values() if w.stopping_since is None]
        serving = [r for w in live for r in w.replicas if r.state is ReplicaState.READY]
        assert len(serving) >= replicas
        assert len(live) <= replicas + 1
        if not wait:
            for one in world.replicas(new.id):
                one.state = ReplicaState.READY
    if slow.count(False) > 2 * replicas + 2:
        assert {r.load_key for r in world.replicas(new.id)} == {new.load_key}
