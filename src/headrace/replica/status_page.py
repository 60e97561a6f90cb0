"""The status page: one memory-mapped file per worker that says what the worker is computing right now.

The worker writes it (two small stores per batch); supervisor and gateways read it without asking the worker, so it
works while a model blocks every thread, and it outlives the process: after a death it tells which batches were being
computed and which only waited. Slots are written entry first, time last, and cleared time first.

Layout, little-endian: magic u32, version u32, pid u32, slots u32, completed batches u64, then per slot ``since u64``
(CLOCK_MONOTONIC nanoseconds, 0 = free), ``connection u32``, ``batch u32``, ``rows u32`` of the joined batch, padding.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

import msgspec

_MAGIC = 0x48524351
_VERSION = 1
_PREFIX = struct.Struct("<IIIIQ")
_COMPLETED_AT = 16
_SLOT = struct.Struct("<QIIII")
_SINCE = struct.Struct("<Q")
_ENTRY = struct.Struct("<III")
SIZE = 16 * 1024
SLOTS = (SIZE - _PREFIX.size) // _SLOT.size

EVERY_BATCH = 0
"""In place of the number of a batch: whatever its connection has sent and has no answer to."""


class Running(msgspec.Struct, frozen=True):
    """A batch that is being computed. ``since`` is CLOCK_MONOTONIC, nanoseconds; ``rows`` counts everything that is
    computed together with it."""

    since: int
    connection: int
    batch: int
    rows: int = 0


class StatusPageWriter:
    """The worker's side. Slots 0.. are used by whoever computes; concurrent callers use distinct slots."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, SIZE)
            self._map = mmap.mmap(fd, SIZE)
        finally:
            os.close(fd)
        _PREFIX.pack_into(self._map, 0, _MAGIC, _VERSION, os.getpid(), SLOTS, 0)
        self._completed = 0

    def begin(self, slot: int, since: int, connection: int, batch: int, rows: int = 1) -> None:
        """Say that ``slot`` computes this batch. Slots beyond the page are not shown."""
        if slot < SLOTS:
            at = _PREFIX.size + slot * _SLOT.size
            _ENTRY.pack_into(self._map, at + 8, connection, batch, rows)
            _SINCE.pack_into(self._map, at, since)

    def end(self, slot: int) -> None:
        if slot < SLOTS:
            _SINCE.pack_into(self._map, _PREFIX.size + slot * _SLOT.size, 0)

    def completed(self) -> None:
        """Count a batch or stream that came to its end."""
        self._completed += 1
        _SINCE.pack_into(self._map, _COMPLETED_AT, self._completed)

    def close(self) -> None:
        self._map.close()


class StatusPageReader:
    """A gateway's view of a living worker's page, for a look per batch."""

    def __init__(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._map = mmap.mmap(fd, SIZE, prot=mmap.PROT_READ)
        finally:
            os.close(fd)

    def computing(self) -> tuple[float, int] | None:
        """Since when (CLOCK_MONOTONIC, seconds) the main thread computes, and how many rows; None: nothing."""
        since, _, _, rows, _ = _SLOT.unpack_from(self._map, _PREFIX.size)
        return (since / 1e9, rows) if since else None

    def close(self) -> None:
        self._map.close()


def completed(path: str | Path) -> int:
    """Batches that the worker of this page completed; 0 when there is no page."""
    raw = _load(path)
    return 0 if raw is None else int(_PREFIX.unpack_from(raw)[4])


def read(path: str | Path) -> list[Running] | None:
    """What the worker computes, or computed when it died. None when the page is missing or not one."""
    raw = _load(path)
    if raw is None:
        return None
    found = []
    for slot in range(SLOTS):
        since, connection, batch, rows, _ = _SLOT.unpack_from(raw, _PREFIX.size + slot * _SLOT.size)
        if since:
            found.append(Running(since, connection, batch, rows))
    return found


def _load(path: str | Path) -> bytes | None:
    try:
        raw = Path(path).read_bytes()
    except OSError:
        return None
    if len(raw) < SIZE:
        return None
    magic, version, _, slots, _ = _PREFIX.unpack_from(raw)
    return raw if (magic, version, slots) == (_MAGIC, _VERSION, SLOTS) else None
