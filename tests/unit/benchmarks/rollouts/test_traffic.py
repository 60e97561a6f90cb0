from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from benchmarks.rollouts import scenarios
from benchmarks.rollouts.traffic import Scenario, Traffic, Wander
from headrace.core import tallies
from headrace.core.tallies import Observation, Outcome


def drawn(scenario: Scenario, share: float, count: int = 120, seed: int = 1) -> list[Observation]:
    return list(islice(Traffic(scenario, np.random.default_rng(seed)).step(share), count))


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5])
def test_shares_and_the_equal_baseline(share: float) -> None:
    seen = drawn(scenarios.HEALTHY, share)
    canary = sum(o.canary.arrived for o in seen)
    assert canary == pytest.approx(share * 2000 * 120, rel=0.1)
    assert sum(o.baseline.arrived for o in seen) == pytest.approx(canary, rel=0.1)
    assert sum(o.stable.arrived for o in seen) == pytest.approx((1 - share) * 2000 * 120, rel=0.1)


def test_the_same_seed_gives_the_same_traffic() -> None:
    assert drawn(scenarios.BURSTY, 0.05) == drawn(scenarios.BURSTY, 0.05)
    assert drawn(scenarios.BURSTY, 0.05) != drawn(scenarios.BURSTY, 0.05, seed=2)


def test_harm_is_what_it_says_and_begins_when_it_says() -> None:
    scenario = replace(scenarios.HEALTHY, slower=2.0, more_errors=0.05, refused=0.1, harm_from=600.0, cold=1.0)
    seen = drawn(scenario, 0.5)

    def median_ratio(part: list[Observation]) -> float:
        sides = [
            tallies.add_counts(side)
            for side in zip(*((o.canary.latency, o.baseline.latency) for o in part), strict=True)
        ]
        return tallies.quantile(sides[0], 0.5) / tallies.quantile(sides[1], 0.5)

    def share_of(outcome: Outcome, part: list[Observation]) -> float:
        return sum(o.canary.outcomes[outcome] for o in part) / sum(o.canary.arrived for o in part)

    before, after = seen[:60], seen[60:]
    assert median_ratio(before) == pytest.approx(1.0, abs=0.1)
    assert median_ratio(after) == pytest.approx(2.0, abs=0.2)
    assert share_of(Outcome.ERROR, before) == pytest.approx(0.002, abs=0.001)
    assert share_of(Outcome.ERROR, after) == pytest.approx(0.9 * 0.052, abs=0.005)
    assert share_of(Outcome.REFUSED, before) == 0
    assert share_of(Outcome.REFUSED, after) == pytest.approx(0.1, abs=0.01)


def test_successive_requests_can_be_correlated() -> None:
    """Block medians of one side then spread more, though a request's own distribution is the same."""

    def spread(scenario: Scenario) -> float:
        still = replace(scenario, shared=Wander(0.0, 0.0), own=Wander(0.0, 0.0), cold=1.0)
        medians = [tallies.quantile(o.baseline.latency, 0.5) for o in drawn(still, 0.25)]
        return float(np.std(np.log(medians)))

    assert spread(replace(scenarios.HEALTHY, successive=0.99)) > 3 * spread(scenarios.HEALTHY)


def test_clumped_errors_have_the_same_mean_and_more_spread() -> None:
    single = [o.stable.outcomes[Outcome.ERROR] for o in drawn(scenarios.HEALTHY, 0.01, 600)]
    clumped = [o.stable.outcomes[Outcome.ERROR] for o in drawn(replace(scenarios.HEALTHY, clump=4.0), 0.01, 600)]
    assert np.mean(clumped) == pytest.approx(np.mean(single), rel=0.15)
    assert np.var(clumped) > 4 * np.var(single)
