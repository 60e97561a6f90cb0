"""/api/v1/gc: what nobody refers to goes, what is young stays."""

from __future__ import annotations

from typing import Any

import pytest


def test_what_nobody_refers_to_goes(api: Any) -> None:
    kept = api.register().json()["files"][0]["digest"]
    gone = api.store(b"nobody's")
    api("PUT", "/artifacts/sha256:" + "a" * 64, content=b"ab", headers={"Content-Range": "bytes 0-1/10"})
    assert api("POST", "/gc", json={}).json() == {"files": 0, "bytes": 0, "dry_run": False}
    said = api("POST", "/gc", json={"grace_s": 0, "dry_run": True}).json()
    assert said == {"files": 2, "bytes": 10, "dry_run": True}, "with the upload that nobody went on with"
    assert api("HEAD", f"/artifacts/{gone}").status_code == 200
    assert api("POST", "/gc", json={"grace_s": 0}).json()["files"] == 2
    assert api("HEAD", f"/artifacts/{gone}").status_code == 404
    assert api("HEAD", f"/artifacts/{kept}").status_code == 200


@pytest.mark.parametrize("body", [b'{"grace_s": -1}', b'{"grace_s": Infinity}', b'{"grace": 1}', b"[]", b"{"])
def test_bodies_that_are_none(api: Any, body: bytes) -> None:
    assert api("POST", "/gc", content=body, headers={"Content-Type": "application/json"}).status_code == 422
