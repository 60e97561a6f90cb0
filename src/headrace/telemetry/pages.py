"""Series pages: one memory-mapped file per process that holds the numbers of its metrics.

A page is an append-only table of blocks; a block is a JSON key and float64 cells. The one writer adds to cells with
plain stores, readers in other processes map the file at any time without locks. The numbers are in the page cache, so
they survive ``kill -9``, and a restarted process of the same slot counts on from where its predecessor died.
Blocks marked *live* (gauges) describe the present: they are void as soon as the process that wrote them is gone.
This file knows nothing of metrics; it must not log or raise on the path of a request.
"""

from __future__ import annotations

import mmap
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import msgspec

from headrace.core import errors
from headrace.telemetry import processes

Key = tuple[str, ...]
"""Name of a block: a metric's name, then its label values."""

# File: header of 8 words (u64), then blocks one after the other. Everything is 8-byte aligned and in native byte
# order (a page never leaves its machine), so a cell is written by one 8-byte store and is never seen half-written.
_MAGIC = int.from_bytes(b"HEADRACE", "little")
_VERSION = 1
_W_MAGIC, _W_VERSION, _W_USED, _W_PID, _W_STARTED, _W_LOST = range(6)
_HEADER_BYTES = 64

# Block: 8 fields of u32, the key (room rounded up so that a retired block can be used again), the cells.
_F_SIZE, _F_CELLS, _F_KEY, _F_CRC, _F_LIVE, _F_SEQUENCE = range(6)
_BLOCK_HEADER = 32
_KEY_STEP = 32

_SUFFIX = ".page"
_GROW_BYTES = 256 << 10
_READ_ATTEMPTS = 3
_PROCESS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*\Z")
_encode_key = msgspec.json.Encoder().encode
_decode_key = msgspec.json.Decoder(tuple[str, ...]).decode


class SeriesPage:
    """The writer of one page. Single-threaded; after a fork only the parent may use it.

    ``process`` names the slot (``gateway-0``, ``controller``), not the incarnation: opening a page whose writer is
    dead takes its counters over. Raises Bug when the writer named in the page is another live process.
    ``capacity`` bounds the file; only what is used takes space. When the page or the disk is full new blocks live in
    scratch memory: they accept increments that nobody will read, and readers see how many there are.
    """

    _fd: int
    _bytes: memoryview[int]
    _words: memoryview[int]
    _fields: memoryview[int]
    _doubles: memoryview[float]

    def __init__(self, directory: Path, process: str, *, capacity: int = 64 << 20) -> None:
        if not _PROCESS.match(process):
            raise errors.Bug(f"process name {process!r} cannot name a page: use letters, digits, '_', '-', '.'")
        self.process = process
        self.path = directory / f"{process}{_SUFFIX}"
        self.restarted = False
        """True when counters of a predecessor were taken over."""
        self.replaced_fault = ""
        """Why the file found there could not be used and was replaced; empty when it could, or when there was none."""
        self._capacity = max(capacity, _HEADER_BYTES) & ~7
        self._blocks: dict[Key, memoryview[float]] = {}
        self._offsets: dict[Key, int] = {}
        self._free: dict[tuple[int, int], list[int]] = {}
        self._scratch: dict[int, memoryview[float]] = {}
        self._open()

    def cells(self, key: Key, count: int, *, live: bool = False) -> memoryview[float]:
        """The ``count`` float64 cells of ``key``, zero when new. Keep the view: ``view[i] += 1`` is the increment.

        A live block is void for readers once this process is gone. The view dies with ``retire`` and ``close``."""
        known = self._blocks.get(key)
        if known is not None:
            offset = self._offsets.get(key)
            if len(known) == count and (offset is None or bool(self._fields[offset // 4 + _F_LIVE]) is live):
                return known
            self.retire(key)  # written by another release, with other buckets
        block = self._place(key, count, live)
        if block is None:
            self._words[_W_LOST] += 1
            block = self._scratch.setdefault(count, memoryview(bytearray(8 * count)).cast("d"))
        self._blocks[key] = block
        return block

    def retire(self, key: Key) -> None:
        """Forget a block; readers stop seeing it and its space is used again. Unknown keys are ignored."""
        self._blocks.pop(key, None)
        offset = self._offsets.pop(key, None)
        if offset is not None:
            self._release(offset)

    def close(self) -> None:
        """Give the page up: counters stay readable, live blocks become void at once."""
        if self._fd < 0:
            return
        self._words[_W_PID] = 0
        os.close(self._fd)
        self._fd = -1
        self._blocks.clear()
        self._offsets.clear()

    def _open(self) -> None:
        existing = self.path.exists()
        if existing:
            snapshot = read_page(self.path)
            if snapshot.alive:
                raise errors.Bug(f"metric page {self.path} belongs to live process {snapshot.pid}")
            self.replaced_fault = snapshot.fault
        if not existing or self.replaced_fault:
            self._create()
        self._map()
        if existing and not self.replaced_fault:
            self._adopt()

    def _create(self) -> None:
        # Renamed into place when the header is complete, so that readers never meet half a header, and those that
        # have the old file mapped keep it.
        temporary = self.path.with_name(f".{self.process}.tmp")
        header = memoryview(bytearray(_HEADER_BYTES)).cast("Q")
        header[_W_MAGIC], header[_W_VERSION], header[_W_USED] = _MAGIC, _VERSION, _HEADER_BYTES
        header[_W_PID], header[_W_STARTED] = os.getpid(), processes.started(os.getpid()) or 0
        temporary.write_bytes(header.cast("B"))
        temporary.replace(self.path)

    def _map(self) -> None:
        self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        size = os.fstat(self._fd).st_size
        if size < self._capacity:
            os.ftruncate(self._fd, self._capacity)  # sparse: blocks are reserved by _reserve as the table grows
        else:
            self._capacity = size & ~7
        self._bytes = memoryview(mmap.mmap(self._fd, self._capacity))  # unmapped when the last view of a cell dies
        self._words = self._bytes.cast("Q")
        self._fields = self._bytes.cast("I")
        self._doubles = self._bytes.cast("d")
        self._reserved = int(self._words[_W_USED])

    def _adopt(self) -> None:
        """Take over the blocks of the dead predecessor: counters go on, gauges do not describe us."""
        self._words[_W_PID] = 0  # no owner while the identity below is being changed
        self._words[_W_STARTED] = processes.started(os.getpid()) or 0
        offset, used = _HEADER_BYTES, int(self._words[_W_USED])
        while offset < used:
            at = offset // 4
            size, count = self._fields[at + _F_SIZE], self._fields[at + _F_CELLS]
            if self._fields[at + _F_SEQUENCE] & 1 or self._fields[at + _F_LIVE]:
                self._release(offset)
            else:
                start = offset + _BLOCK_HEADER
                key = _decode_key(self._bytes[start : start + self._fields[at + _F_KEY]])
                self._offsets[key] = offset
                self._blocks[key] = self._cells_at(offset, size, count)
            offset += size
        self._words[_W_LOST] = 0
        self.restarted = True
        self._words[_W_PID] = os.getpid()

    def _release(self, offset: int) -> None:
        at = offset // 4
        self._fields[at + _F_SEQUENCE] |= 1  # odd: readers skip it
        self._free.setdefault((self._fields[at + _F_SIZE], self._fields[at + _F_CELLS]), []).append(offset)

    def _place(self, key: Key, count: int, live: bool) -> memoryview[float] | None:
        encoded = _encode_key(key)
        size = _BLOCK_HEADER + -(-len(encoded) // _KEY_STEP) * _KEY_STEP + 8 * count
        free = self._free.get((size, count))
        used = int(self._words[_W_USED])
        offset = free.pop() if free else used
        if offset == used and not self._reserve(used + size):
            return None
        at = offset // 4
        if offset == used:
            self._fields[at + _F_SEQUENCE] = 1
        start = offset + _BLOCK_HEADER
        self._fields[at + _F_SIZE], self._fields[at + _F_CELLS] = size, count
        self._fields[at + _F_KEY], self._fields[at + _F_LIVE] = len(encoded), int(live)
        self._fields[at + _F_CRC] = _checksum(size, count, live, encoded)
        self._bytes[start : start + len(encoded)] = encoded
        block = self._cells_at(offset, size, count)
        for index in range(count):  # a predecessor may have died between writing a block and publishing it
            block[index] = 0.0
        self._fields[at + _F_SEQUENCE] += 1  # even: valid
        if offset == used:
            self._words[_W_USED] = used + size
        self._offsets[key] = offset
        return block

    def _cells_at(self, offset: int, size: int, count: int) -> memoryview[float]:
        end = (offset + size) // 8
        return self._doubles[end - count : end]

    def _reserve(self, end: int) -> bool:
        """Have the file system set space aside: a store to a page it has no room for would be a SIGBUS."""
        if end <= self._reserved:
            return True
        if end > self._capacity:
            return False
        goal = min(self._capacity, max(end, self._reserved + _GROW_BYTES))
        try:
            os.posix_fallocate(self._fd, self._reserved, goal - self._reserved)
        except OSError:
            return False  # disk full: the caller counts the block as lost
        self._reserved = goal
        return True


@dataclass(frozen=True, slots=True)
class PageSnapshot:
    """What one page held at one moment. Live blocks are left out unless the writer is alive."""

    process: str
    pid: int
    """The writer; 0 when it gave the page up."""
    alive: bool
    blocks: list[tuple[Key, list[float]]]
    lost: int
    """Blocks that found no room since the process started: their numbers are nowhere."""
    fault: str = ""
    """Why the page could not be read; ``blocks`` is then empty."""


def read_pages(directory: Path) -> Iterator[tuple[str, Key, list[float]]]:
    """Every readable block of every page as ``(process, key, values)``; faulty pages are skipped."""
    for snapshot in read_directory(directory):
        for key, values in snapshot.blocks:
            yield snapshot.process, key, values


def read_directory(directory: Path) -> list[PageSnapshot]:
    """A snapshot of every page in a directory, in order of process name. A missing directory has none."""
    return [read_page(path) for path in sorted(directory.glob(f"*{_SUFFIX}"))]


def read_page(path: Path) -> PageSnapshot:
    """Read one page. Never raises for what is in the file: ``fault`` says why it could not be used."""
    process = path.name.removesuffix(_SUFFIX)
    fault = ""
    for _ in range(_READ_ATTEMPTS):  # on weakly ordered CPUs a block may be seen just before its content
        try:
            return _read(path, process)
        except _Fault as error:
            fault = str(error)
        except (OSError, ValueError, msgspec.DecodeError) as error:
            fault = f"cannot be read: {error}"
    return PageSnapshot(process, 0, False, [], 0, fault)


class _Fault(Exception):
    """Inside this file: the page is not usable, for the reason in the message."""


def _checksum(size: int, count: int, live: bool | int, encoded: bytes) -> int:
    return zlib.crc32(encoded, zlib.crc32(b"%d %d %d" % (size, count, live)))


def _read(path: Path, process: str) -> PageSnapshot:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size & ~7
        if size < _HEADER_BYTES:
            raise _Fault(f"the file has {size} bytes, a page has at least {_HEADER_BYTES}")
        mapped = mmap.mmap(fd, size, access=mmap.ACCESS_READ)
    finally:
        os.close(fd)
    with mapped, memoryview(mapped) as view:
        return _snapshot(view, process)


def _snapshot(view: memoryview, process: str) -> PageSnapshot:
    with view.cast("Q") as words:
        if words[_W_MAGIC] != _MAGIC:
            raise _Fault("it is not a metric page (wrong magic)")
        if words[_W_VERSION] != _VERSION:
            raise _Fault(f"page version is {words[_W_VERSION]}, this release reads {_VERSION}")
        used, pid, lost = words[_W_USED], words[_W_PID], words[_W_LOST]
        alive = pid != 0 and processes.started(pid) == words[_W_STARTED]
    if used > len(view) or used % 8 or used < _HEADER_BYTES:
        raise _Fault(f"the table ends at {used}, the file at {len(view)}")
    return PageSnapshot(process, pid, alive, _read_blocks(view, used, alive), lost)


def _read_blocks(view: memoryview, used: int, alive: bool) -> list[tuple[Key, list[float]]]:
    blocks: list[tuple[Key, list[float]]] = []
    offset = _HEADER_BYTES
    with view.cast("I") as fields, view.cast("d") as doubles:
        while offset < used:
            at = offset // 4
            size, count, key_size, crc, live, sequence = fields[at : at + 6].tolist()
            room = size - 8 * count - _BLOCK_HEADER
            if offset + size > used or size % 8 or key_size > room:
                raise _Fault(f"the block at {offset} has impossible sizes")
            if not sequence & 1 and (alive or not live):
                start, end = offset + _BLOCK_HEADER, (offset + size) // 8
                encoded = bytes(view[start : start + key_size])
                # tolist() loads cell by cell; a bulk copy gives no promise to keep 8 bytes together.
                values = cast("list[float]", doubles[end - count : end].tolist())
                if fields[at + _F_SEQUENCE] == sequence:  # else it was retired while we read it
                    if crc != _checksum(size, count, live, encoded):
                        raise _Fault(f"the block at {offset} has a wrong checksum")
                    blocks.append((_decode_key(encoded), values))
            offset += size
    return blocks
