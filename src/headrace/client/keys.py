"""The API keys of a server: ``client.keys``. They take a client with an admin key; the first one is made on the machine
of the state: ``headrace keys bootstrap``."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Sequence
from urllib.parse import quote

import msgspec

from headrace.client.management import Management
from headrace.client.running import Run
from headrace.core.key_views import IssuedKey, KeyStory, KeyView

_DAY_S = 86_400.0


class _Page(msgspec.Struct):
    keys: list[KeyView]
    next_cursor: str | None


class _Revoked(msgspec.Struct):
    keys: list[KeyView]


class AsyncKeys:
    """A new key is in the answer that brings it, and nowhere else: one whose answer was lost raises SecretShownOnce,
    which names it. ``expires_in_s`` counts from now, in seconds."""

    def __init__(self, management: Management) -> None:
        self._management = management

    async def list(self) -> builtins.list[KeyView]:
        """Every key that ever was, oldest first; never the secrets."""
        found: builtins.list[KeyView] = []
        cursor: str | None = None
        while True:
            answer = await self._management.get("/keys", {"limit": 1000, "cursor": cursor})
            page = msgspec.json.decode(answer.content, type=_Page)
            found += page.keys
            cursor = page.next_cursor
            if cursor is None:
                return found

    async def show(self, key: str) -> KeyStory:
        """The keys of a name, or one by its id, with what happened to them. Raises UnknownKey."""
        answer = await self._management.get(_path(key))
        return msgspec.json.decode(answer.content, type=KeyStory)

    async def create(
        self, name: str, scopes: Iterable[str], endpoints: Sequence[str] = (), *, expires_in_s: float | None = None
    ) -> IssuedKey:
        """``scopes``: predict (with the patterns of ``endpoints``), metrics, manage, admin. Raises Conflict when a live
        key has this name, BadSettings when scopes and endpoints do not go together."""
        body = {
            "name": name,
            "scopes": builtins.list(scopes),
            "endpoints": builtins.list(endpoints),
            "expires_in_s": expires_in_s,
        }
        answer = await self._management.post("/keys", body)
        return msgspec.json.decode(answer.content, type=IssuedKey)

    async def rotate(
        self, name: str, *, grace_s: float = _DAY_S, expires_in_s: float | None = None, why: str = ""
    ) -> IssuedKey:
        """A second live key of this name, whose rights it has; the first one ends after ``grace_s`` seconds. Without
        ``expires_in_s`` it lives as long as the first one was to. Raises UnknownKey, and Conflict when there are two
        already."""
        body = {"grace_s": grace_s, "expires_in_s": expires_in_s, "why": why}
        answer = await self._management.post(f"{_path(name)}/rotate", body)
        return msgspec.json.decode(answer.content, type=IssuedKey)

    async def revoke(self, key: str, *, why: str = "") -> builtins.list[KeyView]:
        """End a key by its id, or every live key of a name, now and for good. Raises UnknownKey."""
        answer = await self._management.post(f"{_path(key)}/revoke", {"why": why})
        return msgspec.json.decode(answer.content, type=_Revoked).keys


class Keys:
    """The same for the synchronous client; see ``AsyncKeys``."""

    def __init__(self, keys: AsyncKeys, run: Run) -> None:
        self._async = keys
        self._run = run

    def list(self) -> builtins.list[KeyView]:
        return self._run(self._async.list())

    def show(self, key: str) -> KeyStory:
        return self._run(self._async.show(key))

    def create(
        self, name: str, scopes: Iterable[str], endpoints: Sequence[str] = (), *, expires_in_s: float | None = None
    ) -> IssuedKey:
        return self._run(self._async.create(name, scopes, endpoints, expires_in_s=expires_in_s))

    def rotate(
        self, name: str, *, grace_s: float = _DAY_S, expires_in_s: float | None = None, why: str = ""
    ) -> IssuedKey:
        return self._run(self._async.rotate(name, grace_s=grace_s, expires_in_s=expires_in_s, why=why))

    def revoke(self, key: str, *, why: str = "") -> builtins.list[KeyView]:
        return self._run(self._async.revoke(key, why=why))


def _path(key: str) -> str:
    return f"/keys/{quote(key, safe='')}"
