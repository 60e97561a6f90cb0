"""What this gateway knows: about readiness, the route table and the replicas it is connected to; statistics of all
gateways."""

from __future__ import annotations

import asyncio
from typing import Any

from headrace.core import errors
from headrace.core.keys import Principal
from headrace.core.names import version_order
from headrace.gateway.services import Services
from headrace.pipeline.deployment import Deployment
from headrace.protocols.kserve_v1 import VersionStatus
from headrace.protocols.oip_documents import IndexEntry
from headrace.telemetry import statistics


class ServerState:
    """Questions about models, shared by REST and gRPC."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def ready(self) -> bool:
        """The server takes traffic: it has a route table, is not draining, and can serve the traffic of every endpoint,
        but for those that failed for good: they must not take the others out of a load balancer."""
        router = self._services.router
        if self._services.draining or not router.table_version:
            return False
        alive = [e for e in router.endpoints.values() if not all(d.route.failed for d in e.choices)]
        return bool(alive or not router.endpoints) and all(
            any(d.ready or d.route.dormant for d in e.choices) for e in alive
        )

    def model_ready(self, name: str, version: str) -> bool:
        """Without a version: some deployment that takes traffic can answer. Raises UnknownModel; never NotReady."""
        router = self._services.router
        try:
            deployment = router.describing(name, version)
        except errors.NotReady:
            return False
        choices = [deployment] if version else router.endpoints[name].choices
        return any(choice.ready or choice.route.dormant for choice in choices) and not self._services.draining

    def versions(self, name: str) -> list[str]:
        """Deployed versions, those that take traffic last (clients read the last one as the default)."""
        endpoint = self._services.router.endpoints[name]
        taking = {d.route.version for d in endpoint.choices}
        return sorted(endpoint.deployments, key=lambda v: (v in taking, version_order(v)))

    def names(self, caller: Principal) -> list[str]:
        """The endpoints that the caller may know of."""
        return [name for name in sorted(self._services.router.endpoints) if caller.sees(name)]

    def models(self, caller: Principal) -> list[tuple[str, str]]:
        """(endpoint, version) of every deployment that the caller may know of."""
        return [
            (name, version)
            for name in self.names(caller)
            for version in sorted(self._services.router.endpoints[name].deployments, key=version_order)
        ]

    def version_states(self, name: str) -> list[VersionStatus]:
        """TF Serving's state of each version."""
        endpoint = self._services.router.endpoints[name]
        return [
            VersionStatus(version, "AVAILABLE" if d.ready else "LOADING", "" if d.ready else d.route.reason)
            for version, d in endpoint.deployments.items()
        ]

    def index(self, caller: Principal, *, only_ready: bool) -> list[IndexEntry]:
        """The repository index."""
        entries = []
        for name, version in self.models(caller):
            deployment = self._services.router.endpoints[name].deployments[version]
            state, reason = _index_state(deployment)
            if not only_ready or state == "READY":
                entries.append(IndexEntry(name, version, state, reason))
        return entries

    async def statistics(self, caller: Principal, name: str = "", version: str = "") -> dict[str, Any]:
        """The document of ``telemetry.statistics`` for these models; empty means all that the caller may know of.
        Raises UnknownModel or NotReady."""
        services = self._services
        if name:
            services.router.describing(name, version)
        models = [m for m in self.models(caller) if name in ("", m[0]) and version in ("", m[1])]
        services.records.flush()
        return await asyncio.to_thread(statistics.render, services.metrics_directory, models)


def _index_state(deployment: Deployment) -> tuple[str, str]:
    if deployment.ready:
        return "READY", ""
    reason = deployment.route.reason
    return ("UNAVAILABLE", reason) if reason else ("LOADING", "")
