"""/api/v1/deployments/ID/batching: what is done and why, per gateway."""

from __future__ import annotations

from typing import Any


def test_explains_batching_per_gateway(get: Any) -> None:
    document = get("/api/v1/deployments/fraud@1/batching").json()
    gateways = document.pop("gateways")
    assert document == {
        "deployment": "fraud@1",
        "mode": "auto",
        "batchable": True,
        "max_batch_size": 32,
        "max_batch_cost": None,
        "cost": "rows",
        "max_queue_delay_ms": 0.0,
        "padded": [],
        "buckets": [],
    }
    assert [gateway["gateway"] for gateway in gateways] == [0, 1]
    assert gateways[1] == {
        "gateway": 1,
        "explanation": "batching pays: a row costs 0.01 ms, a call 0.5 ms",
        "fixed_ms": 0.5,
        "per_row_ms": 0.01,
        "limit": 32,
        "queued_requests": 10,
        "queued_rows": 20,
    }


def test_ids_with_slashes(get: Any) -> None:
    document = get("/api/v1/deployments/org/churn@1/batching").json()
    assert document["deployment"] == "org/churn@1"
    assert document["gateways"] == []
    assert document["batchable"] is None


def test_unknown_deployment(get: Any) -> None:
    answer = get("/api/v1/deployments/fraud@9/batching")
    assert answer.status_code == 404
    assert answer.json()["detail"] == "there is no deployment 'fraud@9'; there are: fraud@1, fraud@2, org/churn@1"
