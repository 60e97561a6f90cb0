"""/api/v1/events: every field of an event comes through."""

from __future__ import annotations

from typing import Any

import pytest


def test_latest_events_with_the_fields_of_their_type(get: Any, controller: Any) -> None:
    assert get("/api/v1/events").json() == {
        "events": [controller.happened[0], {"type": "Serving", "at": None, "seconds": 1.25}]
    }


def test_limit(get: Any) -> None:
    assert len(get("/api/v1/events?limit=1").json()["events"]) == 1


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x"])
def test_limits_of_the_limit(get: Any, limit: str) -> None:
    assert get(f"/api/v1/events?limit={limit}").status_code == 422
