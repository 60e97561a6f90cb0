"""Follows the controller: takes route tables and keys, connects to replicas, sends load reports.

When the controller is gone the last table stays in force and this keeps trying to reach the next controller.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from headrace.core import errors
from headrace.core.calls import Batch
from headrace.core.envelope import Splitter, wrap
from headrace.core.keys import KeySet
from headrace.core.load import DeploymentLoad, LoadReport
from headrace.core.replicas import ReplicaState
from headrace.core.routes import ReplicaRoute, RouteTable
from headrace.gateway.services import Services
from headrace.pipeline.deployment import Deployment
from headrace.replica import messages
from headrace.replica.handle import ReplicaHandle

_REPORT_EVERY_S = 0.5
_CONNECT_TIMEOUT_S = 5.0
_RECONNECT_S = (0.02, 0.1, 0.25, 0.5)

_decode = msgspec.msgpack.Decoder(RouteTable | KeySet).decode
_encode = msgspec.msgpack.Encoder().encode


class RouteFollower:
    """Keeps the router in step with the controller. ``run`` until cancelled."""

    def __init__(
        self, services: Services, index: int, control: Path, *, followed: Callable[[RouteTable], None] | None = None
    ) -> None:
        """``followed`` is called for every table right after the router has taken it over."""
        self._services = services
        self._index = index
        self._control = control
        self._links: dict[str, ReplicaLink] = {}
        self._report_now = asyncio.Event()
        self._has_table = asyncio.Event()
        self._began = time.time()
        services.report_now = self._report_now.set
        self._followed = followed

    async def run(self) -> None:
        """Connect to the controller, again and again."""
        attempt = 0
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(self._control))
            except OSError:
                await asyncio.sleep(_RECONNECT_S[min(attempt, len(_RECONNECT_S) - 1)])
                attempt += 1
                continue
            attempt = 0
            reports = asyncio.create_task(self._report_forever(writer))
            try:
                await self._read_tables(reader)
            except (errors.HeadraceError, msgspec.MsgspecError) as error:
                self._services.log.error("a route table cannot be read", action="bad_route_table", exception=error)
            finally:
                reports.cancel()
                writer.close()
            await asyncio.sleep(_RECONNECT_S[0])

    async def first_table(self) -> None:
        """Return when a route table is followed, and with it the keys, which come before."""
        await self._has_table.wait()

    async def _read_tables(self, reader: asyncio.StreamReader) -> None:
        splitter = Splitter()
        while True:
            try:
                data = await reader.read(1 << 20)
            except OSError:
                return
            if not data:
                return
            for message in splitter.feed(data):
                self._apply(_decode(message))

    def _apply(self, table: RouteTable | KeySet) -> None:
        if isinstance(table, KeySet):
            self._services.guard.follow(table)
        elif self._services.router.apply(table):
            if self._followed is not None:
                self._followed(table)
            self._follow_replicas(table)
            self._report_now.set()
            self._has_table.set()

    def _follow_replicas(self, table: RouteTable) -> None:
        wanted: dict[str, tuple[Deployment, ReplicaRoute]] = {}
        router = self._services.router
        for endpoint in table.endpoints:
            for route in endpoint.deployments:
                deployment = router.endpoints[endpoint.name].deployments[route.version]
                if route.warmup and not deployment.latency.samples:
                    deployment.learn(route.warmup)
                for replica in route.replicas:
                    if replica.state in (ReplicaState.READY, ReplicaState.DRAINING):
                        wanted[replica.id] = deployment, replica
        gone = {id(d) for d in router.leaving}
        for replica_id in [r for r in self._links if r not in wanted]:
            self._links.pop(replica_id).leave(gone)
        for replica_id, (deployment, replica) in wanted.items():
            link = self._links.get(replica_id)
            if link is None:
                if replica.state is ReplicaState.READY:
                    self._links[replica_id] = ReplicaLink(deployment, replica, self._report_now.set)
            else:
                link.set_draining(replica.state is ReplicaState.DRAINING)

    # --- load reports ---

    async def _report_forever(self, writer: asyncio.StreamWriter) -> None:
        while True:
            self._report_now.clear()
            writer.write(wrap(_encode(self._report())))
            try:
                await writer.drain()
                async with asyncio.timeout(_REPORT_EVERY_S):
                    await self._report_now.wait()
            except TimeoutError:
                continue
            except OSError:
                return

    def _report(self) -> LoadReport:
        services = self._services
        unreachable = tuple(link.id for link in self._links.values() if not link.connected)
        return LoadReport(
            gateway=self._index,
            route_version=services.router.table_version,
            draining=services.draining,
            deployments=tuple(_load(d) for d in services.router.deployments()),
            unreachable=unreachable,
            began=self._began,
            trials=tuple(services.router.trials()),
            asked_for=tuple(d.route.id for d in services.router.deployments() if d.asked_for),
        )

    def close(self) -> None:
        """Drop all replica connections."""
        for link in self._links.values():
            link.close()


def _load(deployment: Deployment) -> DeploymentLoad:
    latency = deployment.latency
    return DeploymentLoad(
        deployment=deployment.route.id,
        queued_requests=deployment.queue.count,
        queued_rows=deployment.queue.rows,
        in_flight=sum(r.outstanding for r in deployment.replicas) + deployment.queue.count,
        requests=deployment.finished_requests,
        refused=deployment.refused_requests,
        latency_a_ms=latency.a * 1e3 if latency.known else None,
        latency_b_ms=latency.b * 1e3 if latency.known else None,
        batch_limit=deployment.decision.limit,
        explanation=deployment.decision.explanation,
        shadow=deployment.shadow_load,
    )


class ReplicaLink:
    """The connection to one replica: made in the background, given to the deployment when it stands."""

    def __init__(self, deployment: Deployment, route: ReplicaRoute, changed: Callable[[], None]) -> None:
        self.id = route.id
        self._deployment = deployment
        self._route = route
        self._handle = ReplicaHandle(route, self)
        self._changed = changed
        self._draining = False
        self._left = False
        self._task = asyncio.create_task(self._connect())

    @property
    def connected(self) -> bool:
        return self._handle.alive

    async def _connect(self) -> None:
        pause = 0.02
        while True:
            try:
                await self._handle.connect(_CONNECT_TIMEOUT_S)
            except errors.NotReady:
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)
                continue
            self._handle.draining = self._draining
            self._deployment.add_replica(self._handle)
            self._changed()
            return

    def set_draining(self, draining: bool) -> None:
        self._draining = self._handle.draining = draining

    def leave(self, leaving: set[int]) -> None:
        """The replica left the route table. With its whole deployment: it finishes what it holds, and the deployment
        closes it. Alone: it is dead (scaling down drains first), whether or not its connection shows it."""
        self._left = True
        self._task.cancel()
        if not self._handle.alive:
            self._handle.close()
        elif id(self._deployment) not in leaving:
            self._handle.lost()

    def close(self) -> None:
        self._left = True
        self._task.cancel()
        self._handle.close()

    # --- Listener of the handle ---

    def finished(self, handle: ReplicaHandle, batch: Batch, head: messages.ResultHead) -> None:
        self._deployment.finished(handle, batch, head.busy / 1e9, head.batch_rows or batch.rows)

    def died(self, handle: ReplicaHandle, computing: list[Batch], waiting: list[Batch]) -> None:
        self._deployment.died(handle, computing, waiting)
        if self._left:
            return
        # The route table will tell when the worker is dead; until then it may only have been the connection.
        self._handle = ReplicaHandle(self._route, self)
        self._task = asyncio.create_task(self._connect())
        self._changed()

    def stream_ended(self, handle: ReplicaHandle) -> None:
        self._deployment.stream_ended()
