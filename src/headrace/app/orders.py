"""Messages between the supervisor and the controller: what to start and stop, what happened. Values only."""

from __future__ import annotations

import msgspec

from headrace.app.events import Event
from headrace.core.models import LoadedModel
from headrace.core.replicas import ReplicaState
from headrace.replica.spec import ReplicaSpec


class StartWorker(msgspec.Struct, frozen=True, tag=True):
    """Start a worker process. ``environment`` is added to the supervisor's own."""

    worker: str
    replicas: tuple[ReplicaSpec, ...]
    digests: tuple[str, ...]
    load_keys: tuple[str, ...]
    deployments: tuple[str, ...]
    token: str
    environment: dict[str, str]
    replica_timeout_s: float
    memory: int | None = None
    python: str | None = None
    """Interpreter of the environment that it runs in; None: the supervisor's own."""
    yields: bool = False
    """See ``DeploymentSpec.yields``."""


class StopWorker(msgspec.Struct, frozen=True, tag=True):
    """Let the worker end its batch and exit; kill it after ``grace_s``."""

    worker: str
    grace_s: float


class Notify(msgspec.Struct, frozen=True, tag=True):
    """Pass an event on to whoever watches the supervisor (the CLI's screen)."""

    event: Event


Order = StartWorker | StopWorker | Notify


class ReplicaReport(msgspec.Struct, frozen=True, tag=True):
    """A replica in a worker changed its state."""

    worker: str
    index: int
    state: ReplicaState
    model: LoadedModel | None = None
    timings: tuple[tuple[int, float], ...] = ()
    reason: str = ""
    trace: str = ""


class WorkerExited(msgspec.Struct, frozen=True, tag=True):
    """``reason``: exit, signal, out_of_memory or hang; ``detail`` is for people; ``completed`` batches."""

    worker: str
    reason: str
    detail: str
    completed: int
    log_tail: str


class LiveWorker(msgspec.Struct, frozen=True, tag=True):
    """A worker that runs already; sent for each when a controller (re)starts. ``reports``: last state per replica."""

    order: StartWorker
    address: str
    status_path: str
    reports: tuple[ReplicaReport, ...]


class Adopted(msgspec.Struct, frozen=True, tag=True):
    """All live workers have been told; the controller may plan. ``announced``: Serving was already shown."""

    announced: bool
    gateways: int


class WorkerLog(msgspec.Struct, frozen=True, tag=True):
    """Answer to nothing: the last lines of a worker's output, sent when they change (rate-limited)."""

    worker: str
    tail: str


Report = ReplicaReport | WorkerExited | LiveWorker | Adopted | WorkerLog
