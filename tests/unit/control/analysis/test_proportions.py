"""E-values by exact enumeration: the expectation under every member of the hypothesis is at most 1."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from headrace.control.analysis import proportions

RATES = st.floats(0.001, 0.98)


def binomial(n: int, p: float) -> list[float]:
    return [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]


def expectation(
    n_s: int, n_c: int, true: tuple[float, float], guess: tuple[float, float], margin: float, above: bool
) -> float:
    total = 0.0
    for k_s, chance_s in enumerate(binomial(n_s, true[0])):
        for k_c, chance_c in enumerate(binomial(n_c, true[1])):
            log = proportions.log_e_two((k_s, n_s), (k_c, n_c), guess, margin, above=above)
            total += chance_s * chance_c * math.exp(log)
    return total


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 6), RATES, RATES, RATES, st.floats(0.001, 0.3), st.floats(0, 1), st.booleans()
)
def test_two_arms(
    n_s: int, n_c: int, p: float, guess_s: float, guess_c: float, margin: float, inside: float, above: bool
) -> None:
    border = p + margin
    if border >= 1:
        return
    true_c = border * inside if above else border + (1 - border) * inside
    true_c = min(max(true_c, 1e-9), 1 - 1e-9)
    assert expectation(n_s, n_c, (p, true_c), (guess_s, guess_c), margin, above) <= 1 + 1e-6


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 20), RATES, RATES, st.floats(0, 1))
def test_one_arm(n: int, guess: float, bound: float, inside: float) -> None:
    true = bound * inside if guess > bound else bound + (1 - bound) * inside
    total = sum(
        chance * math.exp(proportions.log_e_one(k, n, guess, bound)) for k, chance in enumerate(binomial(n, true))
    )
    assert total <= 1 + 1e-9


def test_the_expectation_is_tight_at_the_border_of_equal_arms() -> None:
    assert expectation(4, 4, (0.3, 0.4), (0.3, 0.6), 0.1, True) > 0.9


@pytest.mark.parametrize("n_s", [2_000, 20_000, 200_000])
def test_harm_gains_and_health_loses(n_s: int) -> None:
    stable = (round(n_s * 0.002), n_s)
    harm = proportions.log_e_two(stable, (24, 2000), (0.002, 0.012), 0.001, above=True)
    health = proportions.log_e_two(stable, (4, 2000), (0.002, 0.012), 0.001, above=True)
    assert harm > 1
    assert health < 0
    cleared = proportions.log_e_two(stable, (4, 2000), (0.002, 0.002), 0.01, above=False)
    harmful = proportions.log_e_two(stable, (24, 2000), (0.002, 0.002), 0.01, above=False)
    assert cleared > 1
    assert harmful < 0


def test_a_shared_outage_is_no_evidence() -> None:
    """Both sides fail at 30 %, far from what was guessed."""
    assert proportions.log_e_two((600, 2000), (6, 20), (0.002, 0.012), 0.001, above=True) < 0


@pytest.mark.parametrize(
    ("stable", "canary", "guess", "above"),
    [
        ((0, 0), (5, 20), (0.002, 0.5), True),
        ((1, 100), (0, 0), (0.002, 0.5), True),
        ((1, 100), (1, 100), (0.002, 0.0025), True),
        ((1, 100), (1, 100), (0.002, 0.5), False),
    ],
)
def test_nothing_is_bet_without_data_or_against_ones_own_guess(
    stable: tuple[int, int], canary: tuple[int, int], guess: tuple[float, float], above: bool
) -> None:
    assert proportions.log_e_two(stable, canary, guess, 0.001, above=above) == 0.0


def test_extreme_guesses_stay_finite() -> None:
    for guess in ((0.0, 1.0), (1.0, 0.0), (0.0, 0.0), (1.0, 1.0)):
        for above in (True, False):
            assert np.isfinite(proportions.log_e_two((0, 1000), (10, 10), guess, 0.01, above=above))
