"""What an operator asks for: deployments and their settings, as values that cross processes."""

from __future__ import annotations

import hashlib
from enum import StrEnum

import msgspec

from headrace.core.environments import EnvironmentSpec
from headrace.core.models import Artifact
from headrace.core.padding import PaddingRules


class BatchMode(StrEnum):
    AUTO = "auto"
    """Batch while the learned latency model says that it pays."""
    ALWAYS = "always"
    """Batch up to the limits whatever was learned."""
    EXACT = "exact"
    """Every request is computed alone: results do not depend on neighbours, bit for bit."""
    OFF = "off"


class Isolation(StrEnum):
    PROCESS = "process"
    """One worker process per replica."""
    PACKED = "packed"
    """Small replicas of the same runtime and trust class share a worker process."""


class BatchingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mode: BatchMode = BatchMode.AUTO
    max_batch_size: int = 64
    """Rows in one call of the model."""
    max_batch_cost: float | None = None
    """Upper bound on the summed cost of a batch, in the unit of `cost`; None: rows only."""
    cost: str = "rows"
    """Unit of cost: `rows`, `elements` (values of all inputs), or `bytes`."""
    max_queue_delay_ms: float = 0.0
    """Wait up to this long for a fuller batch even when a replica is idle. 0: never wait."""
    pad: dict[str, str] = {}
    """Input → value that fills it up to the longest of its batch; empty: only equal shapes share a batch."""
    buckets: tuple[int, ...] = ()
    """Lengths up to which requests share a batch; empty: powers of two."""
    dims: dict[str, str] = {}
    """Input or output → names of its dimensions after the rows, by comma."""

    @property
    def padding(self) -> PaddingRules:
        dims = {name: tuple(dim.strip() for dim in names.split(",")) for name, names in self.dims.items()}
        return PaddingRules({**self.pad}, self.buckets, dims)


class AdmissionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    max_queue_rows: int = 20_000
    """Rows that may wait per deployment, over all gateways."""
    max_queue_bytes: int = 512 << 20
    """Bytes that may wait per deployment, over all gateways."""
    max_queue_time_s: float = 1.0
    """Refuse when the predicted wait passes this, once at least `min_queue_rows` wait."""
    min_queue_rows: int = 128
    """This many rows may wait per replica whatever the predicted wait (deadlines still hold)."""


class ResourceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    cpu: float | None = None
    """CPU cores per replica; None: the machine's (or cgroup's) share."""
    memory: int | None = None
    """Bytes a replica may use; passing it ends the replica with an out-of-memory reason. None: no limit."""
    gpu: int = 0


def deployment_id(endpoint: str, version: str) -> str:
    """The name of a version under its endpoint, unique on a server."""
    return f"{endpoint}@{version}"


def endpoint_and_version(deployment: str) -> tuple[str, str]:
    """Both parts of a deployment's id; of an empty one, two empty ones."""
    endpoint, _, version = deployment.rpartition("@")
    return endpoint, version


class DeploymentSpec(msgspec.Struct, frozen=True):
    """One version served under an endpoint."""

    endpoint: str
    version: str
    artifact: Artifact
    replicas: int = 1
    threads: int | None = None
    """Threads of the framework inside one replica; None: cpu share, rounded."""
    isolation: Isolation = Isolation.PROCESS
    resources: ResourceSettings = ResourceSettings()
    batching: BatchingSettings = BatchingSettings()
    admission: AdmissionSettings = AdmissionSettings()
    idempotent: bool = True
    """The same input may be computed twice without harm; False: nothing is ever re-run."""
    timeout_s: float = 60.0
    """Default deadline of a request."""
    replica_timeout_s: float = 60.0
    """A batch older than this means the replica hangs; it is killed."""
    stream_stall_s: float = 30.0
    """A stream whose reader takes nothing for this long is cancelled."""
    warmup: bool = True
    platform_options: dict[str, str] = {}
    lazy: bool = False
    """It starts on its first request."""
    restarts: int = 0
    """How often somebody asked for fresh replicas."""
    environment: EnvironmentSpec | None = None
    """Its replicas run in there; None: in the server's own."""
    yields: bool = False
    """Its replicas compute only when nobody else wants a processor."""
    vouched: str = ""
    """Digest that somebody trusted so that it may run code; empty: it needs none, or the registry knows who did."""

    @property
    def id(self) -> str:
        return deployment_id(self.endpoint, self.version)

    @property
    def load_key(self) -> str:
        """Tells replicas apart that were loaded otherwise than this asks for; gateways follow all other settings."""
        loaded = (
            self.artifact.digest,
            self.threads,
            self.isolation,
            self.resources,
            self.batching.max_batch_size,
            self.replica_timeout_s,
            self.platform_options,
            self.environment,
            self.restarts,
            self.yields,
            *((self.batching.padding,) if self.batching.padding != PaddingRules() else ()),
        )
        return hashlib.sha256(msgspec.json.encode(loaded, order="sorted")).hexdigest()[:16]
