"""Intervals: against published numbers, and by how often they hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.control.experiments import intervals
from headrace.control.experiments.intervals import Method
from headrace.core.experiments import Tally


def proportion(successes: int, count: int) -> Tally:
    share = successes / count
    return Tally(count, share, count * share * (1 - share))


def sample(values: np.ndarray) -> Tally:
    return Tally(len(values), float(values.mean()), float(((values - values.mean()) ** 2).sum()), len(values))


def test_newcombe_as_in_his_paper() -> None:
    """Table II of the paper, examples (a), (c) and (h), method 10."""
    for (a, m), (b, n), low, high in (
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ):
        found = intervals.fixed(proportion(b, n), proportion(a, m), 0.95)
        assert found.method is Method.NEWCOMBE
        assert (found.absolute.low, found.absolute.high) == (
            pytest.approx(low, abs=5e-5),
            pytest.approx(high, abs=5e-5),
        )


def test_welch_agrees_with_scipy() -> None:
    from scipy import stats

    random = np.random.default_rng(3)
    control, arm = random.normal(10, 2, 40), random.normal(11, 5, 25)
    expected = stats.ttest_ind(arm, control, equal_var=False).confidence_interval(0.9)
    found = intervals.fixed(sample(control), sample(arm), 0.9)
    assert found.method is Method.WELCH
    assert (found.absolute.low, found.absolute.high) == pytest.approx((expected.low, expected.high))


def test_one_look_holds_the_truth_as_often_as_it_says() -> None:
    """Three standard deviations of 2000 repetitions are 1.5 %."""
    random = np.random.default_rng(7)
    held = relative = 0
    for _ in range(2000):
        control, arm = proportion(random.binomial(800, 0.1), 800), proportion(random.binomial(700, 0.13), 700)
        found = intervals.fixed(control, arm, 0.95)
        held += found.absolute.low <= 0.03 <= found.absolute.high
        assert found.relative is not None
        relative += found.relative.low <= 0.3 <= found.relative.high
    assert held / 2000 == pytest.approx(0.95, abs=0.015)
    assert relative / 2000 == pytest.approx(0.95, abs=0.015)


def test_looking_often_misleads_one_of_them_only() -> None:
    """Two equal arms, looked at sixty times."""
    random = np.random.default_rng(1)
    looks = np.unique(np.geomspace(100, 10_000, 60).astype(int))
    fooled = {Method.SEQUENTIAL: 0, Method.NEWCOMBE: 0}
    for _ in range(200):
        wins = np.cumsum(random.random((2, 10_000)) < 0.2, axis=1)
        pairs = [[proportion(int(wins[arm, n - 1]), int(n)) for arm in (0, 1)] for n in looks]
        fooled[Method.SEQUENTIAL] += any(intervals.sequential(*p, 0.95).absolute.excludes_zero for p in pairs)
        fooled[Method.NEWCOMBE] += any(intervals.fixed(*p, 0.95).absolute.excludes_zero for p in pairs)
    assert fooled[Method.SEQUENTIAL] / 200 <= 0.05
    assert fooled[Method.NEWCOMBE] / 200 > 0.15


def test_a_true_difference_is_found_while_looking() -> None:
    found = intervals.sequential(proportion(1000, 10_000), proportion(1300, 10_000), 0.95)
    assert found.absolute.low > 0
    assert found.relative is not None
    assert found.relative.low > 0


counts = st.integers(1, 10**6)


@given(counts, counts, st.floats(0, 1), st.floats(0, 1))
def test_every_interval_holds_its_estimate(m: int, n: int, share_c: float, share_a: float) -> None:
    control, arm = proportion(round(m * share_c), m), proportion(round(n * share_a), n)
    for lift in (intervals.fixed(control, arm, 0.95), intervals.sequential(control, arm, 0.95)):
        for found in (lift.absolute, lift.relative):
            if found is not None:
                assert found.low - 1e-9 <= found.estimate <= found.high + 1e-9


def test_nothing_is_claimed_of_nothing() -> None:
    empty, one = Tally(), Tally(1, 5.0, 0.0, 1)
    assert not intervals.fixed(empty, empty, 0.95).absolute.excludes_zero
    assert intervals.fixed(one, one, 0.95).absolute.low == -math.inf
    assert intervals.sequential(empty, one, 0.95).absolute.high == math.inf
    assert intervals.needed_per_arm(empty, 0.1, 0.95) is None


def test_sample_size_as_in_the_textbooks() -> None:
    """16 s² / d² (van Belle's rule) for 0.05 and 0.8, less a little."""
    assert intervals.needed_per_arm(proportion(5000, 10_000), 0.05, 0.95) == pytest.approx(16 * 0.25 / 0.0025, rel=0.03)
