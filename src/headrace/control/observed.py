"""What the controller knows about the workers that exist: values fed by the supervisor's messages."""

from __future__ import annotations

import operator
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from headrace.core.endpoints import DeploymentSpec
from headrace.core.models import LoadedModel
from headrace.core.replicas import ReplicaState, move
from headrace.core.routes import RequestLogRoute
from headrace.core.slo import Slo
from headrace.core.traffic import EndpointTraffic
from headrace.core.trials import Trial


@dataclass(slots=True)
class ObservedReplica:
    """A replica in a worker. ``timings``: warm-up (rows, seconds)."""

    id: str
    deployment: str
    digest: str
    load_key: str
    """See ``DeploymentSpec.load_key``."""
    state: ReplicaState = ReplicaState.STARTING
    model: LoadedModel | None = None
    timings: tuple[tuple[int, float], ...] = ()
    reason: str = ""

    def move(self, to: ReplicaState, reason: str = "") -> None:
        self.state = move(self.state, to)
        self.reason = reason


@dataclass(slots=True)
class ObservedWorker:
    """A worker process that was ordered and has not exited."""

    id: str
    replicas: list[ObservedReplica]
    address: str
    status_path: str
    token: str
    stopping_since: float | None = None


class Placed(NamedTuple):
    """A replica, its worker, and its number in there."""

    worker: ObservedWorker
    number: int
    replica: ObservedReplica


@dataclass(slots=True)
class Restarts:
    """How often replicas of a deployment died, for backoff. Times are monotonic seconds."""

    fruitless: int = 0
    """Deaths in a row without a completed batch."""
    not_before: float = 0.0
    load_failure: str = ""
    """Why the artifact cannot be loaded; no restart until the spec changes."""
    log_tail: str = ""


@dataclass(frozen=True, slots=True)
class ObservedEnvironment:
    """An environment of a version: how its build goes, or the interpreter in it."""

    python: str = ""
    """Path; empty while it is being built."""
    reason: str = ""
    """How the build goes, for people."""


@dataclass(slots=True)
class Observed:
    workers: dict[str, ObservedWorker] = field(default_factory=dict)
    restarts: dict[str, Restarts] = field(default_factory=dict)
    """By deployment id."""
    loaded: dict[tuple[str, str], ObservedReplica] = field(default_factory=dict)
    """By (deployment id, digest): the replica that loaded last. Its model stays known when all replicas have died,
    so that requests can wait for the next one."""

    environments: dict[str, ObservedEnvironment] = field(default_factory=dict)
    """By key; absent: nobody has asked for it yet."""

    _placed: dict[str, list[Placed]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _placed_of: list[ObservedWorker] = field(default_factory=list, init=False, repr=False, compare=False)
    """The workers that ``_placed`` was made of."""

    def environment_of(self, spec: DeploymentSpec) -> ObservedEnvironment | None:
        return self.environments.get(spec.environment.key) if spec.environment is not None else None

    def placed(self, deployment: str) -> list[Placed]:
        """The replicas of a deployment, in the order of their workers.

        Every pass of the controller asks this for every deployment, so it is kept by deployment: which replicas a
        worker holds is settled when it is ordered, and only coming and going workers change the answer."""
        workers = self.workers.values()
        if len(workers) != len(self._placed_of) or not all(map(operator.is_, workers, self._placed_of)):
            self._placed_of = list(workers)
            self._placed = _by_deployment(self._placed_of)
        return self._placed.get(deployment, [])

    def replicas(self, deployment: str) -> list[ObservedReplica]:
        return [placed.replica for placed in self.placed(deployment)]

    def ready(self, deployment: str) -> set[str]:
        """Ids of its replicas that are ready."""
        return {r.id for r in self.replicas(deployment) if r.state is ReplicaState.READY}

    def restarts_of(self, deployment: str) -> Restarts:
        return self.restarts.setdefault(deployment, Restarts())


def _by_deployment(workers: list[ObservedWorker]) -> dict[str, list[Placed]]:
    found: defaultdict[str, list[Placed]] = defaultdict(list)
    for worker in workers:
        for number, replica in enumerate(worker.replicas):
            found[replica.deployment].append(Placed(worker, number, replica))
    return dict(found)


@dataclass(slots=True)
class Desired:
    """What should run. ``traffic``: by endpoint, who gets its requests once ready."""

    deployments: dict[str, DeploymentSpec] = field(default_factory=dict)
    traffic: dict[str, EndpointTraffic] = field(default_factory=dict)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    """(endpoint, version) that cannot be served at all → why."""
    paused: dict[str, str] = field(default_factory=dict)
    """Endpoint that refuses requests → why."""
    awake: set[str] = field(default_factory=set)
    """Ids of lazy deployments that somebody has asked for."""
    trials: dict[str, Trial] = field(default_factory=dict)
    """By endpoint: what is judged."""
    logs: dict[str, RequestLogRoute] = field(default_factory=dict)
    """Endpoints whose answered requests are all written down."""
    slos: dict[str, Slo] = field(default_factory=dict)
    """By endpoint."""
