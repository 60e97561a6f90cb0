"""What is refused before it is read: pages from elsewhere, other types, bodies without end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from headrace.api import request_checks

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:8888"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_pages_from_elsewhere_change_nothing(api: Any, headers: dict[str, str]) -> None:
    refused = api("POST", "/gc", json={}, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "cross_origin")
    assert api("PUT", "/artifacts/sha256:" + "a" * 64, content=b"x", headers=headers).status_code == 403
    # What browsers name no origin for, they do not let a page read.
    assert api("GET", "/models", headers=headers).status_code == (403 if "Origin" in headers else 200)


def test_this_servers_own_pages_may(api: Any) -> None:
    own = {"Origin": "http://localhost:9000", "Sec-Fetch-Site": "same-origin"}
    assert api("POST", "/gc", json={}, headers=own).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_what_a_form_can_send_is_not_read(api: Any, kind: str) -> None:
    refused = api("POST", "/gc", content=b"{}", headers={"Content-Type": kind} if kind else {})
    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media_type")


def test_bodies_have_an_end(api: Any) -> None:
    large = api("POST", "/gc", content=b" " * (request_checks.MAX_BODY + 1), headers=JSON)
    assert (large.status_code, large.json()["code"]) == (413, "payload_too_large")

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(request_checks.MAX_BODY // 1_000_000 + 2):
            yield b" " * 1_000_000

    chunked = api("POST", "/gc", content=endless(), headers=JSON)
    assert (chunked.status_code, chunked.json()["code"]) == (413, "payload_too_large")
