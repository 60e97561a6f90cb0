"""The commands of keys on a state that this process opens. No ownership is needed: ``control/key_issuer.py``."""

from __future__ import annotations

import builtins
import time
from collections.abc import Iterable, Sequence

from headrace.control.key_issuer import KeyIssuer
from headrace.core.key_views import IssuedKey, KeyStory, KeyView
from headrace.core.keys import KeyRecord, Scope


class DirectKeys:
    """Implements KeysService."""

    def __init__(self, issuer: KeyIssuer) -> None:
        self._issuer = issuer

    def list(self) -> builtins.list[KeyView]:
        return _views(self._issuer.all())

    def show(self, key: str) -> KeyStory:
        return self._issuer.story(key)

    def create(
        self, name: str, scopes: Iterable[str], endpoints: Sequence[str] = (), *, expires_in_s: float | None = None
    ) -> IssuedKey:
        issued = self._issuer.create(name, [Scope(text) for text in scopes], endpoints, moment(expires_in_s))
        return issued.view(time.time())

    def rotate(self, name: str, *, grace_s: float, expires_in_s: float | None = None, why: str = "") -> IssuedKey:
        return self._issuer.rotate(name, grace_s, moment(expires_in_s), why).view(time.time())

    def revoke(self, key: str, *, why: str = "") -> builtins.list[KeyView]:
        return _views(self._issuer.revoke(key, why))


def moment(seconds: float | None) -> float | None:
    """So many seconds from now; None stays what it is."""
    return None if seconds is None else time.time() + seconds


def _views(records: Iterable[KeyRecord]) -> list[KeyView]:
    now = time.time()
    return [KeyView.of(record, now) for record in records]
