"""HTTP answers become the errors of core, whatever dialect the body has."""

from __future__ import annotations

import pytest

from headrace.client.errors import error_from_response
from headrace.core import errors
from headrace.protocols import http_status


def tree(cls: type[errors.HeadraceError]) -> list[type[errors.HeadraceError]]:
    return [cls, *(found for child in cls.__subclasses__() for found in tree(child))]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidInput),
        (401, errors.Unauthorized),
        (403, errors.Forbidden),
        (404, errors.UnknownModel),
        (405, errors.MethodNotAllowed),
        (413, errors.PayloadTooLarge),
        (418, errors.CallerError),
        (429, errors.QuotaExceeded),
        (499, errors.Cancelled),
        (500, errors.RuntimeFailed),
        (501, errors.Unsupported),
        (502, errors.NotReady),
        (503, errors.Overloaded),
        (504, errors.DeadlineExceeded),
        (599, errors.RuntimeFailed),
    ],
)
def test_status_decides_without_a_code(status: int, kind: type[errors.HeadraceError]) -> None:
    error = error_from_response(status, {}, b'{"error": "why"}', "http://x")
    assert type(error) is kind
    assert error.message == "why"


@pytest.mark.parametrize("kind", tree(errors.HeadraceError), ids=lambda kind: kind.__name__)
def test_retryability_of_our_own_errors_survives_the_wire(kind: type[errors.HeadraceError]) -> None:
    """What the client would try again is what the server says may be tried again."""
    reply = http_status.error_reply(kind("why"))
    error = error_from_response(
        reply.status, {k.decode(): v.decode() for k, v in reply.headers}, reply.body, "http://x"
    )
    assert error.message == "why"
    refusal = (errors.NotReady, errors.Overloaded)
    assert isinstance(error, refusal) == isinstance(kind("why"), refusal)


def test_a_code_wins_over_the_status() -> None:
    error = error_from_response(503, {"x-headrace-error": "not_ready"}, b'{"error": "loading"}', "u")
    assert type(error) is errors.NotReady


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "of OpenAI"}}', "of OpenAI"),
        (b'{"detail": "of FastAPI"}', "of FastAPI"),
        (b"plain text", "plain text"),
        (b"", "http://x: the server answered 500"),
        (b"<html>proxy</html>", "http://x: the server answered 500"),
        (b"[1]", "http://x: the server answered 500"),
        (b'{"error": 5}', "http://x: the server answered 500"),
    ],
)
def test_messages_of_every_dialect(body: bytes, message: str) -> None:
    assert error_from_response(500, {}, body, "http://x").message == message


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0.5", 0.5), (None, 1.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 1.0), ("-3", 1.0), ("nan", 1.0)],
)
def test_retry_after(header: str | None, seconds: float) -> None:
    headers = {} if header is None else {"retry-after": header}
    assert error_from_response(503, headers, b"", "u").retry_after == seconds
