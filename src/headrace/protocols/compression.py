"""Content codings of HTTP bodies and gRPC messages: gzip and deflate, bounded on the way in.

A body is inflated only up to the caller's limit, whatever it claims, so a compressed bomb costs no more memory
than a plain body of the limit.
"""

from __future__ import annotations

import gzip
import zlib

from headrace.core import errors

ENCODINGS = ("gzip", "deflate")
"""Codings that are understood and produced, in order of preference."""

MAX_RATIO = 1040
"""A body inflates to at most this many times its size: the format allows 1032, and every member has a frame."""

_MAX_MEMBERS = 16
"""A gzip body may have several members; every one costs a copy of what follows it, so their number is bounded."""

_GZIP_BITS = 31
_ZLIB_BITS = 15
_RAW_BITS = -15


def decompress(encoding: str, data: bytes | memoryview, limit: int) -> bytes:
    """Inflate a complete body of at most ``limit`` bytes.

    ``encoding`` is a Content-Encoding or grpc-encoding value; empty and ``identity`` return the data. Raises
    PayloadTooLarge that names the limit, InvalidInput for data that is cut off, garbled or followed by junk, and
    Unsupported for other codings."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        if len(data) > limit:
            raise _too_large(limit)
        return bytes(data)
    if name in ("gzip", "x-gzip"):
        return _inflate("gzip", _GZIP_BITS, bytes(data), limit)
    if name == "deflate":
        return _inflate("deflate", _deflate_bits(data), bytes(data), limit)
    raise errors.Unsupported(f"content encoding {encoding!r} is not supported; use gzip, deflate or none")


def compress(encoding: str, data: bytes) -> bytes:
    """Compress a body with one of ``ENCODINGS``; level 1, because speed matters more than the last percent."""
    if encoding == "gzip":
        return gzip.compress(data, compresslevel=1, mtime=0)
    if encoding == "deflate":
        return zlib.compress(data, 1)
    raise errors.Bug(f"no compressor for {encoding!r}")


def choose(accepted: str) -> str | None:
    """The coding to answer with, from an Accept-Encoding or grpc-accept-encoding value; None: leave it plain."""
    quality: dict[str, float] = {}
    for part in accepted.lower().split(","):
        name, _, rest = part.strip().partition(";")
        quality[name.strip()] = _quality(rest)
    ranked = [(quality.get(name, quality.get("*", 0.0)), -order, name) for order, name in enumerate(ENCODINGS)]
    best, _, name = max(ranked)
    return name if best > 0 else None


def _quality(parameters: str) -> float:
    key, _, value = parameters.strip().partition("=")
    if key.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


def _deflate_bits(data: bytes | memoryview) -> int:
    # "deflate" means the zlib format, but some clients send it without the zlib header.
    if len(data) >= 2 and data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0:
        return _ZLIB_BITS
    return _RAW_BITS


def _inflate(name: str, bits: int, data: bytes, limit: int) -> bytes:
    parts: list[bytes] = []
    total = 0
    for _ in range(_MAX_MEMBERS):
        inflater = zlib.decompressobj(wbits=bits)
        try:
            # One byte more than allowed tells "exactly the limit" from "more".
            part = inflater.decompress(data, limit + 1 - total)
        except zlib.error as error:
            raise errors.InvalidInput(f"the body is not valid {name}: {error}") from None
        parts.append(part)
        total += len(part)
        if total > limit:
            raise _too_large(limit)
        if not inflater.eof:
            raise errors.InvalidInput(f"the {name} body ends too early")
        data = inflater.unused_data
        if not data:
            return parts[0] if len(parts) == 1 else b"".join(parts)
        if bits != _GZIP_BITS or not data.startswith(b"\x1f\x8b"):
            raise errors.InvalidInput(f"{len(data)} bytes follow the end of the {name} body")
    raise errors.InvalidInput(f"the {name} body has more than {_MAX_MEMBERS} members")


def _too_large(limit: int) -> errors.PayloadTooLarge:
    return errors.PayloadTooLarge(
        f"the decompressed body is larger than the limit of {limit} bytes (--max-body); send fewer rows per request"
    )
