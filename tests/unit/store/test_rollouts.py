"""Rollouts in the state: one under way per endpoint, all others for reading."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
import sqlalchemy as sa

from headrace.control.rollout_story import Rollout
from headrace.core import errors
from headrace.store import tables
from headrace.store.state import State
from tests import rollouts

replace = msgspec.structs.replace


class Kept(msgspec.Struct, frozen=True):
    id: str
    endpoint: str = "fraud"
    started_at: float = 1.0
    ended: bool = False
    story: tuple[str, ...] = ("it began",)


def put(state: State, *rollouts: Kept) -> None:
    for rollout in rollouts:
        with state.writing() as transaction:
            transaction.rollouts.put(rollout)


def test_a_rollout_comes_back_as_it_was_put_last(state: State) -> None:
    first = Kept("a")
    put(state, first)
    with state.reading() as transaction:
        assert transaction.rollouts.get("a", Kept) == first
        assert transaction.rollouts.get("b", Kept) is None
    ended = replace(first, ended=True, story=("it began", "it ended — ü"))
    put(state, ended)
    with state.reading() as transaction:
        assert transaction.rollouts.get("a", Kept) == ended
        assert transaction.rollouts.active(Kept) == []


def test_what_a_controller_goes_on_with_comes_back_whole(state: State) -> None:
    judged = rollouts.judged()
    with state.writing() as transaction:
        transaction.rollouts.put(judged)
    with state.reading() as transaction:
        assert transaction.rollouts.active(Rollout) == [judged]


def test_an_endpoint_has_one_rollout_under_way(state: State) -> None:
    put(state, Kept("a"), Kept("o", "other"))
    with pytest.raises(errors.Conflict, match=r"'fraud': rollout a is under way already; wait .* abort it"):
        put(state, Kept("b"))
    put(state, replace(Kept("a"), story=()))
    put(state, Kept("old", started_at=0.5, ended=True))
    with state.reading() as transaction:
        assert [r.id for r in transaction.rollouts.active(Kept)] == ["a", "o"]
    put(state, Kept("a", ended=True), Kept("b"))
    with state.reading() as transaction:
        assert [r.id for r in transaction.rollouts.active(Kept)] == ["b", "o"]


def test_of_many_that_start_at_once_one_does(state: State) -> None:
    start = threading.Barrier(6)

    def begin(number: int) -> bool:
        start.wait(30)
        try:
            put(state, Kept(f"r{number}"))
        except errors.Conflict:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        won = list(pool.map(begin, range(6)))
    assert won.count(True) == 1
    with state.reading() as transaction:
        assert [r.id for r in transaction.rollouts.all(9, Kept)] == [f"r{won.index(True)}"]


def test_the_database_itself_refuses_a_second_one(state: State) -> None:
    row = {"endpoint": "fraud", "started_at": 1.0, "rollout": "{}"}
    both = [{"id": id, "ended": False, **row} for id in ("a", "b")]
    with pytest.raises(errors.StoreFailed, match=r"(?i)unique"), state.database.writing() as connection:
        connection.execute(sa.insert(tables.ROLLOUTS), both)


def test_the_newest_come_first(state: State) -> None:
    put(state, *(Kept(f"r{n}", "fraud" if n % 2 else "churn", float(n), True) for n in (3, 1, 2, 4, 5)))
    with state.reading() as transaction:
        assert [r.id for r in transaction.rollouts.all(3, Kept)] == ["r5", "r4", "r3"]
        assert [r.id for r in transaction.rollouts.of("fraud", 9, Kept)] == ["r5", "r3", "r1"]
        assert [r.id for r in transaction.rollouts.of("fraud", 1, Kept)] == ["r5"]
        assert transaction.rollouts.of("nobody", 9, Kept) == []


def test_a_rollout_shares_the_fate_of_its_transaction(state: State) -> None:
    def fail() -> None:
        with state.writing() as transaction:
            transaction.rollouts.put(Kept("a"))
            raise KeyError("in the middle")

    with pytest.raises(KeyError):
        fail()
    with state.reading() as transaction:
        assert transaction.rollouts.all(9, Kept) == []
