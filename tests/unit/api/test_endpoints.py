"""/api/v1/endpoints: what is served, without what must stay inside."""

from __future__ import annotations

from typing import Any


def test_all_endpoints(get: Any) -> None:
    document = get("/api/v1/endpoints").json()
    assert document["route_version"] == 7
    assert [(endpoint["name"], endpoint["ready"]) for endpoint in document["endpoints"]] == [
        ("fraud", True),
        ("org/churn", False),
    ]


def test_one_endpoint_in_full(get: Any) -> None:
    document = get("/api/v1/endpoints/fraud").json()
    first, second = document["deployments"]
    assert first == {
        "id": "fraud@1",
        "version": "1",
        "platform": "onnx_onnxv1",
        "ready": True,
        "dormant": False,
        "reason": "",
        "name": "champion",
        "traffic": 0.75,
        "desired_replicas": 2,
        "batchable": True,
        "inputs": [{"name": "amount", "datatype": "FP32", "shape": [-1, 30], "optional": False}],
        "outputs": [{"name": "label", "datatype": "INT64", "shape": [-1], "optional": False}],
        "replicas": [
            {
                "id": "fraud@1#1",
                "deployment": "fraud@1",
                "endpoint": "fraud",
                "state": "ready",
                "address": "unix:/run/1",
                "unreachable_from": [],
            },
            {
                "id": "fraud@1#2",
                "deployment": "fraud@1",
                "endpoint": "fraud",
                "state": "failed",
                "address": "unix:/run/2",
                "unreachable_from": [1],
            },
        ],
        "load": {"queued_requests": 11, "queued_rows": 22, "in_flight": 33, "requests": 44, "refused": 55},
        "shadow": None,
    }
    assert second["shadow"] == {
        "agreed": 3,
        "disagreed": 1,
        "failed": 2,
        "dropped": 5,
        "agreement": 0.75,
        "max_absolute": 0.5,
        "max_relative": 0.25,
        "live_ms": 2.0,
        "shadow_ms": 1.0,
        "sample": [{"request_id": "r-1", "output": "y", "live": "[1]: 1.0", "shadow": "[1]: 1.5"}],
    }
    assert second["traffic"] == 0.25
    assert document["traffic"] == {
        "weights": {"champion": 3.0, "challenger": 1.0, "other": 2.0},
        "sticky": "header:x-user-id",
        "rules": [{"when": "body:plan", "values": ["gold"], "deployment": "challenger"}],
        "overrides": ["X-Headrace-Deployment"],
        "shadow": {"dark": 10.0},
    }
    assert document["waiting"] == ["other"]
    assert document["slo"] == {"p99_ms": 50.0, "error_rate": None}
    assert second["load"]["requests"] == 4


def test_names_with_slashes_and_what_is_not_loaded_yet(get: Any) -> None:
    (deployment,) = get("/api/v1/endpoints/org/churn").json()["deployments"]
    assert deployment["reason"] == "loading"
    assert deployment["batchable"] is None
    assert deployment["inputs"] == []
    assert deployment["load"]["requests"] == 0
    assert get("/api/v1/endpoints/org%2Fchurn").json()["name"] == "org/churn"


def test_an_unknown_endpoint_names_the_known_ones(get: Any) -> None:
    answer = get("/api/v1/endpoints/frod")
    assert answer.status_code == 404
    assert answer.json()["code"] == "unknown_model"
    assert answer.json()["detail"] == "there is no endpoint 'frod'; served are: fraud, org/churn"


def test_secrets_do_not_leave(get: Any) -> None:
    for path in ("/api/v1/endpoints", "/api/v1/endpoints/fraud", "/api/v1/replicas", "/"):
        assert "secret" not in get(path).text
