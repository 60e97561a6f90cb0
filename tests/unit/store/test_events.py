"""The log of changes."""

from __future__ import annotations

import pytest

from headrace.core.versions import Event
from headrace.store.state import State

MOVED = Event(2.0, "bob", "alias.move", "fraud", {"champion": 1}, {"champion": 2}, "better recall")
PUSHED = Event(1.0, "ada", "version.push", "fraud")


def test_events_come_back_in_order(state: State) -> None:
    with state.writing() as transaction:
        for event in (PUSHED, MOVED, Event(3.0, "ada", "version.push", "churn")):
            transaction.events.add(event)
    with state.reading() as transaction:
        assert transaction.events.of("fraud") == [PUSHED, MOVED]
        assert transaction.events.of("nothing") == []
        assert [event.at for event in transaction.events.latest(2)] == [3.0, 2.0]
        assert transaction.events.latest(10, "fraud") == [MOVED, PUSHED]


def test_an_event_goes_with_the_change_that_failed(state: State) -> None:
    def fail() -> None:
        with state.writing() as transaction:
            transaction.events.add(PUSHED)
            raise KeyError("later")

    with pytest.raises(KeyError):
        fail()
    with state.reading() as transaction:
        assert transaction.events.of("fraud") == []


def test_pages_go_back_in_time(state: State) -> None:
    with state.writing() as transaction:
        for number in range(5):
            transaction.events.add(Event(float(number), "ada", "version.push", "fraud" if number % 2 else "churn"))
    with state.reading() as transaction:
        first = transaction.events.page(2)
        assert [event.at for _, event in first] == [4.0, 3.0]
        assert [event.at for _, event in transaction.events.page(9, before=first[-1][0])] == [2.0, 1.0, 0.0]
        assert [event.at for _, event in transaction.events.page(9, subject="fraud")] == [3.0, 1.0]
