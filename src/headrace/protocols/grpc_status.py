"""Errors as gRPC: one table from error class to status code, and how status, messages and timeouts are spelled."""

from __future__ import annotations

import re
from enum import IntEnum

from headrace.core import errors
from headrace.protocols.protocol import Headers


class Code(IntEnum):
    """Status codes of gRPC."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


# ReplicaDied is INTERNAL although it is retryable: clients repeat UNAVAILABLE by themselves, and whether the request
# may run twice is for the caller to say.
STATUS: dict[type[errors.HeadraceError], Code] = {
    errors.CallerError: Code.INVALID_ARGUMENT,
    errors.InvalidInput: Code.INVALID_ARGUMENT,
    errors.BadSettings: Code.INVALID_ARGUMENT,
    errors.UnknownModel: Code.NOT_FOUND,
    errors.UnknownKey: Code.NOT_FOUND,
    errors.Conflict: Code.FAILED_PRECONDITION,
    errors.MethodNotAllowed: Code.UNIMPLEMENTED,
    errors.Unsupported: Code.UNIMPLEMENTED,
    errors.PayloadTooLarge: Code.RESOURCE_EXHAUSTED,
    errors.Unauthorized: Code.UNAUTHENTICATED,
    errors.Forbidden: Code.PERMISSION_DENIED,
    errors.UntrustedArtifact: Code.PERMISSION_DENIED,
    errors.Cancelled: Code.CANCELLED,
    errors.NotReady: Code.UNAVAILABLE,
    errors.Overloaded: Code.UNAVAILABLE,
    errors.QuotaExceeded: Code.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: Code.DEADLINE_EXCEEDED,
    errors.RuntimeFailed: Code.INTERNAL,
    errors.StoreFailed: Code.INTERNAL,
    errors.StateInUse: Code.UNAVAILABLE,
    errors.Bug: Code.INTERNAL,
    errors.HeadraceError: Code.UNKNOWN,
}
"""A class that is not listed has the code of its nearest listed ancestor."""

OK_TRAILERS: Headers = [(b"grpc-status", b"0")]

_MESSAGE_LIMIT = 4096
"""Bytes of a message in trailers: header blocks are small (8 kB in many clients)."""


def status_of(error: errors.HeadraceError) -> Code:
    for cls in type(error).__mro__:
        if cls in STATUS:
            return STATUS[cls]
    return Code.UNKNOWN


def error_trailers(error: errors.HeadraceError) -> Headers:
    """Trailers that end a call with an error; an overload tells when to retry."""
    trailers: Headers = [
        (b"grpc-status", b"%d" % status_of(error)),
        (b"grpc-message", encode_message(error.message)),
    ]
    if error.retryable and error.retry_after is not None and isinstance(error, errors.Overloaded):
        trailers.append((b"grpc-retry-pushback-ms", b"%d" % round(error.retry_after * 1000)))
    return trailers


def encode_message(message: str) -> bytes:
    """Percent-encode a status message: printable ASCII but ``%`` stays. Long messages are cut between characters."""
    parts: list[bytes] = []
    size = 0
    for char in message:
        raw = char.encode("utf-8", "replace")
        part = raw if " " <= char <= "~" and char != "%" else b"".join(b"%%%02X" % byte for byte in raw)
        size += len(part)
        if size > _MESSAGE_LIMIT:
            parts.append(b"...")
            break
        parts.append(part)
    return b"".join(parts)


_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


def parse_timeout(value: bytes) -> float:
    """Seconds of a grpc-timeout header, ``b"100m"`` → 0.1. Raises InvalidInput."""
    found = _TIMEOUT.fullmatch(value)
    if found is None:
        raise errors.InvalidInput(
            f"grpc-timeout {value.decode('latin-1')!r} is not valid:"
            " expected up to 8 digits and one of H, M, S, m, u, n"
        )
    return int(found[1]) * _UNITS[found[2]]
