"""What the commands of keys ask for: of a server, as ``client.keys``, or of the state itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from headrace.core.key_views import IssuedKey, KeyStory, KeyView


class KeysService(Protocol):
    """Blocking. ``key`` is a name or an id; both places give the same answers and raise the same errors."""

    def list(self) -> list[KeyView]: ...
    def show(self, key: str) -> KeyStory: ...
    def create(
        self, name: str, scopes: Iterable[str], endpoints: Sequence[str] = (), *, expires_in_s: float | None = None
    ) -> IssuedKey: ...
    def rotate(self, name: str, *, grace_s: float, expires_in_s: float | None = None, why: str = "") -> IssuedKey: ...
    def revoke(self, key: str, *, why: str = "") -> Sequence[KeyView]: ...
