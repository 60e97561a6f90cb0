"""Errors as HTTP: one table from error class to status, and the ``{"error": message}`` body all REST dialects share.

Triton, KServe and TF Serving clients read the key ``error``; the KServe client does so only when the content type
equals ``application/json``, without a charset.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from headrace.core import errors
from headrace.protocols.protocol import Headers, Reply

JSON_TYPE = (b"content-type", b"application/json")

STATUS: dict[type[errors.HeadraceError], int] = {
    errors.CallerError: 400,
    errors.InvalidInput: 400,
    errors.BadSettings: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.UntrustedArtifact: 403,
    errors.UnknownModel: 404,
    errors.UnknownKey: 404,
    errors.MethodNotAllowed: 405,
    errors.Conflict: 409,
    errors.PayloadTooLarge: 413,
    errors.QuotaExceeded: 429,
    errors.Cancelled: 499,
    errors.RuntimeFailed: 500,
    errors.Bug: 500,
    errors.HeadraceError: 500,
    errors.Unsupported: 501,
    errors.StoreFailed: 500,
    errors.StateInUse: 503,
    errors.NotReady: 503,
    errors.Overloaded: 503,
    errors.DeadlineExceeded: 504,
}
"""A class that is not listed has the status of its nearest listed ancestor."""


def status_of(error: errors.HeadraceError) -> int:
    for cls in type(error).__mro__:
        if cls in STATUS:
            return STATUS[cls]
    return 500


def error_reply(error: errors.HeadraceError, methods: tuple[str, ...] = ()) -> Reply:
    """The answer for an error; ``methods`` are the allowed verbs of a path that refused one. Never raises."""
    status = status_of(error)
    headers: Headers = [JSON_TYPE, (b"x-headrace-error", error.code.encode())]
    if status == 405 or methods:
        headers.append((b"allow", ", ".join(methods).encode()))
    if status in (429, 503):
        headers.append((b"retry-after", b"%d" % retry_after_seconds(error)))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return Reply(status, headers, error_body(error.message))


def error_body(message: str) -> bytes:
    """``{"error": message}``; text that is not valid Unicode (lone surrogates) is replaced."""
    try:
        return msgspec.json.encode({"error": message})
    except UnicodeEncodeError:
        return msgspec.json.encode({"error": message.encode("utf-8", "replace").decode()})


def retry_after_seconds(error: errors.HeadraceError) -> int:
    """Whole seconds for Retry-After, at least 1."""
    after = error.retry_after
    return 1 if after is None or not math.isfinite(after) else max(1, math.ceil(after))


def json_reply(value: Any, status: int = 200) -> Reply:
    """A JSON document (metadata, lists, health) as a reply."""
    return Reply(status, [JSON_TYPE], msgspec.json.encode(value))
