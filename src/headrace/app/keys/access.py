"""The keys of a server's state as the management API uses them (``api/ports.py``). Keys need no ownership of the state
(``docs/decisions/0012``), so they are changed beside whatever else happens to it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager

from headrace.app.keys.key_state import open_issuer
from headrace.app.state.location import Location
from headrace.control.key_issuer import KeyIssuer


class StateKeys:
    """Implements KeyAccess. ``look`` has the server read its keys now. A database is opened for each request: there are
    few."""

    def __init__(
        self, location: Location, look: Callable[[], Awaitable[None]], environ: Mapping[str, str] = os.environ
    ) -> None:
        self._location = location
        self._look = look
        self._environ = environ

    def issuing(self, who: str) -> AbstractContextManager[KeyIssuer]:
        return open_issuer(self._location, self._environ, who)

    async def followed(self) -> None:
        await self._look()
