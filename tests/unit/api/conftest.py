"""A controller that stands still, and a client of the application in front of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.api.app import create_app
from headrace.app.registry.access import OwnedRegistry
from headrace.app.state.registry_state import Location, RegistryState, open_registry
from headrace.core import errors
from headrace.core.endpoints import AdmissionSettings, BatchingSettings
from headrace.core.load import DeploymentLoad, LoadReport
from headrace.core.models import Signature, Slots, TensorSpec
from headrace.core.replicas import ReplicaState
from headrace.core.routes import DeploymentRoute, EndpointRoute, ReplicaRoute, RouteTable
from headrace.core.shadows import Disagreement, Shadow, ShadowLoad
from headrace.core.slo import Slo
from headrace.core.tensors import DType
from headrace.core.traffic import Rule, Source, SourceKind, TrafficPolicy

Get = Callable[..., httpx.Response]

SHADOW = ShadowLoad(3, 1, 2, 5, 0.5, 0.25, 8.0, 4.0, (Disagreement("r-1", "y", "[1]: 1.0", "[1]: 1.5"),))
POLICY = TrafficPolicy(
    {"champion": 3.0, "challenger": 1.0, "other": 2.0},
    Source(SourceKind.HEADER, "x-user-id"),
    (Rule(Source(SourceKind.BODY, "plan"), ("gold",), "challenger"),),
    ("X-Headrace-Deployment",),
    shadows=(Shadow("dark", 10.0),),
)


def deployment(
    id: str, *states: ReplicaState, loaded: bool = True, reason: str = "", name: str = ""
) -> DeploymentRoute:
    signature = Signature(
        inputs=(TensorSpec("amount", DType.FP32, (-1, 30)),), outputs=(TensorSpec("label", DType.INT64, (-1,)),)
    )
    return DeploymentRoute(
        id=id,
        version=id.partition("@")[2],
        platform="onnx_onnxv1",
        signature=signature if loaded else None,
        slots=Slots(),
        batching=BatchingSettings(max_batch_size=32),
        admission=AdmissionSettings(),
        idempotent=True,
        timeout_s=60,
        replica_timeout_s=60,
        stream_stall_s=30,
        replicas=tuple(
            ReplicaRoute(f"{id}#{n}", f"unix:/run/{n}", 0, state, token="top-secret", status_path="/secret/page")
            for n, state in enumerate(states, 1)
        ),
        desired_replicas=2,
        reason=reason,
        name=name,
    )


def load(deployment: str, scale: int, shadow: ShadowLoad | None = None) -> DeploymentLoad:
    return DeploymentLoad(
        deployment=deployment,
        queued_requests=1 * scale,
        queued_rows=2 * scale,
        in_flight=3 * scale,
        requests=4 * scale,
        refused=5 * scale,
        latency_a_ms=0.5,
        latency_b_ms=0.01,
        batch_limit=32,
        explanation="batching pays: a row costs 0.01 ms, a call 0.5 ms",
        shadow=shadow,
    )


@dataclass
class FakeController:
    """Implements ControllerView; tests change its attributes."""

    is_ready: bool = True
    table: RouteTable = field(
        default_factory=lambda: RouteTable(
            version=7,
            epoch=1,
            endpoints=(
                EndpointRoute(
                    "fraud",
                    (
                        deployment("fraud@1", ReplicaState.READY, ReplicaState.FAILED, name="champion"),
                        deployment("fraud@2", ReplicaState.READY, name="challenger"),
                    ),
                    {"fraud@1": 3.0, "fraud@2": 1.0},
                    POLICY,
                    slo=Slo(p99_ms=50.0),
                ),
                EndpointRoute(
                    "org/churn",
                    (deployment("org/churn@1", ReplicaState.LOADING, loaded=False, reason="loading"),),
                    {"org/churn@1": 1.0},
                ),
            ),
        )
    )
    reports: list[LoadReport] = field(
        default_factory=lambda: [
            LoadReport(gateway=0, route_version=7, draining=False, deployments=(load("fraud@1", 1),)),
            LoadReport(1, 6, False, (load("fraud@1", 10), load("fraud@2", 1, SHADOW)), unreachable=("fraud@1#2",)),
        ]
    )
    happened: list[dict[str, Any]] = field(
        default_factory=lambda: [
            {"type": "ReplicaRestarted", "at": 1.7e9, "replica": "fraud@1#2", "reason": "segfault"},
            {"type": "Serving", "seconds": 1.25},
        ]
    )

    def routes(self) -> RouteTable:
        return self.table

    def loads(self) -> list[LoadReport]:
        return self.reports

    def events(self, limit: int) -> list[dict[str, Any]]:
        return self.happened[:limit]

    def log_tail(self, replica: str) -> str:
        if replica != "org/churn@1#1":
            raise errors.UnknownModel(f"there is no replica {replica!r}")
        return "loading…\ndone <b>\n"

    def ready(self) -> bool:
        return self.is_ready


@pytest.fixture
def controller() -> FakeController:
    return FakeController()


@pytest.fixture
def get(controller: FakeController, tmp_path: Path) -> Get:
    """``get(path, method="GET", host="localhost:9000", **headers)`` on an application over that controller."""
    app = create_app(controller, metrics_directory=tmp_path, allowed_hosts=["models.example"])

    def call(path: str, method: str = "GET", host: str = "localhost:9000", **headers: str) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost:9000") as client:
                return await client.request(method, path, headers={"Host": host, **headers})

        return asyncio.run(send())

    return call


class RegistryApi:
    """The application over a real registry, asked in process. ``state`` is what it keeps."""

    def __init__(self, app: Any, state: RegistryState) -> None:
        self.app = app
        self.state = state

    def __call__(self, method: str, path: str, **more: Any) -> httpx.Response:
        """``path`` below /api/v1."""

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost:9000") as client:
                return await client.request(method, f"/api/v1{path}", **more)

        return asyncio.run(send())

    def store(self, content: bytes) -> str:
        """Store a file; its digest."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        stored = self("PUT", f"/artifacts/{digest}", content=content)
        assert stored.status_code in (200, 201), stored.text
        return digest

    def register(self, model: str = "fraud", content: bytes = b"headrace-echo 1\n", **more: Any) -> httpx.Response:
        """Store a model and register it; an echo model needs no framework to be inspected."""
        headers = more.pop("headers", None)
        file = {"path": "model/m.echo", "digest": self.store(content), "size": len(content)}
        body = {"path": "model/m.echo", "files": [file], **more}
        return self("POST", f"/models/{model}/versions", json=body, headers=headers)

    def point(self, model: str, alias: str, version: str, **headers: str) -> httpx.Response:
        """Move an alias; without a condition to wherever it is."""
        path = f"/models/{model}/aliases/{alias}"
        there = self("GET", path)
        seen = {"If-Match": there.headers["etag"]} if there.status_code == 200 else {"If-None-Match": "*"}
        return self("PUT", path, json={"version": version}, headers=headers or seen)


@contextmanager
def opened(location: Location, controller: FakeController, metrics: Path) -> Iterator[RegistryApi]:
    with open_registry(location) as state:
        app = create_app(controller, metrics_directory=metrics, registry=OwnedRegistry(state))
        yield RegistryApi(app, state)


@pytest.fixture
def api(tmp_path: Path, controller: FakeController) -> Iterator[RegistryApi]:
    """A registry in SQLite and a folder."""
    with opened(Location(tmp_path / "state", None, str(tmp_path / "artifacts")), controller, tmp_path) as found:
        yield found


@pytest.fixture
def any_api(url: str, tmp_path: Path, controller: FakeController) -> Iterator[RegistryApi]:
    """A registry in SQLite, and one in PostgreSQL."""
    with opened(Location(tmp_path / "state", url, str(tmp_path / "artifacts")), controller, tmp_path) as found:
        yield found
