"""The circuit breaker by its table, and that a deployment which keeps failing is left alone and asked again."""

from __future__ import annotations

import itertools

import pytest

from headrace.core import errors
from headrace.pipeline import breaker
from headrace.pipeline.breaker import COOL_DOWN_S, ENOUGH, WINDOW, Breaker, BreakerState

LEGAL = {("closed", "open"), ("open", "half_open"), ("half_open", "closed"), ("half_open", "open")}


@pytest.mark.parametrize(("current", "to"), list(itertools.product(BreakerState, BreakerState)))
def test_only_the_moves_of_the_table_are_made(current: BreakerState, to: BreakerState) -> None:
    if (current.value, to.value) in LEGAL:
        assert breaker.move(current, to) is to
    else:
        with pytest.raises(errors.Bug, match="cannot move"):
            breaker.move(current, to)


def opened(now: float = 100.0) -> Breaker:
    made = Breaker()
    for _ in range(ENOUGH):
        assert made.enter(now)
        made.failed(now)
    assert made.state is BreakerState.OPEN
    return made


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ("x" * (ENOUGH - 1), BreakerState.CLOSED),
        ("x" * ENOUGH, BreakerState.OPEN),
        ("ox" * (ENOUGH // 2), BreakerState.OPEN),
        ("oox" * WINDOW, BreakerState.CLOSED),
        ("o" * 1000 + "x" * (WINDOW // 2 - 1), BreakerState.CLOSED),
        ("o" * 1000 + "x" * (WINDOW // 2), BreakerState.OPEN),
    ],
)
def test_it_opens_when_half_of_the_last_outcomes_are_failures(outcomes: str, state: BreakerState) -> None:
    made = Breaker()
    for outcome in outcomes:
        assert made.enter(0.0)
        made.succeeded() if outcome == "o" else made.failed(0.0)
    assert made.state is state


def test_one_request_at_a_time_finds_out_whether_it_is_over() -> None:
    made = opened(100.0)
    assert not made.enter(100.0 + COOL_DOWN_S - 0.001)
    assert made.enter(100.0 + COOL_DOWN_S)
    assert not made.enter(100.0 + COOL_DOWN_S), "the first one is not back yet"
    made.left()
    assert made.enter(100.0 + COOL_DOWN_S), "it left without a verdict: the next one may ask"
    made.failed(200.0)
    assert not made.enter(200.0 + COOL_DOWN_S - 0.001)
    assert made.enter(200.0 + COOL_DOWN_S)
    made.succeeded()
    assert made.state is BreakerState.CLOSED
    assert made.enter(300.0)
    made.failed(300.0)
    assert made.state is BreakerState.CLOSED, "what was before is forgotten"


def test_those_who_began_before_it_opened_change_nothing() -> None:
    made = opened(100.0)
    made.succeeded()
    made.failed(104.0)
    made.left()
    assert made.state is BreakerState.OPEN
    assert made.enter(100.0 + COOL_DOWN_S)
