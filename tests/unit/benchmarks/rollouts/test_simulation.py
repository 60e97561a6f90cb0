"""The small version of `python -m benchmarks.rollouts`: the same judge and the same decisions, fewer rollouts."""

from __future__ import annotations

import pytest

from benchmarks.rollouts import __main__ as command
from benchmarks.rollouts import scenarios, simulation
from benchmarks.rollouts.simulation import Ended, Rates
from benchmarks.rollouts.traffic import Scenario
from headrace.control.analysis.settings import AnalysisSettings
from headrace.control.rollout_state import Phase


def simulated(scenario: Scenario, rollouts: int) -> Rates:
    return simulation.rates(scenario, (simulation.run(scenario, (11, i), AnalysisSettings()) for i in range(rollouts)))


@pytest.mark.parametrize("scenario", [scenarios.HEALTHY, scenarios.BURSTY], ids=lambda s: s.name)
def test_healthy_rollouts_are_promoted(scenario: Scenario) -> None:
    found = simulated(scenario, 15)
    assert found.rolled_back == 0
    assert found.done == 15
    assert found.median_s >= 5 * 600


def test_two_requests_a_second_are_never_passed() -> None:
    found = simulated(scenarios.QUIET, 10)
    assert (found.paused, found.done, found.rolled_back) == (10, 0, 0)


@pytest.mark.parametrize("scenario", scenarios.TARGETS, ids=lambda s: s.name)
def test_harm_is_rolled_back_before_a_quarter_of_the_traffic(scenario: Scenario) -> None:
    assert simulated(scenario, 25).early == 25


def test_the_table_has_rates_with_intervals() -> None:
    ends = [Ended(Phase.DONE, 1.0, 3000.0, "ok")] * 98 + [Ended(Phase.ROLLED_BACK, 0.05, 900.0, "errors: 5 of 9")] * 2
    shown = command.row(simulation.rates(scenarios.HEALTHY, ends))
    assert shown.startswith("| healthy | 100 | 2.00% [0.24%, 7.04%] | 2.00% [0.24%, 7.04%] | 98.00%")
    assert shown.endswith("| 50.0 min | errors 2 |")


@pytest.mark.parametrize(("count", "low", "high"), [(0, 0.0, 0.036217), (100, 0.963783, 1.0)])
def test_intervals_of_extreme_rates(count: int, low: float, high: float) -> None:
    assert simulation.interval(count, 100) == pytest.approx((low, high), abs=1e-6)
