"""Keys in the database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
import sqlalchemy as sa

from headrace.core import errors
from headrace.core.keys import KeyRecord, Scope
from headrace.store.state import State
from headrace.store.tables import API_KEYS

ADMIN = KeyRecord("aaaaaaaaaaaa", "root", (Scope.ADMIN,), (), b"\x00" * 31 + b"\x01", 1.5, "ada")
CI = KeyRecord(
    "bbbbbbbbbbbb", "ci", (Scope.PREDICT, Scope.METRICS), ("fraud", "a/*"), bytes(range(32)), 2.5, "bob", 9.5
)


def add(state: State, *records: KeyRecord) -> None:
    with state.writing() as transaction:
        transaction.keys.begin_change("check")
        for record in records:
            transaction.keys.add(record)


def test_an_empty_state_has_version_0_and_no_keys(state: State) -> None:
    with state.reading() as transaction:
        assert (transaction.keys.version(), transaction.keys.secret_check(), transaction.keys.all()) == (0, None, [])


def test_what_is_put_in_comes_out(state: State) -> None:
    add(state, CI, ADMIN)
    with state.reading() as transaction:
        assert transaction.keys.all() == [ADMIN, CI]


def test_pages_together_are_everything(state: State) -> None:
    """Some were made in the same moment."""
    made = [
        msgspec.structs.replace(ADMIN, id=letter * 12, created=float(n // 3)) for n, letter in enumerate("hgfedcba")
    ]
    add(state, *made)
    with state.reading() as transaction:
        everything = transaction.keys.all()
        for size in (1, 2, 3, 8, 9):
            found: list[KeyRecord] = []
            while page := transaction.keys.page(size, found[-1].id if found else None):
                found += page
            assert found == everything
        assert transaction.keys.page(5, "no-such-key") == []


def test_changes_wait_for_each_other(state: State) -> None:
    add(state, ADMIN)

    def change(_: int) -> int:
        with state.writing() as transaction:
            transaction.keys.lock()
            before = transaction.keys.version()
            transaction.keys.begin_change("check")
            return transaction.keys.version() - before

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(change, range(8))) == [1] * 8


def test_every_change_makes_a_version_and_the_first_secret_stays(state: State) -> None:
    for expected in (1, 2, 3):
        with state.writing() as transaction:
            assert transaction.keys.begin_change(f"check {expected}") == "check 1"
            assert transaction.keys.version() == expected


def test_a_key_ends_and_nothing_else_changes(state: State) -> None:
    add(state, CI, ADMIN)
    with state.writing() as transaction:
        transaction.keys.end(CI.id, expires=9.5, revoked=3.5)
    with state.reading() as transaction:
        assert transaction.keys.all() == [ADMIN, msgspec.structs.replace(CI, revoked=3.5)]


def test_an_id_is_given_once(state: State) -> None:
    add(state, CI)
    with pytest.raises(errors.StoreFailed):
        add(state, msgspec.structs.replace(ADMIN, id=CI.id))


def test_a_change_that_fails_makes_no_version(state: State) -> None:
    add(state, CI)

    def fail() -> None:
        with state.writing() as transaction:
            transaction.keys.begin_change("check")
            transaction.keys.add(ADMIN)
            raise KeyError("in the middle")

    with pytest.raises(KeyError):
        fail()
    with state.reading() as transaction:
        assert (transaction.keys.version(), transaction.keys.all()) == (1, [CI])


def test_changes_at_once_take_turns(state: State) -> None:
    def change(number: int) -> int:
        with state.writing() as transaction:
            transaction.keys.begin_change("check")
            seen = len(transaction.keys.all())
            transaction.keys.add(msgspec.structs.replace(CI, id=f"k{number}"))
            return seen

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(change, range(8))) == list(range(8))
    with state.reading() as transaction:
        assert transaction.keys.version() == 8


def test_only_the_digest_is_in_the_database(state: State) -> None:
    add(state, CI)
    with state.reading() as transaction:
        row = transaction.keys._connection.execute(sa.select(API_KEYS)).mappings().one()
    assert row["digest"] == bytes(range(32)).hex()
    assert set(row) == {c.name for c in API_KEYS.c}
