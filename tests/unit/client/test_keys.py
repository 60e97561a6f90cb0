"""``client.keys`` against a real server of a real state."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import headrace
from headrace.app.keys.key_state import open_issuer
from headrace.app.state.location import Location
from headrace.client.keys import AsyncKeys
from headrace.client.management import Management
from headrace.core import errors
from headrace.core.keys import KeyState, Scope
from tests import key_server


@pytest.fixture
def admin(tmp_path: Path) -> str:
    with open_issuer(Location(tmp_path / "state", None, ""), {}) as issuer:
        return issuer.bootstrap("root", None).token


@pytest.fixture
def url(admin: str, tmp_path: Path) -> Iterator[str]:
    with key_server.serving(Location(tmp_path / "state", None, ""), tmp_path) as found:
        yield found


@pytest.fixture
def client(url: str, admin: str) -> Iterator[headrace.Client]:
    with headrace.Client(management_url=url, api_key=admin) as made:
        yield made


def test_a_key_from_its_beginning_to_its_end(client: headrace.Client, url: str) -> None:
    made = client.keys.create("ci", ["predict", "manage"], ["fraud"], expires_in_s=1000)
    assert (made.name, made.state, made.scopes, made.endpoints, made.who) == (
        "ci",
        KeyState.LIVE,
        (Scope.PREDICT, Scope.MANAGE),
        ("fraud",),
        "key:root",
    )
    assert made.key not in repr(made)
    with headrace.Client(management_url=url, api_key=made.key) as other:
        assert other.endpoints.list() == []
        with pytest.raises(errors.Forbidden, match="takes the scope admin"):
            other.keys.list()
    with pytest.raises(errors.Conflict, match="a live key 'ci'"):
        client.keys.create("ci", ["metrics"])
    rotated = client.keys.rotate("ci", grace_s=60, why="monthly")
    assert rotated.before is not None
    assert rotated.before.id == made.id
    assert [key.id for key in client.keys.list()][1:] == [made.id, rotated.id]
    story = client.keys.show("ci")
    assert [key.id for key in story.keys] == [made.id, rotated.id]
    assert [event.why for event in story.events] == ["", "monthly"]
    assert [key.id for key in client.keys.revoke(made.id, why="lost")] == [made.id]
    assert client.keys.show(made.id).keys[0].state is KeyState.REVOKED
    with pytest.raises(errors.UnknownKey, match="no key to revoke"):
        client.keys.revoke(made.id)
    with pytest.raises(errors.UnknownKey):
        client.keys.show("nobody")


def test_a_secret_whose_answer_was_lost_is_named_and_not_made_twice(url: str, admin: str) -> None:
    class Losing(httpx.AsyncHTTPTransport):
        """The first answer to each POST is lost."""

        def __init__(self) -> None:
            super().__init__()
            self.seen: set[str] = set()

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await super().handle_async_request(request)
            key = request.headers.get("idempotency-key", "")
            if key and key not in self.seen:
                self.seen.add(key)
                raise httpx.ReadError("gone")
            return response

    async def no_time(_: float) -> None:
        return

    async def main() -> None:
        management = Management(url, api_key=admin, transport=Losing(), sleep=no_time)
        keys = AsyncKeys(management)
        with pytest.raises(errors.SecretShownOnce) as raised:
            await keys.create("ci", ["metrics"])
        [made] = (await keys.show("ci")).keys
        assert made.id in raised.value.message
        assert [key.id for key in await keys.revoke(made.id)] == [made.id], "an answer without a secret comes again"
        await management.close()

    asyncio.run(main())
