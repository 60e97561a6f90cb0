"""Comparing within hours: what the hour does to everybody is not put down to an arm."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.control.experiments import intervals
from headrace.control.experiments.strata import standardized
from headrace.core.experiments import HourTally, pooled


def hour(arm: str, number: int, count: int, mean: float, random: np.random.Generator, noise: float = 0.0) -> HourTally:
    tally = HourTally(arm=arm, hour=number)
    rewards = random.normal(mean, noise, count) if noise else random.random(count) < mean
    for reward in rewards:
        tally.add(float(reward))
    return tally


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_moving_shares_do_not_make_an_arm_better(noise: float) -> None:
    """Nine of ten requests go to ``b`` in the hour in which everybody is worth three times as much. 400 repetitions;
    three standard deviations are 3.3 %."""
    random = np.random.default_rng(5)
    held = fooled = 0
    for _ in range(400):
        hours = [
            *(hour("a", 1, 500, 0.1, random, noise), hour("b", 1, 500, 0.1, random, noise)),
            *(hour("a", 2, 100, 0.3, random, noise), hour("b", 2, 900, 0.3, random, noise)),
        ]
        found = intervals.fixed(*standardized("a", "b", hours), 0.95).absolute
        held += found.low <= 0 <= found.high
        plain = [pooled([h for h in hours if h.arm == arm]) for arm in "ab"]
        fooled += intervals.fixed(plain[0], plain[1], 0.95).absolute.low > 0
    assert held / 400 == pytest.approx(0.95, abs=0.033)
    assert fooled / 400 > 0.25


def test_one_hour_is_the_plain_comparison() -> None:
    random = np.random.default_rng(6)
    hours = [hour("a", 1, 300, 0.4, random), hour("b", 1, 500, 0.5, random)]
    found = standardized("a", "b", hours)
    assert [t.outcomes for t in found] == [300, 500]
    assert [t.mean for t in found] == pytest.approx([h.mean for h in hours])
    assert [t.squares for t in found] == pytest.approx([h.squares for h in hours], rel=0.01)


def test_hours_without_the_other_arm_say_nothing() -> None:
    random = np.random.default_rng(7)
    alone = [hour("a", 1, 50, 0.5, random), hour("b", 2, 50, 0.5, random)]
    assert [t.outcomes for t in standardized("a", "b", alone)] == [0, 0]
    both = [*alone, hour("a", 3, 10, 0.5, random), hour("b", 3, 10, 0.5, random)]
    assert [t.outcomes for t in standardized("a", "b", both)] == [10, 10]
