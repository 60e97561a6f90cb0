"""What the supervisor tells the one who started it (the CLI, a notebook), as values."""

from __future__ import annotations

import msgspec

from headrace.core.models import Artifact
from headrace.core.routes import EndpointRoute


class ModelInspected(msgspec.Struct, frozen=True, tag=True):
    endpoint: str
    version: str
    artifact: Artifact


class ModelFailed(msgspec.Struct, frozen=True, tag=True):
    """A model could not be inspected or loaded; the others go on."""

    endpoint: str
    version: str
    reason: str
    log_tail: str = ""


class EnvironmentBuilding(msgspec.Struct, frozen=True, tag=True):
    """Packages for versions that run in an environment of their own are being fetched and installed."""

    environment: str
    deployments: tuple[str, ...]
    requirements: tuple[str, ...]


class EnvironmentProgress(msgspec.Struct, frozen=True, tag=True):
    """How a build goes, as the deployments' reason says it too."""

    environment: str
    deployments: tuple[str, ...]
    progress: str


class EnvironmentDone(msgspec.Struct, frozen=True, tag=True):
    """``outcome``: built; reused, because it was there; failed, and the reason follows for each deployment."""

    environment: str
    deployments: tuple[str, ...]
    outcome: str
    seconds: float


class Serving(msgspec.Struct, frozen=True, tag=True):
    """Everything that could start has started; sent once. ``endpoints`` holds failed ones too (not ready)."""

    url: str
    management_url: str
    endpoints: tuple[EndpointRoute, ...]
    gateways: int
    seconds: float
    """Since the command began."""
    asks_for_keys: bool = False


class ReplicaRestarted(msgspec.Struct, frozen=True, tag=True):
    replica: str
    reason: str


class VersionLoaded(msgspec.Struct, frozen=True, tag=True):
    """--watch: a new version took over."""

    endpoint: str
    version: str
    replaced: str


class EndpointChanged(msgspec.Struct, frozen=True, tag=True):
    """What an endpoint shall be was changed: ``what`` as in ``headrace events``."""

    endpoint: str
    what: str
    who: str
    why: str = ""


class RolloutMoved(msgspec.Struct, frozen=True, tag=True):
    """A rollout is in another phase or step. ``share``: of the traffic, that the new version has, 0..1."""

    endpoint: str
    rollout: str
    phase: str
    step: int
    share: float
    reason: str


class TrafficShifted(msgspec.Struct, frozen=True, tag=True):
    """Deployments that are not ready take no traffic while others can, or all take their own again: ``waiting`` is
    empty then. ``shares``: deployment name → share of the endpoint's requests, in all 1."""

    endpoint: str
    waiting: tuple[str, ...]
    shares: dict[str, float]


class BatchingExplained(msgspec.Struct, frozen=True, tag=True):
    """--explain-batching: the batch limit of a deployment changed, with the reason."""

    deployment: str
    explanation: str


class Draining(msgspec.Struct, frozen=True, tag=True):
    seconds: float


class RequestsCut(msgspec.Struct, frozen=True, tag=True):
    """The time to drain was over: so many accepted requests were answered with an error (503, UNAVAILABLE)."""

    requests: int


class Stopped(msgspec.Struct, frozen=True, tag=True):
    exit_code: int


Event = (
    ModelInspected
    | ModelFailed
    | EnvironmentBuilding
    | EnvironmentProgress
    | EnvironmentDone
    | Serving
    | ReplicaRestarted
    | VersionLoaded
    | TrafficShifted
    | EndpointChanged
    | RolloutMoved
    | BatchingExplained
    | Draining
    | RequestsCut
    | Stopped
)
