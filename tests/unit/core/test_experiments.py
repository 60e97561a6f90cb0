"""Tallies of outcomes: they equal what is computed from all values, whatever was corrected on the way."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.experiments import HourTally, Tally, pooled, totals

numbers = st.floats(-1e6, 1e6, allow_nan=False)


def tally(values: list[float]) -> Tally:
    made = Tally()
    for value in values:
        made.add(value)
    return made


def agrees(found: Tally, values: list[float]) -> None:
    assert found.outcomes == len(values)
    assert found.others == sum(value not in (0.0, 1.0) for value in values)
    if values:
        assert found.mean == pytest.approx(statistics.fmean(values), rel=1e-9, abs=1e-6)
    if len(values) > 1:
        assert found.variance == pytest.approx(statistics.variance(values), rel=1e-6, abs=1e-3)


@given(st.lists(numbers, max_size=30), st.lists(numbers, max_size=30))
def test_what_was_taken_out_leaves_no_trace(kept: list[float], removed: list[float]) -> None:
    found = tally(kept + removed)
    for value in removed:
        found.remove(value)
    agrees(found, kept)


@given(st.lists(st.lists(numbers, max_size=20), max_size=5))
def test_parts_pool_to_the_whole(parts: list[list[float]]) -> None:
    agrees(pooled([tally(part) for part in parts]), [value for part in parts for value in part])


def test_large_values_keep_their_spread() -> None:
    assert tally([1e9 + 1, 1e9 - 1]).variance == pytest.approx(2.0)


def test_totals_are_by_arm_and_in_order() -> None:
    one, two = HourTally(arm="b", hour=1, requests=3, expected=2.5), HourTally(arm="b", hour=2, requests=4, expected=5)
    one.add(1.0)
    two.add(0.0)
    first, second = totals(("a", "b"), [one, two])
    assert (first.arm, first.requests, first.tally.outcomes) == ("a", 0, 0)
    assert (second.requests, second.expected, second.tally.mean) == (7, 7.5, 0.5)
    assert math.isfinite(first.tally.variance)
