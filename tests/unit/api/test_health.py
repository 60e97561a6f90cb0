"""Health: what orchestrators read."""

from __future__ import annotations

from typing import Any

import msgspec


def test_alive_and_ready(get: Any) -> None:
    assert get("/healthz").json() == {"live": True}
    assert get("/readyz").json() == {"ready": True}


def test_head_works_for_load_balancers(get: Any, controller: Any) -> None:
    assert get("/healthz", "HEAD").status_code == 200
    assert get("/readyz", "HEAD").status_code == 200
    controller.is_ready = False
    assert get("/readyz", "HEAD").status_code == 503


def test_not_ready_says_what_is_waited_for(get: Any, controller: Any) -> None:
    controller.is_ready = False
    answer = get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    document = answer.json()
    assert document["ready"] is False
    assert document["waiting"] == {"org/churn@1": "loading"}
    assert document["detail"] == "org/churn@1: loading"
    assert get("/healthz").status_code == 200


def test_not_ready_before_anything_is_routed(get: Any, controller: Any) -> None:
    controller.is_ready = False
    controller.table = msgspec.structs.replace(controller.table, endpoints=())
    assert get("/readyz").json()["detail"] == "nothing is served yet"


def test_not_ready_while_a_gateway_drains(get: Any, controller: Any) -> None:
    first, second = controller.reports
    controller.reports = [first, msgspec.structs.replace(second, draining=True)]
    answer = get("/readyz")
    assert answer.status_code == 503
    assert "shutting down" in answer.json()["detail"]
    assert get("/healthz").status_code == 200
