"""Aliases: who moves one says what it replaces."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from headrace.api.registry_schema import Alias, AliasHistory


def put(api: Any, version: str, **headers: str) -> Any:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return api("PUT", "/models/fraud/aliases/champion", json={"version": version, "why": "test"}, headers=names)


def test_an_alias_is_made_moved_and_removed(any_api: Any) -> None:
    for _ in range(2):
        any_api.register()
    assert put(any_api, "1").json()["code"] == "precondition_required"
    assert put(any_api, "1", If_Match="*").status_code == 412
    made = put(any_api, "1", If_None_Match="*", X_Headrace_User="ada@x")
    assert Alias.model_validate_json(made.content, strict=True).by == "ada@x"
    assert any_api("GET", "/models/fraud/aliases/champion").headers["etag"] == made.headers["etag"]
    assert put(any_api, "2", If_None_Match="*").status_code == 412
    moved = put(any_api, "2", If_Match=made.headers["etag"])
    assert moved.json()["version"] == 2
    late = put(any_api, "1", If_Match=made.headers["etag"])
    assert (late.status_code, late.json()["code"]) == (412, "precondition_failed")
    assert put(any_api, "1", If_Match=f'"x", {moved.headers["etag"]}').status_code == 200
    assert put(any_api, "9", If_Match="*").json()["code"] == "unknown_model"
    [only] = any_api("GET", "/models/fraud/aliases").json()["aliases"]
    assert only["version"] == 1
    path = "/models/fraud/aliases/champion"
    assert any_api("DELETE", path).status_code == 428
    assert any_api("DELETE", path, headers={"If-Match": made.headers["etag"]}).status_code == 412
    assert any_api("DELETE", path, headers={"If-Match": "*"}).status_code == 204
    assert any_api("GET", path).status_code == 404
    assert any_api("DELETE", path, headers={"If-Match": "*"}).status_code == 404


def test_an_alias_that_came_back_is_not_the_one_that_was_seen(api: Any) -> None:
    for _ in range(2):
        api.register()
    seen = api.point("fraud", "champion", "1").headers["etag"]
    for version in ("2", "1"):
        api.point("fraud", "champion", version)
    assert put(api, "2", If_Match=seen).status_code == 412


def test_of_two_who_move_it_at_once_one_is_told(any_api: Any) -> None:
    for _ in range(9):
        any_api.register()
    tag = any_api.point("fraud", "champion", "1").headers["etag"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: put(any_api, str(n), If_Match=tag), range(2, 10)))
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7
    [winner] = [answer.json()["version"] for answer in answers if answer.status_code == 200]
    assert any_api("GET", "/models/fraud/aliases/champion").json()["version"] == winner
    assert len(any_api("GET", "/models/fraud/history").json()["steps"]) == 2


def test_history_goes_back_in_pages(api: Any) -> None:
    for number in range(1, 5):
        api.register()
        api.point("fraud", "champion", str(number))
    api.point("fraud", "other", "1")
    first = api("GET", "/models/fraud/history?limit=2").json()
    assert [(step.alias, step.version) for step in AliasHistory.model_validate(first, strict=True).steps] == [
        ("other", 1),
        ("champion", 4),
    ]
    rest = api("GET", f"/models/fraud/history?limit=9&cursor={first['next_cursor']}").json()
    assert [step["version"] for step in rest["steps"]] == [3, 2, 1]
    own = api("GET", "/models/fraud/history?alias=champion").json()
    assert [step["before"] for step in own["steps"]] == [3, 2, 1, None]


@pytest.mark.parametrize("body", [{}, {"version": 7}, {"version": "a b"}, {"version": "1", "x": 1}, {"version": ""}])
def test_moves_that_are_none(api: Any, body: Any) -> None:
    api.register()
    refused = api("PUT", "/models/fraud/aliases/champion", json=body, headers={"If-None-Match": "*"})
    assert refused.status_code in (400, 422)
