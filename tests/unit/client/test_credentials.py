"""The key that a client sends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headrace.client import AsyncClient, Client
from headrace.client.credentials import with_key
from headrace.core import errors

KEY = "hr_abcdefghijkl_" + "A" * 43


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADRACE_API_KEY", raising=False)


def test_every_request_brings_the_key(fake_server: Any) -> None:
    server = fake_server()
    with Client("http://x", api_key=KEY, transport=server.transport) as client:
        client.predict("m", {"amount": [1.0], "country": ["US"]})
    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {KEY}"}
    assert len(server.requests) == 2

    async def ask() -> None:
        async with AsyncClient("http://x", transport=server.transport) as client:
            await client.models()

    asyncio.run(ask())
    assert "authorization" not in server.requests[-1].headers


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_API_KEY", f"{KEY}\n")
    assert with_key({"x": "y"}, None) == {"x": "y", "authorization": f"Bearer {KEY}"}
    assert with_key(None, "other") == {"authorization": "Bearer other"}
    assert with_key({"Authorization": "Basic eA=="}, None) == {"Authorization": "Basic eA=="}


@pytest.mark.parametrize("key", ["a b", "schlüssel", "a\r\nx: y", "\x00"])
def test_what_no_header_can_hold_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(errors.BadSettings, match="api_key is no API key") as caught:
        with_key(None, key)
    assert key not in caught.value.message


@pytest.mark.parametrize(("status", "kind"), [(401, errors.Unauthorized), (403, errors.Forbidden)])
def test_refusals_are_typed_and_not_retried(
    fake_server: Any, refusing: Any, status: int, kind: type[errors.HeadraceError]
) -> None:
    server = fake_server(refusing(status, times=99))
    with Client("http://x", api_key=KEY, transport=server.transport) as client, pytest.raises(kind) as caught:
        client.predict("m", {"amount": [1.0], "country": ["US"]})
    assert type(caught.value) is kind
    assert [request.method for request in server.requests] == ["GET", "POST"]
