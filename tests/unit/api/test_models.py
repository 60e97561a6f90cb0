"""/api/v1/models: lists in pages, single models with their tags, deletion."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.api.registry_schema import Model, Models


def test_models_come_in_pages_by_name(any_api: Any) -> None:
    for name in ("fraud", "churn", "org/price"):
        any_api.register(name)
    any_api.register("fraud")
    any_api.point("fraud", "champion", "1")
    first = any_api("GET", "/models?limit=2").json()
    assert [model["name"] for model in first["models"]] == ["churn", "fraud"]
    fraud = Models.model_validate(first, strict=True).models[1]
    assert (fraud.versions, fraud.newest, fraud.format, fraud.aliases) == (2, 2, "echo", {"champion": 1})
    last = any_api("GET", f"/models?limit=2&cursor={first['next_cursor']}").json()
    assert [model["name"] for model in last["models"]] == ["org/price"]
    assert last["next_cursor"] is None
    assert any_api("GET", "/models?limit=3").json()["next_cursor"] is None


def test_one_model_and_its_tag(api: Any) -> None:
    api.register("org/price")
    found = api("GET", "/models/org/price")
    assert Model.model_validate_json(found.content, strict=True).versions == 1
    tag = found.headers["etag"]
    again = api("GET", "/models/org/price", headers={"If-None-Match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    api.register("org/price")
    changed = api("GET", "/models/org/price", headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


def test_a_model_is_deleted_as_it_was_seen(api: Any) -> None:
    api.register()
    tag = api("GET", "/models/fraud").headers["etag"]
    api.register()
    assert api("DELETE", "/models/fraud").status_code == 428
    late = api("DELETE", "/models/fraud", headers={"If-Match": tag})
    assert (late.status_code, late.json()["code"]) == (412, "precondition_failed")
    api.point("fraud", "champion", "1")
    kept = api("DELETE", "/models/fraud", headers={"If-Match": "*"})
    assert (kept.status_code, kept.json()["code"]) == (409, "conflict")
    api("DELETE", "/models/fraud/aliases/champion", headers={"If-Match": "*"})
    gone = api("DELETE", "/models/fraud?why=replaced", headers={"If-Match": "*"})
    assert [version["ref"] for version in gone.json()["deleted"]] == ["fraud@1", "fraud@2"]
    assert api("GET", "/models/fraud").json()["code"] == "unknown_model"
    assert api("GET", "/changes?limit=1").json()["changes"][0]["why"] == "replaced"


def test_a_missing_model_hints_at_its_neighbour(api: Any) -> None:
    api.register()
    missing = api("GET", "/models/frau")
    assert missing.status_code == 404
    assert "did you mean 'fraud'" in missing.json()["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "/models/%00",
        "/models/a%00b/versions",
        "/models/..%2F..%2Fetc%2Fpasswd",
        "/models/a'%3B%20DROP%20TABLE%20models",
        "/models/a%2Fversions",
        "/models/fraud/versions/..%2F1",
        "/models/fraud/versions/1%00",
        "/models/fraud/aliases/a%20b",
        "/models/fraud/aliases/7",
        "/models/fraud/history?alias=%00",
        "/models/%F0%9F%92%A9",
        "/models/" + "a" * 300,
        "/changes?model=%00",
        "/artifacts/sha256:..%2F..%2Fx",
        "/artifacts/..%2F..%2Fetc%2Fpasswd",
    ],
)
def test_hostile_names_are_refused_by_name(any_api: Any, path: str) -> None:
    refused = any_api("GET", path)
    assert refused.status_code in (400, 404), refused.text
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] in ("bad_settings", "invalid_input", "unknown_model", "not_found")


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "cursor=x", "cursor=W10", "cursor=WyJ2ZXJzaW9ucyIsMV0"])
def test_pages_that_are_none(api: Any, query: str) -> None:
    refused = api("GET", f"/models?{query}")
    assert refused.status_code in (400, 422)
    assert refused.json()["code"] == "invalid_input"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/models"),
        ("GET", "/models/fraud"),
        ("GET", "/models/fraud/versions"),
        ("GET", "/models/fraud/versions/1"),
        ("GET", "/models/fraud/versions/1/trust"),
        ("POST", "/models/fraud/versions/1/verify"),
        ("GET", "/models/fraud/aliases"),
        ("GET", "/models/fraud/history"),
        ("GET", "/artifacts/sha256:" + "0" * 64),
        ("HEAD", "/artifacts/sha256:" + "0" * 64),
        ("GET", "/changes"),
    ],
)
def test_a_server_without_a_registry_says_how_to_get_one(get: Any, method: str, path: str) -> None:
    answer = get(f"/api/v1{path}", method)
    assert answer.status_code == 404
    if method != "HEAD":
        assert answer.json()["code"] == "no_registry"
        assert "--state" in answer.json()["detail"]


def test_the_index_links_to_the_registry(api: Any, get: Any) -> None:
    assert "models" not in get("/").json()["links"]
    found = api("GET", "/../../").json()["links"]
    assert found["models"] == "/api/v1/models"
    assert api("GET", found["changes"].removeprefix("/api/v1")).status_code == 200
