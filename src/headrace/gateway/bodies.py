"""Reads request bodies within limits: refused by their announced size before a byte is read, counted as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from headrace.core import errors
from headrace.gateway.services import Services
from headrace.protocols import compression
from headrace.telemetry.metrics import Refusal

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = dict[bytes, bytes]

_INLINE_INFLATE = 4096
_SMALL_PART = 4096
_SIZE_DIGITS = 18


def check_size(services: Services, headers: Headers) -> int:
    """The announced size, 0 when none is announced. Raises PayloadTooLarge, Overloaded or InvalidInput."""
    announced = headers.get(b"content-length")
    if announced is None:
        return 0
    if not announced.isdigit() or len(announced) > _SIZE_DIGITS:
        shown = announced[:_SIZE_DIGITS].decode("latin-1")
        raise errors.InvalidInput(f"Content-Length {shown!r} is not a number of bytes")
    size = int(announced)
    _check_limits(services, size)
    return size


def _check_limits(services: Services, size: int, reserved: int = 0, *, partial: bool = False) -> None:
    """``reserved`` bytes of these are held for this body already; ``partial``: more of it may follow."""
    limit = services.settings.max_body_bytes
    if size > limit:
        services.records.refused("", "", Refusal.BODY_TOO_LARGE)
        has = f"more than {limit}" if partial else str(size)
        raise errors.PayloadTooLarge(
            f"the body has {has} bytes, this server accepts {limit} (--max-body); send fewer rows per request"
        )
    _check_budget(services, size, reserved)


def _check_budget(services: Services, size: int, reserved: int = 0) -> None:
    budget = services.settings.max_bodies_bytes
    if size > services.settings.offload_bytes:
        budget -= budget // 8  # large bodies leave room for small ones
    if services.held_bytes + size - reserved > budget:
        services.records.refused("", "", Refusal.BODY_BUDGET)
        raise errors.Overloaded(
            f"request bodies being read hold {services.held_bytes} bytes, the limit is"
            f" {services.settings.max_bodies_bytes}; try again"
        )


class Pieces:
    """A body as it came, in pieces: to put megabytes together takes milliseconds, in which nobody else is served."""

    __slots__ = ("parts", "size")

    def __init__(self, parts: list[bytes | bytearray], size: int) -> None:
        self.parts = parts
        self.size = size

    def __len__(self) -> int:
        return self.size

    def joined(self) -> bytes:
        """The body in one piece."""
        return b"".join(self.parts)


async def read(services: Services, receive: Receive, headers: Headers) -> bytes:
    """The complete, decompressed body; what is announced too large is refused unread. Raises Cancelled when the
    client leaves in the middle."""
    body = await read_pieces(services, receive, headers)
    return body if isinstance(body, bytes) else body.joined()


async def read_pieces(services: Services, receive: Receive, headers: Headers) -> bytes | Pieces:
    """The same; one that is large and not compressed stays in pieces."""
    announced = check_size(services, headers)
    message = await receive()
    if message["type"] != "http.request":
        raise errors.Cancelled("the client left before the body was complete")
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        pieces = await _read_rest(services, receive, body, announced)
        if pieces.size > services.settings.offload_bytes and not _encoded(headers):
            return pieces
        body = pieces.joined()
    elif not announced:
        _check_limits(services, len(body))
    if _encoded(headers):
        return await _inflate(services, headers[b"content-encoding"].decode("latin-1"), body)
    return body


def _encoded(headers: Headers) -> bool:
    encoding = headers.get(b"content-encoding")
    return encoding is not None and encoding != b"identity"


async def _read_rest(services: Services, receive: Receive, first: bytes, announced: int) -> Pieces:
    parts: list[bytes | bytearray] = [first]
    size = len(first)
    if size > announced:
        _check_limits(services, size, partial=True)
    reserved = max(announced, size)
    services.held_bytes += reserved
    try:
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise errors.Cancelled("the client left before the body was complete")
            part = message.get("body", b"")
            if part:
                _append(parts, part)
                size += len(part)
                if size > reserved:
                    _check_limits(services, size, reserved, partial=True)
                    services.held_bytes += size - reserved
                    reserved = size
            if not message.get("more_body"):
                return Pieces(parts, size)
    finally:
        services.held_bytes -= reserved


def _append(parts: list[bytes | bytearray], part: bytes) -> None:
    # Bodies that come byte by byte would take fifty times their size as separate objects.
    if len(part) >= _SMALL_PART:
        parts.append(part)
    elif isinstance(parts[-1], bytearray):
        parts[-1] += part
    else:
        parts.append(bytearray(part))


async def _inflate(services: Services, encoding: str, body: bytes) -> bytes:
    limit = services.settings.max_body_bytes
    if len(body) <= _INLINE_INFLATE:
        # Even a bomb of this size inflates to a few megabytes at most.
        return compression.decompress(encoding, body, limit)
    with held(services, min(limit, len(body) * compression.MAX_RATIO)):
        return await asyncio.to_thread(compression.decompress, encoding, body, limit)


@contextmanager
def held(services: Services, size: int) -> Iterator[None]:
    """Count ``size`` bytes to the bodies that the gateway holds. Raises Overloaded when they are too many."""
    _check_budget(services, size)
    services.held_bytes += size
    try:
        yield
    finally:
        services.held_bytes -= size
