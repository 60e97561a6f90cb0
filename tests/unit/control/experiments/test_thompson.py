"""The bandit: what it gives whom, and what that saves, simulated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.control.experiments import thompson
from headrace.core.experiments import BanditSettings, Tally

SETTINGS = BanditSettings()


def simulated(means: list[float], seed: int, *, noise: float | None = None) -> tuple[dict[str, float], float]:
    """Ten thousand requests with an outcome each, in steps of 200: shares at the end, and the rewards missed."""
    random = np.random.default_rng(seed)
    tallies = {f"arm-{n}": Tally() for n in range(len(means))}
    shares = dict.fromkeys(tallies, 1 / len(means))
    regret = 0.0
    for step in range(50):
        given_to = random.multinomial(200, list(shares.values()))
        for arm, count, mean in zip(tallies, given_to, means, strict=True):
            rewards = random.random(count) < mean if noise is None else random.normal(mean, noise, count)
            for reward in rewards:
                tallies[arm].add(float(reward))
            regret += count * (max(means) - mean)
        wanted = thompson.shares(tallies, SETTINGS, seed=step)
        if wanted is not None and thompson.worth_it(shares, wanted, SETTINGS):
            shares = wanted
    return shares, regret


@pytest.mark.parametrize(("means", "noise"), [([0.1, 0.15], None), ([5.0, 5.5], 3.0), ([0.2, 0.1, 0.12], None)])
def test_a_clear_winner_gets_most_and_less_is_missed(means: list[float], noise: float | None) -> None:
    fixed = 10_000 * (max(means) - sum(means) / len(means))
    best = f"arm-{means.index(max(means))}"
    for seed in range(5):
        shares, regret = simulated(means, seed, noise=noise)
        assert shares[best] > 0.8
        assert regret < fixed / 2


def test_ties_stay_near_even() -> None:
    """Of 40 pairs of equal arms; without tempering a third of them would end beyond these bounds."""
    found = [simulated([0.1, 0.1], seed)[0]["arm-0"] for seed in range(40)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.06)
    assert np.mean(np.abs(np.array(found) - 0.5) < 0.2) > 0.85


tallies = st.builds(
    lambda count, share: Tally(count, share, count * share * (1 - share)), st.integers(50, 10**6), st.floats(0, 1)
)


@given(st.lists(tallies, min_size=2, max_size=5), st.floats(0, 0.2), st.booleans())
def test_shares_are_shares(found: list[Tally], floor: float, real: bool) -> None:
    if real:
        found[0].others = 1
    arms = {str(n): tally for n, tally in enumerate(found)}
    shares = thompson.shares(arms, BanditSettings(floor=floor), seed=1)
    assert shares is not None
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) >= floor - 1e-9
    assert shares == thompson.shares(arms, BanditSettings(floor=floor), seed=1), "the same seed gives the same shares"


def test_nothing_moves_before_there_is_enough() -> None:
    assert thompson.shares({"a": Tally(10_000, 0.9), "b": Tally(49, 0.1)}, SETTINGS, seed=1) is None


def test_the_probability_is_the_one_of_two_betas() -> None:
    """P(Beta(2, 1) > Beta(1, 2)) = 5/6, by integration."""
    assert thompson.probability_best([Tally(1, 1.0), Tally(1, 0.0)], seed=5)[0] == pytest.approx(5 / 6, abs=0.01)


def test_rewards_of_any_size() -> None:
    """The prior goes by the spread that there is."""
    for scale in (1e-6, 1.0, 1e9):
        better = Tally(200, 1.1 * scale, 200 * (0.2 * scale) ** 2, 200)
        worse = Tally(200, 1.0 * scale, 200 * (0.2 * scale) ** 2, 200)
        assert thompson.probability_best([better, worse], seed=2)[0] > 0.99


def test_small_moves_are_left_alone() -> None:
    assert not thompson.worth_it({"a": 0.5, "b": 0.5}, {"a": 0.515, "b": 0.485}, SETTINGS)
    assert thompson.worth_it({"a": 0.5, "b": 0.5}, {"a": 0.53, "b": 0.47}, SETTINGS)
