"""Keeps a controller in step with the keys of its state. Imports a database only when there is one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from headrace.app.state.location import Location
from headrace.core import errors
from headrace.core.keys import NO_KEYS, KeySet
from headrace.telemetry.logging import Log

if TYPE_CHECKING:
    from headrace.app.keys.key_state import KeyReader

_EVERY_S = 1.0
_LOOK_S = 2.0
"""Who made a change waits at most this long for it to be seen."""


class KeyFollower:
    """Hands the keys of the state to ``take``, at once and within a second of every change.

    What cannot be read is tried again: the keys that were known before stay in force, and as long as none were,
    nobody is let in."""

    def __init__(self, location: Location, take: Callable[[KeySet], None], log: Log) -> None:
        self._location = location
        self._take = take
        self._log = log
        self._reader: KeyReader | None = None
        self._known = False
        self._told = ""
        self._asked = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []

    async def run(self) -> None:
        """Never ends."""
        try:
            while True:
                self._asked.clear()
                waiting, self._waiting = self._waiting, []
                await self._read()
                for looked in waiting:
                    if not looked.done():
                        looked.set_result(None)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._asked.wait(), _EVERY_S)
        finally:
            if self._reader is not None:
                self._reader.close()

    async def look(self) -> None:
        """Returns when what the state holds now has been taken; after a while also when it cannot be read."""
        looked = asyncio.get_running_loop().create_future()
        self._waiting.append(looked)
        self._asked.set()
        await asyncio.wait([looked], timeout=_LOOK_S)

    async def _read(self) -> None:
        try:
            if self._reader is None and self._location.exists:
                self._reader = await asyncio.to_thread(_reader, self._location)
            if self._reader is not None:
                found = await asyncio.to_thread(self._reader.changed)
            else:
                found = None if self._known else NO_KEYS
        except errors.HeadraceError as error:
            if error.message != self._told:
                self._log.warning("the keys cannot be read", action="keys_unreadable", reason=error.message)
            self._told = error.message
        else:
            self._known, self._told = True, ""
            if found is not None:
                self._take(found)


def _reader(location: Location) -> KeyReader:
    from headrace.app.keys.key_state import KeyReader

    return KeyReader(location)
