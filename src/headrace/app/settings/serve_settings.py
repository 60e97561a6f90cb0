"""All settings of ``headrace serve``, composed from the sections that the folders define. Parsed once.

``app/settings/keys.py`` says how each field is spelled in ``headrace.yaml``, the environment and on the command line,
and holds its help text; ``app/settings/file.py`` puts the layers together.
"""

from __future__ import annotations

import msgspec

from headrace.app.state.location import Location
from headrace.control.rollout_plan import RolloutPlan
from headrace.core.endpoints import AdmissionSettings, BatchingSettings, Isolation, ResourceSettings
from headrace.core.experiments import DEFAULT_RETENTION_REQUESTS, DEFAULT_RETENTION_S
from headrace.core.slo import Slo
from headrace.core.traffic import TrafficPolicy
from headrace.gateway.settings import GatewaySettings
from headrace.telemetry.settings import LogSettings


class ModelSource(msgspec.Struct, frozen=True):
    """One thing to serve, as typed: ``churn=churn.ubj``, ``img/``, ``pricer.py:Pricer``."""

    path: str
    name: str | None = None
    """Endpoint name; None: from the file name."""
    attribute: str | None = None
    """Class in a Python file; None: the only ``headrace.Model`` in it."""
    registered: str | None = None
    """The version that ``path`` is a copy of, as ``fraud@7``; None: not from the registry."""
    requirements: str | None = None
    """The ``requirements.txt`` of that version."""
    settings: DeploymentSettings | None = None
    """Settings from the file's ``endpoints:`` section; None: the global ones."""
    deployment: str | None = None
    """Its name under the endpoint; None: the endpoint names none."""
    version: str | None = None
    """As the file says; of a folder with several versions the one to take. None: see ``default_version``."""
    default_version: str = "1"
    """Of a model that brings no version."""
    where: str = ""
    """File, line and column that name it; empty: it was typed."""


class DeploymentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of a deployment; the top level of ``headrace.yaml`` gives the defaults for every endpoint."""

    replicas: int = 1
    """Replicas: loaded copies of the model."""
    threads: int | None = None
    """Framework threads in one replica; None: its share of the cores."""
    isolation: Isolation = Isolation.PROCESS
    resources: ResourceSettings = ResourceSettings()
    batching: BatchingSettings = BatchingSettings()
    admission: AdmissionSettings = AdmissionSettings()
    idempotent: bool = True
    """The same input may be computed twice without harm; False: nothing is ever re-run."""
    timeout_s: float = 60.0
    """Deadline of a request that brings none."""
    replica_timeout_s: float = 60.0
    """A batch older than this means the replica hangs; it is killed."""
    stream_stall_s: float = 30.0
    """A stream whose reader takes nothing for this long is cancelled."""
    lazy: bool = False
    """Start on the first request."""
    follow: str | None = None
    """``rollout:champion``: when that alias of its model moves, a rollout begins. As it is read: ``rollout``."""
    warmup: bool = True
    """Run inferences before a replica counts as ready."""
    options: dict[str, str] = {}
    """Options of the runtime, by name."""
    requirements: str | None = None
    """``requirements.txt`` of the environment of versions that bring none; None: they run in the server's."""


class EndpointSettings(msgspec.Struct, frozen=True):
    """What a file says of an endpoint beside its deployments."""

    policy: TrafficPolicy = TrafficPolicy()
    rollout: RolloutPlan = RolloutPlan()
    """How its rollouts go when nothing else is said."""
    slo: Slo = Slo()


class ServeSettings(msgspec.Struct, frozen=True):
    models: tuple[ModelSource, ...]
    endpoints: dict[str, EndpointSettings] = {}
    """Of the endpoints that a file says something of."""
    gateway: GatewaySettings = GatewaySettings()
    deployment: DeploymentSettings = DeploymentSettings()
    logs: LogSettings = LogSettings()
    management_host: str = "127.0.0.1"
    """Address of the management port."""
    management_port: int = 9000
    """Management API and /metrics. 0 takes a free one."""
    trust: tuple[str, ...] = ()
    """``sha256:…`` digests or paths whose artifacts may run code."""
    watch: bool = False
    """Load a changed ``.py`` or a new version folder beside the old one, and switch when it is ready."""
    explain_batching: bool = False
    """Report each change of a deployment's batch limit with the reason."""
    file: str | None = None
    """Absolute path of the ``headrace.yaml`` that names the models; None: they were typed."""
    location: Location | None = None
    """Where the registry is, and the state if it is kept."""
    owns_state: bool = False
    """What is served is kept in the state, and was restored from it."""
    environments_folder: str | None = None
    """Where environments of versions are kept; None: in the state directory."""
    source_builds: bool = False
    """Packages without a wheel are built, which runs their code."""
    experiment_retention_s: float = DEFAULT_RETENTION_S
    """How long answered requests of experiments are remembered, for outcomes that come late."""
    experiment_requests: int = DEFAULT_RETENTION_REQUESTS
    """How many of them, per endpoint."""
    runtime_dir: str | None = None
    """Sockets, logs and metric pages; None: a new folder under the temporary directory, removed at exit."""

    def endpoint(self, name: str) -> EndpointSettings:
        return self.endpoints.get(name, EndpointSettings())
