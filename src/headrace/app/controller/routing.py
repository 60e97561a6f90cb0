"""What gateways are told: the route table, and whether all of them go by it already."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from headrace.app.controller.gateway_link import GatewayServer
from headrace.control import publish
from headrace.control.observed import Desired, Observed
from headrace.core.endpoints import DeploymentSpec
from headrace.core.load import LoadReport
from headrace.core.replicas import ReplicaState
from headrace.core.routes import RouteTable
from headrace.telemetry.recording import ControlRecorder

_VISIBLE_S, _VISIBLE_LOOK_S = 2.0, 0.005


class Routing:
    """On the controller's event loop. ``gateways``: how many there shall be."""

    def __init__(
        self,
        desired: Desired,
        observed: Observed,
        changed: asyncio.Event,
        recorder: ControlRecorder,
        *,
        gateways: int,
        on_load: Callable[[LoadReport], None],
    ) -> None:
        self.gateways = GatewayServer(on_load)
        self.table = RouteTable(version=0, epoch=time.time_ns() // 1_000_000, endpoints=())
        self._desired = desired
        self._observed = observed
        self._changed = changed
        self._recorder = recorder
        self._count = gateways
        self._published: frozenset[str] = frozenset()
        """Replicas that the current table shows as ready."""

    def publish(self) -> None:
        """Tell gateways what is served now, if that has changed."""
        endpoints = publish.endpoints(self._desired, self._observed)
        if endpoints == self.table.endpoints and self.table.version:
            return
        self.table = RouteTable(self.table.version + 1, self.table.epoch, endpoints, self._count)
        self._published = frozenset(
            r.id for e in endpoints for d in e.deployments for r in d.replicas if r.state is ReplicaState.READY
        )
        self._recorder.set_route_version(self.table.version)
        self._recorder.set_objectives({endpoint.name: endpoint.slo for endpoint in endpoints})
        self.gateways.publish(self.table)

    def loads(self) -> list[LoadReport]:
        """The last load report of every connected gateway."""
        return list(self.gateways.loads.values())

    def followed(self, version: int | None = None) -> bool:
        """Every gateway goes by the route table of this version, or of the current one, or by a newer one."""
        wanted = self.table.version if version is None else version
        loads = self.gateways.loads
        return len(loads) >= self._count and all(load.route_version >= wanted for load in loads.values())

    def all_reported(self) -> bool:
        """No gateway has just been restarted, or has yet to find this controller: it may hold work."""
        return self.gateways.connected == frozenset(self.gateways.loads)

    def reachable(self, spec: DeploymentSpec) -> bool:
        """Every replica is ready and every gateway connected to it: traffic that moves there now meets no gap."""
        ready = self._observed.ready(spec.id)
        return (
            len(ready) >= spec.replicas
            and ready <= self._published
            and self.followed()
            and all(ready.isdisjoint(load.unreachable) for load in self.gateways.loads.values())
        )

    async def visible(self) -> None:
        """Wait a moment until every gateway goes by what was changed: who is told that it is done may rely on it."""
        ends = time.monotonic() + _VISIBLE_S
        while self._changed.is_set() or not self.followed():
            if time.monotonic() > ends:
                return  # a gateway is being started again; it begins with this table
            await asyncio.sleep(_VISIBLE_LOOK_S)
