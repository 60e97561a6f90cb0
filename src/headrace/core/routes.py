"""RouteTable: the versioned snapshot that the controller publishes and every gateway follows."""

from __future__ import annotations

import msgspec

from headrace.core.endpoints import AdmissionSettings, BatchingSettings
from headrace.core.models import Signature, Slots
from headrace.core.replicas import ReplicaState
from headrace.core.slo import Slo
from headrace.core.traffic import TrafficPolicy
from headrace.core.trials import Trial


class ReplicaRoute(msgspec.Struct, frozen=True):
    """One replica and where its worker listens."""

    id: str
    """Unique over the life of the system, e.g. ``fraud@1#3``; a restarted replica has a new id."""
    address: str
    """``unix:/path`` or ``tcp:host:port``."""
    index: int
    """Number of the replica inside its worker (0 unless packed)."""
    state: ReplicaState
    token: str
    """Proves to the worker that the peer got this route table."""
    status_path: str | None = None
    """File of the worker's status page (``replica/status_page.py``) when it is on this machine."""


class DeploymentRoute(msgspec.Struct, frozen=True):
    """A deployment as gateways need it. ``signature`` is None until a replica has loaded."""

    id: str
    version: str
    platform: str
    signature: Signature | None
    slots: Slots
    batching: BatchingSettings
    admission: AdmissionSettings
    idempotent: bool
    timeout_s: float
    replica_timeout_s: float
    stream_stall_s: float
    replicas: tuple[ReplicaRoute, ...]
    desired_replicas: int = 1
    reason: str = ""
    """Why it is not ready, for people."""
    failed: bool = False
    """It cannot be served and nothing is being tried; ``reason`` says why."""
    warmup: tuple[tuple[int, float], ...] = ()
    """Warm-up timings (rows, seconds) that seed the latency model."""
    lazy: bool = False
    """It starts on its first request: those that come until it has loaded wait for it."""
    dormant: bool = False
    """No request has come yet."""
    name: str = ""
    """Of the deployment under its endpoint, ``champion``; empty for versions that are only addressed by number."""

    @property
    def ready(self) -> bool:
        return any(r.state is ReplicaState.READY for r in self.replicas)


class RequestLogRoute(msgspec.Struct, frozen=True):
    """Every answered request of an endpoint is to be written down (``core/request_log.py``)."""

    experiment: str
    """Id of the experiment that needs it."""
    directory: str
    """Where its segments go, on this machine."""


class EndpointRoute(msgspec.Struct, frozen=True):
    """An endpoint and its deployments. ``traffic`` maps deployment id to the weight that it has now, while others
    may be down; absent means 0. ``policy`` is what was asked for."""

    name: str
    deployments: tuple[DeploymentRoute, ...]
    traffic: dict[str, float]
    policy: TrafficPolicy = TrafficPolicy()
    paused: str = ""
    """Why it refuses requests; empty: it does not."""
    trial: Trial | None = None
    """A rollout is judged: gateways count both versions."""
    log: RequestLogRoute | None = None
    """None: its requests are in no log."""
    slo: Slo = Slo()

    @property
    def waiting(self) -> tuple[str, ...]:
        """Deployments that should take traffic and do not, because they are not ready and others are."""
        taking = {d.name for d in self.deployments if d.name and self.traffic.get(d.id, 0.0) > 0}
        wanted = [name for name, weight in self.policy.weights.items() if weight > 0]
        return tuple(name for name in wanted if name not in taking) if taking else ()


class RouteTable(msgspec.Struct, frozen=True, tag=True):
    """The whole routing state. A gateway replaces its table only by one with a higher ``version`` of the
    same ``epoch`` or by any of a newer epoch (a restarted controller counts from 1 again)."""

    version: int
    epoch: int
    endpoints: tuple[EndpointRoute, ...]
    gateways: int = 1
    """How many gateways share the global limits."""
