"""Trust by content: given, seen and taken back."""

from __future__ import annotations

from typing import Any

PATH = "/models/fraud/versions/1/trust"


def test_trust_is_given_seen_and_taken_back(any_api: Any) -> None:
    any_api.register()
    assert any_api("GET", PATH).status_code == 404
    given = any_api("PUT", PATH, headers={"X-Headrace-User": "ada@x"})
    assert given.json()["who"] == "ada@x"
    again = any_api("PUT", PATH, headers={"X-Headrace-User": "bob@x"})
    assert again.content == given.content, "the first who vouched stays"
    assert any_api("GET", PATH).headers["etag"] == given.headers["etag"]
    assert any_api("PUT", PATH, headers={"If-None-Match": "*"}).status_code == 412
    assert any_api("GET", "/models/fraud/versions/1").json()["trust"]["who"] == "ada@x"
    assert any_api("DELETE", PATH).status_code == 428
    assert any_api("DELETE", PATH, headers={"If-Match": '"other"'}).status_code == 412
    gone = any_api("DELETE", f"{PATH}?why=left", headers={"If-Match": given.headers["etag"]})
    assert gone.status_code == 204
    assert any_api("GET", PATH).status_code == 404
    [last, *_] = any_api("GET", "/changes").json()["changes"]
    assert (last["what"], last["why"]) == ("trust.revoke", "left")
