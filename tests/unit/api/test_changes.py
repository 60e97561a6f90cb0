"""/api/v1/changes: what was done to the registry, page by page."""

from __future__ import annotations

from typing import Any

from headrace.api.registry_schema import Changes


def test_changes_newest_first_in_pages(any_api: Any) -> None:
    any_api.register()
    any_api.register("churn")
    any_api.point("fraud", "champion", "1", **{"If-None-Match": "*", "X-Headrace-User": "ada@x"})
    first = any_api("GET", "/changes?limit=2").json()
    changes = Changes.model_validate(first, strict=True).changes
    assert [(change.what, change.subject) for change in changes] == [("alias.move", "fraud"), ("version.push", "churn")]
    assert (changes[0].who, changes[0].after) == ("ada@x", {"champion": 1})
    rest = any_api("GET", f"/changes?cursor={first['next_cursor']}").json()
    assert [change["subject"] for change in rest["changes"]] == ["fraud"]
    assert rest["next_cursor"] is None
    own = any_api("GET", "/changes?model=churn").json()
    assert [change["subject"] for change in own["changes"]] == ["churn"]


def test_who_is_a_name_or_an_address(api: Any) -> None:
    for name in ("a b", "x" * 200, "\x01", ""):
        api.register(headers={"X-Headrace-User": name})
    assert {change["who"] for change in api("GET", "/changes").json()["changes"]} == {"client@127.0.0.1"}
