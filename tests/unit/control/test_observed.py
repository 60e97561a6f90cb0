"""Which replicas a deployment has, while workers come and go."""

from __future__ import annotations

from headrace.control.observed import Observed, ObservedReplica, ObservedWorker
from headrace.core.replicas import ReplicaState


def worker(id: str, *deployments: str) -> ObservedWorker:
    replicas = [ObservedReplica(f"{deployment}#{id}", deployment, "d", "k") for deployment in deployments]
    return ObservedWorker(id, replicas, f"unix:/{id}", f"/{id}.status", "token")


def ids(observed: Observed, deployment: str) -> list[str]:
    return [replica.id for replica in observed.replicas(deployment)]


def test_replicas_are_found_with_their_worker_and_their_place_in_it() -> None:
    first, second = worker("w1", "a@1", "b@1"), worker("w2", "b@1")
    observed = Observed(workers={"w1": first, "w2": second})
    assert [(p.worker, p.number, p.replica) for p in observed.placed("b@1")] == [
        (first, 1, first.replicas[1]),
        (second, 0, second.replicas[0]),
    ]
    assert observed.placed("c@1") == []


def test_coming_and_going_workers_are_seen_at_once() -> None:
    observed = Observed(workers={"w1": worker("w1", "a@1")})
    assert ids(observed, "a@1") == ["a@1#w1"]
    observed.workers["w2"] = worker("w2", "a@1")
    assert ids(observed, "a@1") == ["a@1#w1", "a@1#w2"]
    del observed.workers["w1"]
    assert ids(observed, "a@1") == ["a@1#w2"]


def test_a_worker_that_takes_the_place_of_an_equal_one_is_another_one() -> None:
    observed = Observed(workers={"w1": worker("w1", "a@1")})
    assert observed.ready("a@1") == set()
    fresh = worker("w1", "a@1")
    observed.workers["w1"] = fresh
    assert ids(observed, "a@1") == ["a@1#w1"]
    fresh.replicas[0].move(ReplicaState.LOADING)
    fresh.replicas[0].move(ReplicaState.WARMING)
    fresh.replicas[0].move(ReplicaState.READY)
    assert observed.ready("a@1") == {"a@1#w1"}


def test_observations_are_equal_whatever_was_asked_of_them() -> None:
    one, other = worker("w1", "a@1"), worker("w1", "a@1")
    asked = Observed(workers={"w1": one})
    asked.placed("a@1")
    assert asked == Observed(workers={"w1": other})
