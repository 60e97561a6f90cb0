"""A gateway's application in the test's own process: real router, deployments, codecs and records; replicas that
compute in Python. Spoken to through httpx, or message by message where the transport matters."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from headrace.core.requests import RequestRecord
from headrace.core.routes import DeploymentRoute, EndpointRoute, RouteTable
from headrace.core.tensors import DType, Tensor
from headrace.core.traffic import TrafficPolicy
from headrace.gateway.http import InferenceApp
from headrace.gateway.offload import Offload
from headrace.gateway.records import Records
from headrace.gateway.services import Services
from headrace.gateway.settings import GatewaySettings
from headrace.pipeline.deployment import Deployment, maker
from headrace.pipeline.router import Router
from headrace.protocols import grpc_frames
from headrace.telemetry import metrics
from headrace.telemetry.logging import Log
from headrace.telemetry.metrics import Refusal
from headrace.telemetry.pages import SeriesPage
from headrace.telemetry.recording import RequestRecorder
from headrace.telemetry.tracing import RequestIds
from tests.fakes import Compute, ComputingReplica, deployment_route


def doubled(arrays: list[Any]) -> list[Tensor]:
    return [Tensor("y", DType.FP32, arrays[0] * 2)]


class Gateway:
    """Must be made on a running loop. ``close`` ends the codec process."""

    def __init__(self, directory: Path, settings: GatewaySettings | None = None) -> None:
        self.seen: list[RequestRecord] = []
        self.refused: list[Refusal] = []
        self.logged: list[str] = []
        self._recorder = RequestRecorder(SeriesPage(directory, "gateway-0"))
        self.records = Records(self._recorder, [self._observe])

        self.services = Services(
            settings=settings or GatewaySettings(),
            router=Router(maker(asyncio.get_running_loop(), self.records), draw=lambda: 0.0),
            records=self.records,
            offload=Offload(),
            metrics_directory=directory,
            log=QuietLog(self.logged),
            ids=RequestIds("test-"),
        )
        self.app = InferenceApp(self.services)
        self._table = RouteTable(0, 1, ())

    def _observe(self, records: Sequence[RequestRecord]) -> None:
        self.seen += records

    def deploy(
        self,
        *routes: DeploymentRoute,
        endpoint: str = "m",
        traffic: dict[str, float] | None = None,
        policy: TrafficPolicy | None = None,
    ) -> list[Deployment]:
        """Route tables with these deployments of one more endpoint."""
        weights = {routes[0].id: 1.0} if traffic is None else traffic
        made = EndpointRoute(endpoint, routes, weights, policy or TrafficPolicy())
        others = tuple(e for e in self._table.endpoints if e.name != endpoint)
        self._table = RouteTable(self._table.version + 1, 1, (*others, made))
        self.services.router.apply(self._table)
        return [self.services.router.endpoints[endpoint].deployments[r.version] for r in routes]

    def serve(
        self,
        compute: Compute = doubled,
        *,
        endpoint: str = "m",
        chunks: Callable[[list[Any]], Any] | None = None,
        **route: Any,
    ) -> ComputingReplica:
        """An endpoint with one version and one replica."""
        (deployment,) = self.deploy(deployment_route(**route), endpoint=endpoint)
        replica = ComputingReplica(deployment, compute, chunks=chunks)
        deployment.add_replica(replica)
        return replica

    def outcomes(self) -> list[tuple[str, int, str]]:
        """(protocol, outcome, error code) of every request recorded so far."""
        self.records.flush()
        return [(r.protocol, r.outcome, r.error) for r in self.seen]

    def fallbacks(self) -> dict[tuple[str, str, str], float]:
        """(endpoint, version asked, what answered) → how often."""
        cells = self._recorder._cells
        return {
            (key[1], key[2], kind): cells[key][at]
            for key in cells
            if key[0] == metrics.FALLBACKS.name
            for kind, at in metrics.FALLBACKS.position.items()
            if cells[key][at]
        }

    def client(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=True)  # type: ignore[arg-type]
        return httpx.AsyncClient(transport=transport, base_url="http://test")

    def assert_nothing_held(self) -> None:
        """After everything has ended: no bytes, no streams, no calls."""
        assert self.services.held_bytes == 0
        assert all(count == 0 for count in self.services.open_streams.values())
        assert all(d.idle for d in self.services.router.deployments())

    def close(self) -> None:
        self.services.offload.close()


def run(
    tmp_path: Path, test: Callable[[Gateway], Awaitable[None]], settings: GatewaySettings | None = None, logged: int = 0
) -> None:
    """Run a test with a gateway, which holds nothing afterwards and has logged so many lines."""

    async def scenario() -> None:
        gateway = Gateway(tmp_path, settings)
        try:
            await asyncio.wait_for(test(gateway), 30.0)
            for _ in range(20):
                await asyncio.sleep(0)
            gateway.assert_nothing_held()
            assert len(gateway.logged) == logged, gateway.logged
        finally:
            gateway.close()

    asyncio.run(scenario())


class QuietLog(Log):
    """Keeps what would be logged."""

    def __init__(self, kept: list[str]) -> None:
        super().__init__("test")
        self._kept = kept

    def error(self, message: str, *, action: str, exception: BaseException | None = None, **fields: Any) -> None:
        self._kept.append(f"{action}: {message}: {exception!r}")

    def warning(self, message: str, *, action: str, exception: BaseException | None = None, **fields: Any) -> None:
        self._kept.append(f"{action}: {message}: {exception!r}")


class Exchange:
    """One ASGI request, driven by hand: feed body messages, look at what was sent."""

    def __init__(
        self,
        gateway: Gateway,
        path: str,
        *,
        method: str = "POST",
        headers: dict[str, str] | None = None,
        scope_type: str = "http",
    ) -> None:
        self.sent: list[dict[str, Any]] = []
        self.arrived: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.send_blocked = asyncio.Event()
        self.send_blocked.set()
        self.send_error: Exception | None = None
        self.fail_from = 0
        self.something = asyncio.Event()
        self.read = 0
        raw = [(k.lower().encode(), v.encode("latin-1")) for k, v in (headers or {}).items()]
        self.scope = {
            "type": scope_type,
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "headers": raw,
            "http_version": "2",
        }
        self.task = asyncio.create_task(gateway.app(self.scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        self.read += 1
        return await self.arrived.get()

    async def _send(self, message: Any) -> None:
        await self.send_blocked.wait()
        if self.send_error is not None and len(self.sent) >= self.fail_from:
            raise self.send_error
        starts = [m for m in self.sent if m["type"] == "http.response.start"]
        assert bool(starts) != (message["type"] == "http.response.start"), "a response starts once, before its body"
        self.sent.append(dict(message))
        self.something.set()

    def body(self, data: bytes, *, more: bool = False) -> Exchange:
        self.arrived.put_nowait({"type": "http.request", "body": data, "more_body": more})
        return self

    def leave(self) -> Exchange:
        """The client disconnects."""
        self.arrived.put_nowait({"type": "http.disconnect"})
        return self

    async def message(self, count: int = 1) -> None:
        """Until so many messages were sent."""
        async with asyncio.timeout(10.0):
            while len(self.sent) < count:
                self.something.clear()
                await self.something.wait()

    async def end(self) -> Exchange:
        await asyncio.wait_for(self.task, 10.0)
        return self

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for message in self.sent:
            found.update({k.decode(): v.decode() for k, v in message.get("headers", ())})
        return found

    @property
    def content(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.sent)

    def grpc(self) -> tuple[int, list[bytes]]:
        """Status code and messages of a gRPC answer."""
        reader = grpc_frames.FrameReader(1 << 30, self.headers.get("grpc-encoding", ""))
        messages = reader.feed(self.content)
        reader.finish()
        return int(self.headers["grpc-status"]), messages
