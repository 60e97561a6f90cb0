"""A controller that follows a state: from nothing to keys, through times in which they cannot be read."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from headrace.app.keys import following as key_following
from headrace.app.keys.following import KeyFollower
from headrace.app.keys.key_state import open_issuer
from headrace.app.state.location import Location
from headrace.core.keys import NO_KEYS, KeySet
from tests.fakes import until
from tests.gateways import QuietLog


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_following, "_EVERY_S", 0.005)


def follow(tmp_path: Path, test: Any, *, wants_follower: bool = False) -> None:
    async def scenario() -> None:
        taken: list[KeySet] = []
        logged: list[str] = []
        location = Location(tmp_path, None, "")
        follower = KeyFollower(location, taken.append, QuietLog(logged))
        task = asyncio.create_task(follower.run())
        try:
            await asyncio.wait_for(test(location, taken, logged, *[follower] * wants_follower), 30.0)
            assert not task.done()
        finally:
            task.cancel()

    asyncio.run(scenario())


def test_there_are_no_keys_until_there_are(tmp_path: Path) -> None:
    async def test(location: Location, taken: list[KeySet], logged: list[str]) -> None:
        await until(lambda: taken)
        with open_issuer(location, {}) as issuer:
            issuer.bootstrap("admin", None)
            await until(lambda: taken[-1].required)
            issuer.revoke("admin")
        await until(lambda: taken[-1].keys and taken[-1].keys[0].revoked is not None)
        assert taken[0] == NO_KEYS
        assert taken[-1].required
        assert logged == []

    follow(tmp_path, test)


def test_what_cannot_be_read_is_said_once_and_tried_again(tmp_path: Path) -> None:
    with open_issuer(Location(tmp_path, None, ""), {}) as issuer:
        issuer.bootstrap("admin", None)
    secret = tmp_path / "key.secret"

    async def test(location: Location, taken: list[KeySet], logged: list[str]) -> None:
        await until(lambda: logged)
        looks = 0

        def looked() -> bool:
            nonlocal looks
            looks += 1
            return looks > 20

        await until(looked)
        assert len(logged) == 1
        assert taken == []
        secret.chmod(0o600)
        await until(lambda: taken)
        assert taken[0].required

    secret.chmod(0o644)
    follow(tmp_path, test)


def test_who_asks_for_a_look_has_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_following, "_EVERY_S", 3600.0)

    async def test(location: Location, taken: list[KeySet], logged: list[str], follower: KeyFollower) -> None:
        await until(lambda: taken)
        with open_issuer(location, {}) as issuer:
            issuer.bootstrap("admin", None)
            await follower.look()
            assert [record.name for record in taken[-1].keys] == ["admin"]
            issuer.revoke("admin")
        await asyncio.gather(follower.look(), follower.look())
        assert taken[-1].keys[0].revoked is not None

    follow(tmp_path, test, wants_follower=True)


def test_a_look_at_what_cannot_be_read_ends_too(tmp_path: Path) -> None:
    with open_issuer(Location(tmp_path, None, ""), {}) as issuer:
        issuer.bootstrap("admin", None)
    (tmp_path / "key.secret").chmod(0o644)

    async def test(location: Location, taken: list[KeySet], logged: list[str], follower: KeyFollower) -> None:
        await follower.look()
        assert taken == []
        assert len(logged) == 1

    follow(tmp_path, test, wants_follower=True)
