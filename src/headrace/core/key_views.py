"""API keys as people and programs see them: everything but what proves them."""

from __future__ import annotations

from typing import Any, Self

import msgspec

from headrace.core.keys import KeyRecord, KeyState, Scope
from headrace.core.versions import Event


class KeyView(msgspec.Struct, frozen=True):
    """A key without its digest. Times are seconds since 1970 (UTC)."""

    id: str
    name: str
    state: KeyState
    scopes: tuple[Scope, ...]
    endpoints: tuple[str, ...]
    """Patterns of what ``predict`` is for."""
    created: float
    who: str
    """Who made it."""
    expires: float | None
    revoked: float | None

    @classmethod
    def of(cls, record: KeyRecord, now: float, **more: Any) -> Self:
        """``more``: members of a class below."""
        shown = {name: getattr(record, name) for name in KeyView.__struct_fields__ if name != "state"}
        return cls(**shown, **more, state=record.state(now))


class IssuedKey(KeyView, frozen=True, kw_only=True):
    """A new key with its secret, which nobody can show again."""

    key: str
    """What its user sends."""
    before: KeyView | None = None
    """Of a rotation: the key that it follows, with the end that it has now."""

    def __repr__(self) -> str:
        # The secret must not end up in a log.
        return f"IssuedKey(id={self.id!r}, name={self.name!r})"


class KeyStory(msgspec.Struct, frozen=True):
    """Keys of a name, or one, oldest first, and what happened to the keys of that name."""

    keys: tuple[KeyView, ...]
    events: tuple[Event, ...]
