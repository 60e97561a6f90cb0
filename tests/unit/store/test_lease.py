"""The lease and its fencing token, with a clock of the test."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from headrace.core import errors
from headrace.store import lease
from headrace.store.database import Database
from headrace.store.lease import Lease
from headrace.store.tables import MODELS


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def take(database: Database, holder: str, clock: Clock) -> Lease:
    return lease.acquire(database, "controller", holder, ttl_s=10.0, clock=clock)


def write(database: Database, name: str) -> None:
    with database.writing() as connection:
        connection.execute(sa.insert(MODELS), {"name": name, "last_version": 0})


def test_one_holder_at_a_time(database: Database, clock: Clock) -> None:
    take(database, "a.example", clock)
    clock.now += 9.0
    with pytest.raises(errors.StateInUse, match=r"a\.example controls this database for another 1 s"):
        take(database, "b.example", clock)


def test_renewing_extends(database: Database, clock: Clock) -> None:
    held = take(database, "a", clock)
    clock.now += 9.0
    held.renew()
    clock.now += 9.0
    with pytest.raises(errors.StateInUse):
        take(database, "b", clock)


def test_tokens_only_grow(database: Database, clock: Clock) -> None:
    tokens = []
    for holder in ("a", "b", "a"):
        held = take(database, holder, clock)
        tokens.append(held.token)
        held.release()
    clock.now += 11.0
    tokens.append(take(database, "c", clock).token)
    assert tokens == [1, 2, 3, 4]


def test_a_holder_that_was_paused_cannot_write_over_its_successor(database: Database, clock: Clock) -> None:
    paused = take(database, "a", clock)
    write(paused.database, "before")
    clock.now += 11.0
    successor = take(database, "b", clock)
    with pytest.raises(errors.LeaseLost, match="a lost the lease 'controller'"):
        write(paused.database, "late")
    for act in (paused.renew, paused.release):
        with pytest.raises(errors.LeaseLost):
            act()
    write(successor.database, "after")
    with database.reading() as connection:
        assert sorted(connection.scalars(sa.select(MODELS.c.name))) == ["after", "before"]


def test_an_expired_lease_that_nobody_took_can_be_renewed(database: Database, clock: Clock) -> None:
    held = take(database, "a", clock)
    clock.now += 60.0
    held.renew()
    write(held.database, "still mine")
