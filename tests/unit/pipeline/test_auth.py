"""The guard: checked from memory, remembered only while it is true."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from headrace.core import errors, keys
from headrace.core.keys import ANYBODY, KeyRecord, KeySet, Scope, Signatures
from headrace.pipeline import auth
from headrace.pipeline.auth import Guard

SECRET = b"s" * 32
ID, TOKEN = keys.make_token(bytes(range(40)))
BEARER = {b"authorization": f"Bearer {TOKEN}".encode()}
SIGNED = {b"authorization": f"AWS4-HMAC-SHA256 Credential={ID}/20260101/r/s/aws4_request, Signature=0".encode()}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def key_set(
    version: int = 1, *, required: bool = True, expires: float | None = None, revoked: float | None = None
) -> KeySet:
    digest = keys.digest(SECRET, TOKEN.encode())
    record = KeyRecord(ID, "ci", (Scope.ADMIN,), (), digest, 0.0, "ada", expires, revoked)
    return KeySet(version, required, SECRET, (record,))


def test_everybody_is_let_in_until_keys_are_followed() -> None:
    assert Guard().identify({}) is ANYBODY
    guard = Guard()
    guard.follow(key_set(required=False))
    assert guard.identify({}) is ANYBODY
    assert not guard.asks
    guard.follow(key_set(2))
    assert guard.asks


def test_a_closed_guard_lets_nobody_in_until_it_knows_the_keys() -> None:
    guard = Guard(closed=True)
    with pytest.raises(errors.NotReady, match="keys have not been read"):
        guard.identify(BEARER)
    guard.follow(key_set())
    assert guard.identify(BEARER).name == "ci"


def test_keys_are_asked_for() -> None:
    guard = Guard()
    guard.follow(key_set())
    with pytest.raises(errors.Unauthorized, match="an API key is needed"):
        guard.identify({b"host": b"x"})
    assert (guard.identify(BEARER).name, guard.identify(BEARER).key) == ("ci", ID)


def test_a_remembered_key_ends_with_its_time_and_with_its_revocation() -> None:
    clock = Clock()
    guard = Guard(clock=clock)
    guard.follow(key_set(expires=10.0))
    first = guard.identify(BEARER)
    assert guard.identify(dict(BEARER)) is first
    clock.now = 10.0
    with pytest.raises(errors.Unauthorized, match="expired"):
        guard.identify(BEARER)
    clock.now = 0.0
    assert guard.identify(BEARER).name == "ci"
    guard.follow(key_set(2, revoked=0.0))
    with pytest.raises(errors.Unauthorized, match="revoked"):
        guard.identify(BEARER)


def test_what_is_remembered_is_bounded_and_holds_no_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "_REMEMBERED", 3)
    guard = Guard()
    guard.follow(key_set())

    def headers(number: int) -> Mapping[bytes, bytes]:
        return {b"x-api-key": TOKEN.encode(), b"authorization": b"Bearer %d" % number}

    sizes = []
    for number in range(10):
        guard.identify(headers(number))
        with pytest.raises(errors.Unauthorized):
            guard.identify({b"x-api-key": b"%d" % number})
        sizes.append(len(guard._known))
    assert max(sizes) == 3


def test_signatures_are_refused_unless_accepted_unverified() -> None:
    guard = Guard()
    guard.follow(key_set())
    with pytest.raises(errors.Unauthorized, match="sigv4: accept-unverified"):
        guard.identify(SIGNED)
    trusting = Guard(Signatures.ACCEPT_UNVERIFIED)
    trusting.follow(key_set())
    holder = trusting.identify(SIGNED)
    holder.check_predict("fraud")
    with pytest.raises(errors.Forbidden):
        holder.check(Scope.MANAGE)
    trusting.follow(key_set(2, revoked=0.0))
    with pytest.raises(errors.Unauthorized, match="revoked"):
        trusting.identify(SIGNED)
