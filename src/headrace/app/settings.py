"""All settings of ``headrace serve``, composed from the sections that the folders define. Parsed once."""

from __future__ import annotations

import msgspec

from headrace.core.endpoints import AdmissionSettings, BatchingSettings, Isolation, ResourceSettings
from headrace.gateway.settings import GatewaySettings
from headrace.telemetry.settings import LogSettings


class ModelSource(msgspec.Struct, frozen=True):
    """One thing to serve, as typed: ``churn=churn.ubj``, ``img/``, ``pricer.py:Pricer``."""

    path: str
    name: str | None = None
    """Endpoint name; None: from the file name."""
    attribute: str | None = None
    """Class in a Python file; None: the only ``headrace.Model`` in it."""
    settings: DeploymentSettings | None = None
    """Settings from the file's ``endpoints:`` section; None: the global ones."""


class DeploymentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of a deployment; the top level of ``headrace.yaml`` gives the defaults for every endpoint."""

    replicas: int = 1
    threads: int | None = None
    isolation: Isolation = Isolation.PROCESS
    resources: ResourceSettings = ResourceSettings()
    batching: BatchingSettings = BatchingSettings()
    admission: AdmissionSettings = AdmissionSettings()
    idempotent: bool = True
    timeout_s: float = 60.0
    replica_timeout_s: float = 60.0
    stream_stall_s: float = 30.0
    warmup: bool = True
    options: dict[str, str] = {}


class ServeSettings(msgspec.Struct, frozen=True):
    models: tuple[ModelSource, ...]
    gateway: GatewaySettings = GatewaySettings()
    deployment: DeploymentSettings = DeploymentSettings()
    logs: LogSettings = LogSettings()
    management_host: str = "127.0.0.1"
    management_port: int = 9000
    """Management API and /metrics. 0 takes a free one."""
    trust: tuple[str, ...] = ()
    """``sha256:…`` digests or paths whose artifacts may run code."""
    watch: bool = False
    explain_batching: bool = False
    runtime_dir: str | None = None
    """Sockets, logs and metric pages; None: a new folder under the temporary directory, removed at exit."""
