"""Making and ending keys, on a real database: what is refused, and what is noted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from headrace.control.key_issuer import Issued, KeyIssuer, read_set
from headrace.core import errors
from headrace.core.keys import KeyRing, KeyState, Scope
from headrace.store.database import Database, open_database
from headrace.store.state import State

SECRET = b"s" * 64
Make = Callable[..., KeyIssuer]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(url: str) -> Iterator[State]:
    database: Database = open_database(url)
    yield State(database)
    database.close()


@pytest.fixture
def issuer(state: State, clock: Clock) -> KeyIssuer:
    numbers = itertools.count(1)
    return KeyIssuer(state, lambda _: SECRET, clock, "ada", lambda size: (next(numbers) << 8).to_bytes(8) * (size // 8))


def ring(state: State) -> KeyRing:
    found = read_set(state, lambda: SECRET, None)
    assert found is not None
    return KeyRing(found)


def refused(state: State, issued: Issued, now: float) -> str:
    with pytest.raises(errors.Unauthorized) as caught:
        ring(state).check(issued.token.encode(), now)
    return caught.value.message


def test_the_first_key_may_do_everything_and_is_made_once(issuer: KeyIssuer, state: State) -> None:
    first = issuer.bootstrap("admin", None)
    assert ring(state).check(first.token.encode(), 0.0).scopes == frozenset(Scope)
    with pytest.raises(errors.Conflict, match="has keys already"):
        issuer.bootstrap("other", None)
    issuer.revoke("admin")
    with pytest.raises(errors.Conflict):
        issuer.bootstrap("other", None)


def test_of_two_who_make_the_first_key_one_does(state: State, clock: Clock) -> None:
    def attempt(number: int) -> bool:
        one = KeyIssuer(state, lambda _: SECRET, clock, "ada", lambda size: bytes([number]) * size)
        try:
            one.bootstrap("admin", None)
        except errors.Conflict:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(attempt, range(4))) == 1


def test_rotation_has_two_live_keys_until_the_grace_is_over(issuer: KeyIssuer, state: State, clock: Clock) -> None:
    old = issuer.create("ci", [Scope.PREDICT], ["fraud"], 1000.0 + 500.0)
    clock.now = 1100.0
    new = issuer.rotate("ci", 60.0)
    assert new.token != old.token
    assert new.record.expires == 1100.0 + 500.0
    for issued in (old, new):
        holder = ring(state).check(issued.token.encode(), 1159.0)
        assert holder.name == "ci"
        holder.check_predict("fraud")
    with pytest.raises(errors.Conflict, match=rf"two live keys .*keys revoke {old.record.id}"):
        issuer.rotate("ci", 60.0)
    assert "expired" in refused(state, old, 1160.0)
    assert ring(state).check(new.token.encode(), 1160.0).key == new.record.id
    clock.now = 1160.0
    issuer.rotate("ci", 0.0)
    assert "expired" in refused(state, new, 1160.0)


def test_rotation_does_not_lengthen_the_old_key(issuer: KeyIssuer, state: State, clock: Clock) -> None:
    old = issuer.create("ci", [Scope.METRICS], [], clock.now + 10.0)
    issuer.rotate("ci", 3600.0, clock.now + 99.0)
    assert "expired" in refused(state, old, clock.now + 10.0)


def test_a_rotation_says_how_the_key_before_ends(issuer: KeyIssuer, clock: Clock) -> None:
    old = issuer.create("ci", [Scope.METRICS], [], None)
    new = issuer.rotate("ci", 60.0)
    assert new.before is not None
    assert (new.before.id, new.before.expires) == (old.record.id, clock.now + 60.0)
    assert issuer.get(old.record.id) == [new.before]
    shown = new.view(clock.now + 60.0)
    assert (shown.key, shown.before and shown.before.state) == (new.token, KeyState.EXPIRED)


@pytest.mark.parametrize("lifetime", [None, 500.0])
def test_a_key_that_was_rotated_does_not_lose_what_it_was_made_for(
    issuer: KeyIssuer, clock: Clock, lifetime: float | None
) -> None:
    """The new one never arrived: it is ended, and the old one rotated again, whose end is that of its grace by now."""
    issuer.create("ci", [Scope.METRICS], [], None if lifetime is None else clock.now + lifetime)
    clock.now += 100.0
    lost = issuer.rotate("ci", 60.0)
    issuer.revoke(lost.record.id)
    clock.now += 10.0
    found = issuer.rotate("ci", 60.0)
    assert found.record.expires == (None if lifetime is None else clock.now + lifetime)


def test_steps_in_one_transaction_happen_together(issuer: KeyIssuer, state: State) -> None:
    issuer.bootstrap("admin", None)

    def half() -> None:
        with issuer.together() as (joined, _):
            made = joined.create("ci", [Scope.METRICS], [], None)
            assert joined.story("ci").keys[0].id == made.record.id
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    with pytest.raises(errors.UnknownKey):
        issuer.story("ci")
    with issuer.together() as (joined, _):
        joined.create("ci", [Scope.METRICS], [], None)
    story = issuer.story("ci")
    assert [(key.name, key.state) for key in story.keys] == [("ci", KeyState.LIVE)]
    assert [event.what for event in story.events] == ["key.create"]


def test_one_key_or_every_key_of_a_name_is_revoked(issuer: KeyIssuer, state: State, clock: Clock) -> None:
    old = issuer.create("ci", [Scope.METRICS], [], None)
    new = issuer.rotate("ci", 3600.0)
    assert [r.id for r in issuer.revoke(old.record.id)] == [old.record.id]
    assert "revoked" in refused(state, old, clock.now)
    assert ring(state).check(new.token.encode(), clock.now).name == "ci"
    newest = issuer.rotate("ci", 3600.0)
    assert {r.id for r in issuer.revoke("ci", "lost")} == {new.record.id, newest.record.id}
    with pytest.raises(errors.UnknownKey, match="no key to revoke 'ci'"):
        issuer.revoke("ci")
    again = issuer.create("ci", [Scope.METRICS], [], None)
    assert again.record.id not in {old.record.id, new.record.id, newest.record.id}


def test_changes_have_events_that_hold_no_key(issuer: KeyIssuer, state: State) -> None:
    tokens = [issuer.bootstrap("admin", None).token, issuer.create("ci", [Scope.PREDICT], ["a", "b*"], None).token]
    tokens.append(issuer.rotate("ci", 10.0, why="monthly").token)
    issuer.revoke("ci", "lost")
    happened = issuer.history("ci")
    assert [event.what for event in happened] == ["key.create", "key.rotate", "key.revoke", "key.revoke"]
    assert [event.why for event in happened] == ["", "monthly", "lost", "lost"]
    assert happened[0].after == {
        "id": issuer.get("ci")[0].id,
        "scopes": "predict",
        "endpoints": "a,b*",
        "expires": None,
    }
    assert issuer.history("admin")[0].what == "key.bootstrap"
    told = repr(happened) + repr(issuer.all()) + repr(issuer.history("admin"))
    assert not any(token in told or token.rpartition("_")[2] in told for token in tokens)


@pytest.mark.parametrize(
    ("scopes", "endpoints", "said"),
    [
        ([Scope.PREDICT], [], "says with what"),
        ([Scope.METRICS], ["fraud"], "--scope predict only"),
        ([Scope.PREDICT], ["a*b*"], "endpoint pattern"),
    ],
)
def test_scopes_and_endpoints_go_together(
    issuer: KeyIssuer, scopes: list[Scope], endpoints: list[str], said: str
) -> None:
    with pytest.raises(errors.BadSettings, match=said):
        issuer.create("ci", scopes, endpoints, None)
    assert issuer.all() == []


def test_names_are_of_one_live_key(issuer: KeyIssuer) -> None:
    issuer.create("ci", [Scope.METRICS], [], None)
    with pytest.raises(errors.Conflict, match="keys rotate ci"):
        issuer.create("ci", [Scope.METRICS], [], None)
    with pytest.raises(errors.UnknownKey, match="no live key 'cj'; there are ci"):
        issuer.rotate("cj", 1.0)
    with pytest.raises(errors.UnknownKey):
        issuer.get("cj")
    with pytest.raises(errors.BadSettings, match="before it was made"):
        issuer.create("ck", [Scope.METRICS], [], 1.0)


def test_another_secret_changes_nothing_and_lets_nobody_in(issuer: KeyIssuer, state: State, clock: Clock) -> None:
    issuer.bootstrap("admin", None)
    asked: list[bool] = []

    def other(first: bool) -> bytes:
        asked.append(first)
        return b"o" * 64

    stranger = KeyIssuer(state, other, clock, "bob", lambda size: b"9" * size)
    with pytest.raises(errors.BadSettings, match="another secret"):
        stranger.create("ci", [Scope.ADMIN], [], None)
    assert asked == [False]
    with pytest.raises(errors.BadSettings, match="another secret"):
        read_set(state, lambda: b"o" * 64, None)
    assert [(r.name, r.state(clock.now)) for r in issuer.all()] == [("admin", KeyState.LIVE)]


def test_a_set_is_read_when_it_has_changed(issuer: KeyIssuer, state: State) -> None:
    def no_secret() -> bytes:
        raise AssertionError("there are no keys")

    empty = read_set(state, no_secret, None)
    assert empty is not None
    assert (empty.version, empty.required, empty.keys) == (0, False, ())
    assert read_set(state, no_secret, 0) is None
    issuer.bootstrap("admin", None)
    found = read_set(state, lambda: SECRET, 0)
    assert found is not None
    assert (found.version, found.required, len(found.keys)) == (1, True, 1)
    assert read_set(state, lambda: SECRET, 1) is None
    # Revoked keys are keys: a server does not open when the last one ends.
    issuer.revoke("admin")
    after = read_set(state, lambda: SECRET, 1)
    assert after is not None
    assert after.required
