"""Problem documents: one status per kind of error, and no secrets in a 500."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from headrace.api import problems
from headrace.core import errors


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidInput(), 400),
        (errors.BadSettings(), 400),
        (errors.UnknownModel(), 404),
        (errors.MethodNotAllowed(), 405),
        (errors.PayloadTooLarge(), 413),
        (errors.Unauthorized(), 401),
        (errors.Forbidden(), 403),
        (errors.UnknownKey(), 404),
        (errors.UnknownExperiment(), 404),
        (errors.Unsupported(), 501),
        (errors.QuotaExceeded(), 429),
        (errors.Overloaded(), 503),
        (errors.NotReady(), 503),
        (errors.DeadlineExceeded(), 504),
        (errors.ModelRaised(), 500),
        (errors.Bug(), 500),
    ],
)
def test_status_of_each_error(error: errors.HeadraceError, status: int) -> None:
    assert problems.status_of(error) == status


def test_an_error_of_the_view_is_a_problem(get: Any, controller: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise errors.NotReady("the controller is starting", retry_after=3)

    monkeypatch.setattr(controller, "routes", fail)
    answer = get("/api/v1/endpoints")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "3"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "the controller is starting",
        "instance": "/api/v1/endpoints",
        "code": "not_ready",
    }


@pytest.mark.parametrize("error", [KeyError("password"), errors.Bug("password")])
def test_a_bug_is_logged_and_not_shown(
    get: Any,
    controller: Any,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(controller, "routes", fail)
    with caplog.at_level(logging.ERROR):
        answer = get("/api/v1/replicas")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "bug"
    assert "password" not in answer.text
    assert any(record.exc_info and record.exc_info[1] is error for record in caplog.records)


def test_a_wrong_parameter_names_itself(get: Any) -> None:
    answer = get("/api/v1/events?limit=soon")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["code"] == "invalid_input"
    assert document["detail"].startswith("query.limit: ")
    assert document["errors"][0]["location"] == "query.limit"
    assert document["errors"][0]["got"] == "soon"
