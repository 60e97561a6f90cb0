"""Keeps a controller in step with the keys of its state. Imports a database only when there is one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from headrace.app.state_location import Location
from headrace.core import errors
from headrace.core.keys import NO_KEYS, KeySet
from headrace.telemetry.logging import Log

if TYPE_CHECKING:
    from headrace.app.key_state import KeyReader

_EVERY_S = 1.0


async def follow_keys(location: Location, take: Callable[[KeySet], None], log: Log) -> None:
    """Hand the keys of the state to ``take``, at once and within a second of every change. Never ends.

    What cannot be read is tried again: the keys that were known before stay in force, and as long as none were,
    nobody is let in."""
    reader: KeyReader | None = None
    known, told = False, ""
    try:
        while True:
            try:
                if reader is None and location.exists:
                    reader = await asyncio.to_thread(_reader, location)
                if reader is not None:
                    found = await asyncio.to_thread(reader.changed)
                else:
                    found = None if known else NO_KEYS
            except errors.HeadraceError as error:
                if error.message != told:
                    log.warning("the keys cannot be read", action="keys_unreadable", reason=error.message)
                told = error.message
            else:
                known, told = True, ""
                if found is not None:
                    take(found)
            await asyncio.sleep(_EVERY_S)
    finally:
        if reader is not None:
            reader.close()


def _reader(location: Location) -> KeyReader:
    from headrace.app.key_state import KeyReader

    return KeyReader(location)
