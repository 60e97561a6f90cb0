"""Byte ranges of stored files: ``Content-Range`` of pieces that arrive, ``Range`` of what is asked for (RFC 9110)."""

from __future__ import annotations

import re

import msgspec

from headrace.core import errors

_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18})\Z", re.ASCII)
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z", re.ASCII)


class Piece(msgspec.Struct, frozen=True):
    """Bytes ``start`` up to, without, ``stop`` of a file of ``size`` bytes; ``start`` None: only a question."""

    start: int | None
    stop: int
    size: int


def read_content_range(text: str | None, content_length: str | None) -> Piece:
    """What a PUT brings; without Content-Range it is the whole file. Raises InvalidInput."""
    if text is None:
        if content_length is None or not content_length.isdecimal() or len(content_length) > 18:
            raise errors.InvalidInput("say how long the file is: send Content-Length, or pieces with Content-Range")
        return Piece(0, int(content_length), int(content_length))
    match = _CONTENT_RANGE.match(text)
    if match is None:
        raise errors.InvalidInput(
            f"Content-Range {text[:60]!r} is none: write 'bytes FIRST-LAST/SIZE', or 'bytes */SIZE' to ask how much"
            " has arrived"
        )
    size = int(match[3])
    if match[1] is None:
        return Piece(None, 0, size)
    first, last = int(match[1]), int(match[2])
    if not first <= last < size:
        raise errors.InvalidInput(f"Content-Range {text!r} is none: {first} to {last} lies not within {size} bytes")
    return Piece(first, last + 1, size)


def read_range(text: str | None, size: int) -> tuple[int, int] | None:
    """Start and end (without) of the part that is asked for; None for all of it, also when the header is of a kind that
    is not understood, as the RFC wants. Raises ValueError when the part lies outside."""
    match = _RANGE.match(text) if text is not None else None
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        start, stop = max(0, size - int(match[2])), size
    else:
        start, stop = int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)
        if match[2] and int(match[2]) < int(match[1]):
            return None
    if start >= stop:
        raise ValueError(text)
    return start, stop
