"""The plan: (desired, observed, now) → actions. Pure; the reconcile loop acts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from headrace.control.observed import Desired, Observed, ObservedReplica, ObservedWorker, Restarts
from headrace.core.endpoints import DeploymentSpec, Isolation
from headrace.core.environments import EnvironmentSpec
from headrace.core.models import Artifact
from headrace.core.replicas import ReplicaState

BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 60.0
PACK_SIZE = 32
"""Replicas in one packed worker."""


@dataclass(frozen=True, slots=True)
class StartWorker:
    """One process with these replicas in it (several when packed)."""

    deployments: tuple[DeploymentSpec, ...]


@dataclass(frozen=True, slots=True)
class DrainWorker:
    """Take the worker out of the route table; it is stopped when no gateway needs it."""

    worker: str


@dataclass(frozen=True, slots=True)
class StopWorker:
    worker: str


@dataclass(frozen=True, slots=True)
class ProvideEnvironment:
    """Find or build the environment that replicas of a version run in."""

    environment: EnvironmentSpec


Action = StartWorker | DrainWorker | StopWorker | ProvideEnvironment


def backoff(fruitless: int) -> float:
    """Seconds before the next start after ``fruitless`` deaths in a row without a completed batch."""
    if fruitless <= 1:
        return 0.0
    # The exponent is bounded too: a replica may die for months.
    return float(min(BACKOFF_FIRST_S * 2 ** min(fruitless - 2, 30), BACKOFF_MAX_S))


def plan(desired: Desired, observed: Observed, idle: frozenset[str], now: float) -> list[Action]:
    """Actions that bring the world nearer to ``desired``; safe to repeat.

    idle  ids of draining workers that every gateway has let go of"""
    actions: list[Action] = []
    for worker in observed.workers.values():
        if worker.stopping_since is not None:
            if worker.id in idle:
                actions.append(StopWorker(worker.id))
        elif not _wanted(worker, desired, observed):
            actions.append(DrainWorker(worker.id))
    actions += _starts(desired, observed, now)
    return actions


def _wanted(worker: ObservedWorker, desired: Desired, observed: Observed) -> bool:
    """A worker stays while any of its replicas is wanted: deployed with the same digest, not above the count.

    An old deployment keeps its worker until the endpoint's traffic has moved to a ready one."""
    return any(_replica_wanted(replica, desired, observed) for replica in worker.replicas)


def _replica_wanted(replica: ObservedReplica, desired: Desired, observed: Observed) -> bool:
    spec = desired.deployments.get(replica.deployment)
    if spec is None or spec.artifact.digest != replica.digest:
        return False
    restarts = observed.restarts.get(replica.deployment)
    if restarts is not None and restarts.load_failure and replica.state is not ReplicaState.READY:
        # Those that serve go on: what one replica could not load any more they have.
        return False
    fresh, stale = _fresh_and_stale(spec, observed)
    if replica not in stale:
        return replica in fresh[: spec.replicas]
    # It serves until one that is loaded as asked takes its place.
    ready = sum(1 for r in fresh if r.state is ReplicaState.READY)
    return replica in stale[: max(spec.replicas - ready, 0)]


def _starts(desired: Desired, observed: Observed, now: float) -> list[Action]:
    missing: list[DeploymentSpec] = []
    environments: dict[str, EnvironmentSpec] = {}
    for spec in desired.deployments.values():
        restarts = observed.restarts.get(spec.id) or Restarts()
        if restarts.load_failure or now < restarts.not_before:
            continue
        environment = observed.environment_of(spec)
        if spec.environment is None or (environment is not None and environment.python):
            missing += [] if is_dormant(spec, desired, observed) else [spec] * _missing(spec, observed)
        elif environment is None:
            # Also when nothing is missing, after a restart of the controller: what is in use must be known to be.
            environments[spec.environment.key] = spec.environment
    return [*map(ProvideEnvironment, environments.values()), *(StartWorker(group) for group in pack(missing))]


def is_dormant(spec: DeploymentSpec, desired: Desired, observed: Observed) -> bool:
    """It starts on its first request, and none has come yet."""
    return spec.lazy and spec.id not in desired.awake and not _alive(spec, observed)


def _missing(spec: DeploymentSpec, observed: Observed) -> int:
    fresh, stale = _fresh_and_stale(spec, observed)
    missing = max(spec.replicas - len(fresh), 0)
    if not stale:
        return missing
    # Others serve meanwhile: one at a time, so that a machine need not hold every replica twice.
    loading = any(r.state is not ReplicaState.READY for r in fresh)
    return 0 if loading else min(missing, 1)


def _fresh_and_stale(spec: DeploymentSpec, observed: Observed) -> tuple[list[ObservedReplica], list[ObservedReplica]]:
    """Replicas loaded as ``spec`` asks, and those loaded with other settings."""
    wanted = spec.load_key
    fresh: list[ObservedReplica] = []
    stale: list[ObservedReplica] = []
    for replica in _alive(spec, observed):
        (fresh if replica.load_key == wanted else stale).append(replica)
    return fresh, stale


def _alive(spec: DeploymentSpec, observed: Observed) -> list[ObservedReplica]:
    return [
        replica
        for worker, _, replica in observed.placed(spec.id)
        if worker.stopping_since is None
        and replica.digest == spec.artifact.digest
        and replica.state is not ReplicaState.FAILED
    ]


def pack(specs: list[DeploymentSpec]) -> list[tuple[DeploymentSpec, ...]]:
    """Groups of replicas for one worker each: alone, or packed by runtime, environment and trust class.

    Two replicas of one deployment never share a worker: they would only take turns."""
    groups: list[tuple[DeploymentSpec, ...]] = []
    shelves: dict[tuple[object, ...], list[list[DeploymentSpec]]] = defaultdict(list)
    for spec in specs:
        if spec.isolation is Isolation.PROCESS:
            groups.append((spec,))
            continue
        environment = spec.environment.key if spec.environment is not None else ""
        shelf = shelves[_class(spec.artifact), environment, spec.resources.memory, spec.threads, spec.yields]
        for box in shelf:
            if len(box) < PACK_SIZE and all(other.id != spec.id for other in box):
                box.append(spec)
                break
        else:
            shelf.append([spec])
    return groups + [tuple(box) for shelf in shelves.values() for box in shelf]


def _class(artifact: Artifact) -> tuple[str, str]:
    # Code of one author must not share memory with another artifact.
    return artifact.runtime, artifact.digest if artifact.code_bearing else ""
