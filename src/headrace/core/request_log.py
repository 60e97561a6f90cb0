"""The format of request logs: which deployment answered which request, as bytes that gateways append and the
controller reads while they grow.

A segment is a file of a fixed size that was filled with zeros: a header, then entries. An entry is its length, the
CRC-32 of what follows, and the content; its length is written last. A reader stops at the first entry that is not
there in full, and comes back; what a writer that was killed has written stays readable.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import msgspec

MAGIC = b"HRLOG001"
SUFFIX = ".requests"
_PREFIX = struct.Struct("<HI")
_ANSWER = struct.Struct("<BdB")
_SHARES, _ANSWERED, _LOST = 1, 2, 3
_FALLBACK, _PINNED = 1, 2


class SegmentHeader(msgspec.Struct, frozen=True):
    """Whose requests a segment holds."""

    endpoint: str
    experiment: str
    gateway: int


class Shares(msgspec.Struct, frozen=True):
    """Deployment name → probability, in force for the entries that follow."""

    shares: dict[str, float]


class Answered(msgspec.Struct, frozen=True, gc=False):
    """A request that was answered. ``at``: Unix time, seconds."""

    request_id: str
    arm: str
    """The deployment that chance, or the request itself, chose."""
    at: float
    pinned: bool = False
    """The request named its version or deployment."""
    fallback: bool = False
    """Something else answered in its place."""


class Lost(msgspec.Struct, frozen=True):
    """So many answered requests before this one are in no log: there was no room on the disk for too long."""

    count: int


Entry = Shares | Answered | Lost


def header(head: SegmentHeader) -> bytes:
    content = msgspec.json.encode(head)
    return MAGIC + struct.pack("<H", len(content)) + content


def answered(request_id: str, arm: bytes, at: float, pinned: bool, fallback: bool) -> bytes:
    """An entry, ready to be appended. ``arm`` is UTF-8, at most 255 bytes."""
    flags = (_FALLBACK if fallback else 0) | (_PINNED if pinned else 0)
    return _framed(
        b"".join((bytes((_ANSWERED,)), _ANSWER.pack(flags, at, len(arm)), arm, request_id.encode("utf-8", "replace")))
    )


def shares(found: dict[str, float]) -> bytes:
    """An entry, ready to be appended."""
    return _framed(bytes((_SHARES,)) + msgspec.json.encode(found))


def lost(count: int) -> bytes:
    """An entry, ready to be appended."""
    return _framed(bytes((_LOST,)) + struct.pack("<Q", count))


def _framed(content: bytes) -> bytes:
    return _PREFIX.pack(len(content), zlib.crc32(content)) + content


def append(memory: memoryview, at: int, entry: bytes) -> int:
    """Write an entry at ``at`` and return where the next one goes; 0 when there is no room. The two bytes of its length
    come last: whoever reads sees all of it or nothing."""
    end = at + len(entry)
    if end + 2 > len(memory):  # room for the zeros that end the entries
        return 0
    memory[at + 2 : end] = entry[2:]
    memory[at : at + 2] = entry[:2]
    return end


def read_header(content: bytes | memoryview) -> tuple[SegmentHeader, int] | None:
    """The header and where the first entry begins; None while it is not there yet. Raises ValueError for what is no
    segment."""
    found = bytes(content[: len(MAGIC) + 2])
    if not found.strip(b"\0"):
        return None
    if found[: len(MAGIC)] != MAGIC:
        raise ValueError("it is no request log")
    (length,) = struct.unpack("<H", found[len(MAGIC) :])
    begin = len(MAGIC) + 2
    return msgspec.json.decode(bytes(content[begin : begin + length]), type=SegmentHeader), begin + length


def read(content: bytes | memoryview, at: int) -> Iterator[tuple[Entry, int]]:
    """Entries from ``at`` on, each with where the next one begins; ends at one that is not there in full."""
    while at + _PREFIX.size <= len(content):
        length, check = _PREFIX.unpack_from(content, at)
        end = at + _PREFIX.size + length
        if not length or end > len(content):
            return
        entry = bytes(content[at + _PREFIX.size : end])
        if zlib.crc32(entry) != check:
            return
        at = end
        yield _decoded(entry), at


def _decoded(entry: bytes) -> Entry:
    if entry[0] == _SHARES:
        return Shares(msgspec.json.decode(entry[1:], type=dict[str, float]))
    if entry[0] == _LOST:
        return Lost(struct.unpack("<Q", entry[1:])[0])
    flags, at, length = _ANSWER.unpack_from(entry, 1)
    begin = 1 + _ANSWER.size
    arm, request_id = entry[begin : begin + length], entry[begin + length :]
    return Answered(request_id.decode(), arm.decode(), at, bool(flags & _PINNED), bool(flags & _FALLBACK))
