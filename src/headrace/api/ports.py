"""What the management API needs from the controller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from headrace.control.endpoint_changes import EndpointChange
from headrace.core.endpoint_records import EndpointRecord
from headrace.core.load import LoadReport
from headrace.core.routes import RouteTable


class ControllerView(Protocol):
    """The controller as the API sees it. Called on the event loop: every method answers at once, from memory or from
    a small file, and changes nothing."""

    def routes(self) -> RouteTable:
        """The route table that gateways have been given last."""
        ...

    def loads(self) -> list[LoadReport]:
        """The latest report of every living gateway."""
        ...

    def events(self, limit: int) -> list[dict[str, Any]]:
        """The latest events, newest first: ``type``, ``at`` (Unix seconds) and the fields of that type."""
        ...

    def log_tail(self, replica: str) -> str:
        """The last lines a replica's worker wrote, of dead replicas too while they are kept.

        Raises UnknownModel when there is no such replica."""
        ...

    def ready(self) -> bool:
        """Every endpoint can answer."""
        ...


class EndpointCommands(Protocol):
    """What can be done to endpoints. Called on the event loop; ``who`` is for the history, ``generation`` the one that
    the caller has seen. Changes raise Conflict, Outdated, UnknownModel, BadSettings, StoreFailed."""

    async def plan(self, text: str, path: str) -> tuple[EndpointChange, ...]: ...
    async def apply(self, text: str, path: str, *, who: str, take_over: bool) -> tuple[EndpointChange, ...]: ...
    def export(self) -> str: ...
    def wanted(self, endpoint: str) -> EndpointRecord: ...
    async def set_traffic(
        self, endpoint: str, weights: Mapping[str, float], *, who: str, take_over: bool, generation: int | None
    ) -> EndpointRecord: ...
    async def scale(
        self, endpoint: str, deployment: str | None, replicas: int, *, who: str, generation: int | None
    ) -> EndpointRecord: ...
    async def restart(
        self, endpoint: str, deployment: str | None, *, who: str, generation: int | None
    ) -> EndpointRecord: ...
    async def drain(
        self, endpoint: str, deployment: str, *, who: str, take_over: bool, generation: int | None
    ) -> EndpointRecord: ...
    async def pause(self, endpoint: str, why: str, *, who: str, generation: int | None) -> EndpointRecord: ...
    async def resume(self, endpoint: str, *, who: str, generation: int | None) -> EndpointRecord: ...
    async def delete(self, endpoint: str, *, who: str, take_over: bool, generation: int | None) -> None: ...
