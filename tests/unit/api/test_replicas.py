"""/api/v1/replicas: all copies, and what they wrote."""

from __future__ import annotations

from typing import Any


def test_all_replicas(get: Any) -> None:
    replicas = get("/api/v1/replicas").json()["replicas"]
    assert [(replica["id"], replica["state"]) for replica in replicas] == [
        ("fraud@1#1", "ready"),
        ("fraud@1#2", "failed"),
        ("fraud@2#1", "ready"),
        ("org/churn@1#1", "loading"),
    ]


def test_log_is_plain_text(get: Any) -> None:
    answer = get("/api/v1/replicas/org/churn@1%231/log")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.text == "loading…\ndone <b>\n"


def test_log_of_an_unknown_replica(get: Any) -> None:
    answer = get("/api/v1/replicas/fraud@1%239/log")
    assert answer.status_code == 404
    assert answer.json()["detail"] == "there is no replica 'fraud@1#9'"
