"""Stored files: in pieces, from where an upload stopped, and back in any part."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest

from headrace.api import artifacts
from headrace.api.registry_schema import UploadState
from headrace.app.state.registry_state import Location
from tests.object_servers import Bucket
from tests.unit.api.conftest import opened

CONTENT = random.Random(7).randbytes(3_000_000)
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
SIZE = len(CONTENT)
PATH = f"/artifacts/{DIGEST}"


def put(api: Any, start: int, stop: int, content: bytes | None = None) -> Any:
    headers = {"Content-Range": f"bytes {start}-{stop - 1}/{SIZE}"}
    return api("PUT", PATH, content=CONTENT[start:stop] if content is None else content, headers=headers)


def asked(api: Any) -> Any:
    return api("PUT", PATH, headers={"Content-Range": f"bytes */{SIZE}"})


def test_pieces_from_where_it_stopped(api: Any) -> None:
    assert api("HEAD", PATH).status_code == 404
    assert (asked(api).status_code, asked(api).json()["received"]) == (202, 0)
    first = put(api, 0, 1_500_000)
    assert (first.status_code, first.headers["range"]) == (202, "bytes=0-1499999")
    state = UploadState.model_validate_json(asked(api).content, strict=True)
    assert (state.received, state.complete) == (1_500_000, False)
    wrong = put(api, 2_000_000, SIZE)
    assert (wrong.status_code, wrong.json()["code"]) == (409, "wrong_offset")
    assert api("HEAD", PATH).status_code == 404
    last = put(api, 1_500_000, SIZE)
    assert (last.status_code, last.json()["complete"]) == (201, True)
    assert (asked(api).status_code, asked(api).json()["complete"]) == (200, True)
    assert put(api, 0, 10).status_code == 200, "what is stored is not sent again"
    there = api("HEAD", PATH)
    assert (there.status_code, there.headers["content-length"]) == (200, str(SIZE))
    assert api("GET", PATH).content == CONTENT


def test_a_body_that_breaks_off_is_kept_as_far_as_it_came(api: Any) -> None:
    short = put(api, 0, SIZE, CONTENT[:1_000_001])
    assert short.status_code == 400
    assert asked(api).json()["received"] == 1_000_001
    assert put(api, 1_000_001, SIZE).status_code == 201


def test_wrong_bytes_are_not_stored(api: Any, tmp_path: Path) -> None:
    wrong = put(api, 0, SIZE, b"?" * SIZE)
    assert (wrong.status_code, wrong.json()["code"]) == (422, "wrong_digest")
    assert api("GET", PATH).json()["code"] == "unknown_artifact"
    assert asked(api).json()["received"] == 0
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size == SIZE] == []


@pytest.mark.parametrize("content", [b"", b"x"])
def test_a_whole_file_at_once(api: Any, content: bytes) -> None:
    path = f"/artifacts/sha256:{hashlib.sha256(content).hexdigest()}"
    assert api("PUT", path, content=content).status_code == 201
    assert api("GET", path).content == content


@pytest.mark.parametrize(
    ("asked", "status", "start", "stop"),
    [
        ("bytes=0-9", 206, 0, 10),
        ("bytes=2999990-", 206, SIZE - 10, SIZE),
        ("bytes=-10", 206, SIZE - 10, SIZE),
        ("bytes=1048570-1048590", 206, 1048570, 1048591),
        ("bytes=2999990-9999999", 206, SIZE - 10, SIZE),
        ("bytes=-9999999", 206, 0, SIZE),
        ("bytes=5-2", 200, 0, SIZE),
        ("bytes=0-1,3-4", 200, 0, SIZE),
        ("lines=1-2", 200, 0, SIZE),
        ("bytes=-", 200, 0, SIZE),
    ],
)
def test_parts_of_a_file(api: Any, asked: str, status: int, start: int, stop: int) -> None:
    api.store(CONTENT)
    part = api("GET", PATH, headers={"Range": asked})
    assert part.status_code == status
    assert part.content == CONTENT[start:stop]
    assert part.headers["content-length"] == str(stop - start)
    assert part.headers.get("content-range") == (f"bytes {start}-{stop - 1}/{SIZE}" if status == 206 else None)
    assert part.headers["etag"] == f'"{DIGEST}"'


@pytest.mark.parametrize("asked", ["bytes=3000000-", "bytes=-0"])
def test_parts_that_lie_outside(api: Any, asked: str) -> None:
    api.store(CONTENT)
    refused = api("GET", PATH, headers={"Range": asked})
    assert (refused.status_code, refused.json()["code"]) == (416, "range_not_satisfiable")
    assert refused.headers["content-range"] == f"bytes */{SIZE}"


def test_what_is_known_is_not_sent(api: Any) -> None:
    api.store(CONTENT)
    assert api("GET", PATH, headers={"If-None-Match": f'"{DIGEST}"'}).status_code == 304


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content-Range": "bytes 0-1"}, 400, "invalid_input"),
        ({"Content-Range": "bytes 5-4/10"}, 400, "invalid_input"),
        ({"Content-Range": "bytes 0-10/10"}, 400, "invalid_input"),
        ({"Content-Range": "bytes 0-1/" + "9" * 30}, 400, "invalid_input"),
        ({"Content-Range": "bytes */9999999999999999"}, 413, "payload_too_large"),
        ({"Content-Range": f"bytes 0-{artifacts.MAX_PIECE}/{artifacts.MAX_PIECE + 1}"}, 413, "payload_too_large"),
        ({"Content-Range": "bytes 0-0/10"}, 400, "invalid_input"),
        ({"Content-Length": str(artifacts.MAX_PIECE + 1)}, 413, "payload_too_large"),
        ({"Transfer-Encoding": "chunked"}, 400, "invalid_input"),
    ],
)
def test_pieces_that_are_none(api: Any, headers: dict[str, str], status: int, code: str) -> None:
    refused = api("PUT", PATH, content=iter_bytes() if "Transfer-Encoding" in headers else b"ab", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (status, code), refused.text


async def iter_bytes() -> Any:
    yield b"ab"


def test_two_who_send_the_same(api: Any, tmp_path: Path) -> None:
    files = tmp_path / "state" / "uploads"
    put(api, 0, 10)
    import fcntl

    with next(files.iterdir()).open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        busy = put(api, 10, SIZE)
    assert (busy.status_code, busy.json()["code"], busy.headers["retry-after"]) == (503, "state_in_use", "1")
    assert put(api, 10, SIZE).status_code == 201


@pytest.mark.xdist_group("object-stores")
def test_files_in_an_object_store(bucket: Bucket, tmp_path: Path, controller: Any) -> None:
    location = Location(tmp_path / "state", None, f"{bucket.url}/blobs")
    with opened(location, controller, tmp_path) as api:
        assert put(api, 0, 1_000_000).status_code == 202
        assert put(api, 1_000_000, SIZE).status_code == 201
        part = api("GET", PATH, headers={"Range": "bytes=1048570-1048590"})
        assert (part.status_code, part.content) == (206, CONTENT[1048570:1048591])
        assert api("HEAD", PATH).headers["content-length"] == str(SIZE)
        assert api.register().status_code == 201
        assert api("POST", "/models/fraud/versions/1/verify").json()["ok"] is True
        assert api("POST", "/gc", json={"grace_s": 0}).json()["files"] == 1
        assert api("HEAD", PATH).status_code == 404
