"""What the management API needs from the controller."""

from __future__ import annotations

from typing import Any, Protocol

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
