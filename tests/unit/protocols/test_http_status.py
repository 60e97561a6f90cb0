"""Status, headers and bodies of errors over HTTP."""

from __future__ import annotations

import json

import pytest

from headrace.core import errors
from headrace.protocols import http_status, kserve_v1, oip_rest


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidInput, 400),
        (errors.BadSettings, 400),
        (errors.CallerError, 400),
        (errors.Unauthorized, 401),
        (errors.Forbidden, 403),
        (errors.UnknownKey, 404),
        (errors.UntrustedArtifact, 403),
        (errors.UnknownModel, 404),
        (errors.MethodNotAllowed, 405),
        (errors.PayloadTooLarge, 413),
        (errors.QuotaExceeded, 429),
        (errors.Cancelled, 499),
        (errors.RuntimeFailed, 500),
        (errors.ModelRaised, 500),
        (errors.BadModelOutput, 500),
        (errors.LoadFailed, 500),
        (errors.ReplicaDied, 500),
        (errors.PoisonRequest, 500),
        (errors.Bug, 500),
        (errors.HeadraceError, 500),
        (errors.Unsupported, 501),
        (errors.NotReady, 503),
        (errors.Overloaded, 503),
        (errors.DeadlineExceeded, 504),
    ],
)
@pytest.mark.parametrize("render", [oip_rest.render_error, kserve_v1.render_error])
def test_status_and_body(error: type[errors.HeadraceError], status: int, render: object) -> None:
    reply = render(error("what happened"))  # type: ignore[operator]
    assert reply.status == status
    assert reply.body == b'{"error":"what happened"}'
    assert reply.headers[0] == (b"content-type", b"application/json")


def test_every_class_of_the_tree_has_a_status() -> None:
    def walk(cls: type[errors.HeadraceError]) -> list[type[errors.HeadraceError]]:
        return [cls, *(found for child in cls.__subclasses__() for found in walk(child))]

    for cls in walk(errors.HeadraceError):
        if cls.__module__ == errors.__name__:
            assert 400 <= http_status.status_of(cls()) <= 504


@pytest.mark.parametrize(
    ("after", "seconds"), [(None, b"1"), (0.0, b"1"), (0.2, b"1"), (1.2, b"2"), (30, b"30"), (float("inf"), b"1")]
)
@pytest.mark.parametrize("error", [errors.Overloaded, errors.QuotaExceeded, errors.NotReady])
def test_retry_after_is_a_whole_number_of_seconds(
    error: type[errors.HeadraceError], after: float | None, seconds: bytes
) -> None:
    reply = http_status.error_reply(error("later", retry_after=after))
    assert dict(reply.headers)[b"retry-after"] == seconds


def test_only_refusals_ask_for_a_retry() -> None:
    assert b"retry-after" not in dict(http_status.error_reply(errors.InvalidInput("no")).headers)
    assert b"retry-after" not in dict(http_status.error_reply(errors.DeadlineExceeded()).headers)


def test_a_refused_verb_names_the_allowed_ones() -> None:
    reply = http_status.error_reply(errors.MethodNotAllowed("use GET"), ("GET", "HEAD"))
    assert (reply.status, dict(reply.headers)[b"allow"]) == (405, b"GET, HEAD")


def test_a_challenge_comes_with_401() -> None:
    assert dict(http_status.error_reply(errors.Unauthorized()).headers)[b"www-authenticate"] == b"Bearer"


def test_text_that_is_no_unicode_does_not_break_the_answer() -> None:
    reply = http_status.error_reply(errors.ModelRaised("bad \ud800 text"))
    assert json.loads(reply.body)["error"] == "bad ? text"


def test_replies_do_not_share_their_header_lists() -> None:
    first, second = http_status.json_reply({}), http_status.json_reply({})
    first.headers.append((b"x-request-id", b"1"))
    assert second.headers == [(b"content-type", b"application/json")]
