"""HTTP answers → the errors of ``core.errors``, so that callers catch one family whatever the transport."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from headrace.core import errors

CODE_HEADER = "x-headrace-error"
"""Header with the stable error code; other servers do not send it, then the status decides."""

_BY_STATUS: dict[int, type[errors.HeadraceError]] = {
    400: errors.InvalidInput,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.UnknownModel,
    405: errors.MethodNotAllowed,
    413: errors.PayloadTooLarge,
    422: errors.InvalidInput,
    429: errors.QuotaExceeded,
    499: errors.Cancelled,
    501: errors.Unsupported,
    502: errors.NotReady,
    503: errors.Overloaded,
    504: errors.DeadlineExceeded,
}


def error_from_response(status: int, headers: Mapping[str, str], body: bytes, where: str) -> errors.HeadraceError:
    """The error that a non-2xx answer stands for; ``where`` names the request for answers without a message."""
    message = _message(body) or f"{where}: the server answered {status}"
    code = headers.get(CODE_HEADER) or _problem_code(headers, body)
    if code:
        error = errors.from_code(code, message)
    else:
        fallback = errors.CallerError if 400 <= status < 500 else errors.RuntimeFailed
        error = _BY_STATUS.get(status, fallback)(message)
    error.retry_after = _retry_after(headers.get("retry-after"), error.retry_after)
    return error


def _problem_code(headers: Mapping[str, str], body: bytes) -> str | None:
    """The code in a problem document of the management API, when it is that of one of our errors."""
    if not headers.get("content-type", "").startswith("application/problem+json"):
        return None
    try:
        code = msgspec.json.decode(body, type=_Problem).code
    except msgspec.DecodeError:
        return None
    return code if errors.is_code(code) else None


class _Problem(msgspec.Struct):
    code: str = ""


def _message(body: bytes) -> str:
    """Text of ``{"error": …}`` (OIP, KServe) or ``{"error": {"message": …}}`` (OpenAI); "" when it is neither."""
    try:
        document = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body[:500].decode("utf-8", "replace").strip() if body and not body.lstrip().startswith(b"<") else ""
    if not isinstance(document, dict):
        return ""
    found = document.get("error", document.get("detail"))
    if isinstance(found, dict):
        found = found.get("message")
    return found if isinstance(found, str) else ""


def _retry_after(text: str | None, otherwise: float | None) -> float | None:
    """Seconds of a Retry-After header. The date form is rare and not worth trusting two clocks: ``otherwise``."""
    try:
        seconds = float(text) if text else math.nan
    except ValueError:
        return otherwise
    return seconds if math.isfinite(seconds) and seconds >= 0 else otherwise
