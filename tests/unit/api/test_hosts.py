"""The Host check: names that a page elsewhere could make point here are refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.api.app import create_app
from headrace.api.hosts import HostCheck, host_name, is_own_origin


async def nothing(*_: object) -> None:
    raise AssertionError("not called")


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:9000",
        "LOCALHOST.:9000",
        "127.0.0.1:9000",
        "10.1.2.3",
        "[::1]:9000",
        "[::1]",
        "models.example:80",
        "Models.Example",
    ],
)
def test_lets_in(get: Any, host: str) -> None:
    assert get("/api/v1/endpoints", host=host).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:9000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil-models.example",
        "sub.models.example",
        "[::1",
        "[evil]",
        "[::1]evil",
        "localhost@evil.example",
    ],
)
def test_keeps_out(get: Any, host: str) -> None:
    answer = get("/metrics", host=host)
    assert answer.status_code == 421
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "host_not_allowed"
    assert repr(host) in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_open_to_any_name(get: Any, path: str) -> None:
    assert get(path, host="lb.internal").status_code == 200


@pytest.mark.parametrize(
    ("origin", "host", "own"),
    [
        ("http://localhost:9000", "localhost:9000", True),
        ("http://LOCALHOST:9000", "localhost:9000", True),
        ("https://models.example", "models.example:443", True),
        ("https://models.example:443", "models.example:443", True),
        ("http://[::1]:9000", "[::1]:9000", True),
        ("http://localhost", "localhost", True),
        ("http://localhost:3000", "localhost:9000", False),
        ("http://127.0.0.1:9000", "localhost:9000", False),
        ("http://evil.example", "localhost:9000", False),
        ("http://evil.example:9000", "localhost:9000", False),
        ("http://localhost:9000.evil.example", "localhost:9000", False),
        ("null", "localhost:9000", False),
        ("", "localhost:9000", False),
        ("file://", "localhost:9000", False),
        ("http://", "", False),
        ("chrome-extension://localhost:9000", "localhost:9000", False),
        ("http://[::1", "[::1", False),
    ],
)
def test_origins(get: Any, origin: str, host: str, own: bool) -> None:
    assert is_own_origin(origin, host) is own
    if not HostCheck(nothing, ["models.example"]).allows(host):
        return
    for method in ("GET", "POST", "OPTIONS"):
        answer = get("/api/v1/endpoints", method, host=host, origin=origin)
        assert (answer.status_code == 403) == (not own), answer.text
        assert "access-control-allow-origin" not in answer.headers
    if not own:
        problem = get("/metrics", host=host, origin=origin).json()
        assert problem["code"] == "cross_origin"
        assert repr(origin) in problem["detail"]
        assert get("/healthz", host=host, origin=origin).status_code == 200


def test_wildcards() -> None:
    below = HostCheck(nothing, ["*.example.org"])
    assert below.allows("a.example.org:9000")
    assert not below.allows("example.org")
    assert not below.allows("evilexample.org")


def test_a_bound_address_lets_no_malformed_name_in() -> None:
    check = HostCheck(nothing, ["::", "0.0.0.0", "box:9000"])
    assert not check.allows("")
    assert not check.allows("[bad")
    assert check.allows("box")


def test_a_star_turns_the_check_off(controller: Any, tmp_path: Path) -> None:
    app = create_app(controller, metrics_directory=tmp_path, allowed_hosts=["*"])

    async def send() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://any.example") as client:
            return (await client.get("/api/v1/replicas")).status_code

    assert asyncio.run(send()) == 200


@pytest.mark.parametrize(
    ("host", "name"), [("a:1", "a"), ("[::1]:1", "::1"), ("A.b.", "a.b"), ("[::1]x", ""), ("[::1", ""), ("", "")]
)
def test_host_name(host: str, name: str) -> None:
    assert host_name(host) == name
