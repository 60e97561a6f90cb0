"""The checks of the endpoint's objectives: what fails them, and all that must not."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from headrace.control.analysis.judge import Judge, judge
from headrace.control.analysis.settings import AnalysisSettings, SloSettings
from headrace.control.analysis.slo import SloErrors, SloLatency, Slow
from headrace.control.analysis.verdict import Finding
from headrace.core import tallies
from headrace.core.slo import Slo
from headrace.core.tallies import Observation, Outcome, Tally
from tests.observations import observe, tally

ALARM, CLEAR = 1000.0, 20.0


def latency() -> SloLatency:
    made = SloLatency(SloSettings(), 0.05, 20.0, 20, ALARM, CLEAR)
    made.begin_step()
    return made


def error_rate(bound: float = 0.001) -> SloErrors:
    made = SloErrors(SloSettings(), bound, ALARM, CLEAR)
    made.begin_step()
    return made


def times(fast: int, slow: int, slow_ms: float = 80.0) -> Tally:
    found = {tallies.latency_bucket(0.01): fast, tallies.latency_bucket(slow_ms / 1e3): slow}
    return Tally({Outcome.OK: fast + slow}, found)


def feed(made: SloLatency, blocks: int, canary: Tally, baseline: Tally) -> SloLatency:
    for _ in range(2 * blocks):
        made.observe(observe(canary, baseline))
    return made


def test_slow_requests_of_the_canary_alone_fail_it() -> None:
    made = feed(latency(), 30, times(95, 5), times(100, 0))
    result = made.result()
    assert (result.finding, result.needed) == (Finding.FAIL, False)
    assert "slower than 50 ms, and not of the baseline, in" in result.reason
    made.begin_step()
    assert feed(made, 30, times(100, 0), times(100, 0)).result().reason == result.reason


@pytest.mark.parametrize(
    ("canary", "baseline"),
    [
        (times(99, 1), times(100, 0)),  # the objective, to the request
        (times(80, 20), times(80, 20)),  # both break it
        (times(60, 40), times(98, 2)),  # the baseline breaks it a little
        (times(0, 100, slow_ms=50.5), times(100, 0)),  # in the bucket of the limit: nobody knows
    ],
)
def test_it_does_not_fail(canary: Tally, baseline: Tally) -> None:
    assert feed(latency(), 200, canary, baseline).result().finding is not Finding.FAIL


def test_it_passes_where_the_objective_is_kept_and_needs_requests_for_anything() -> None:
    assert feed(latency(), 30, times(100, 0), times(100, 0)).result().finding is Finding.PASS
    few = feed(latency(), 3, times(10, 0), times(10, 0)).result()
    assert (few.finding, few.reason) == (
        Finding.INCONCLUSIVE,
        "60 of the 200 requests that a block needs, on the smaller side",
    )


@pytest.mark.parametrize("requests", [200, 299, 300, 350, 1999])
@pytest.mark.parametrize("slow", [0.002, 0.01])
def test_a_canary_that_keeps_the_objective_is_worse_in_at_most_half_of_the_blocks(requests: int, slow: float) -> None:
    """With a baseline that has no slow request at all: exactly, from the binomial distribution."""
    at_most = (requests + 99) // 100
    below = sum(math.comb(requests, k) * slow**k * (1 - slow) ** (requests - k) for k in range(at_most + 1))
    assert not Slow(requests, at_most, at_most).breaks
    assert Slow(requests, at_most + 1, at_most + 1).breaks
    assert 1 - below <= 0.5


def count(made: SloErrors, looks: int, canary: tuple[int, int], stable: tuple[int, int]) -> SloErrors:
    """(successes, errors) of every look."""
    for _ in range(looks):
        made.observe(observe(tally(*canary), tally(*stable)))
    return made


def test_errors_of_the_canary_alone_fail_it() -> None:
    made = count(error_rate(), 60, (997, 3), (2000, 0))
    result = made.result()
    assert (result.finding, result.needed) == (Finding.FAIL, False)
    assert "requests, 0.100% are allowed; 0 of" in result.reason


@pytest.mark.parametrize(
    ("canary", "stable"),
    [
        ((999, 1), (2000, 0)),  # the objective itself
        ((970, 30), (1940, 60)),  # both break it
        ((900, 100), (1980, 20)),  # stable breaks it too: the relative check says what is to be said
        ((700, 300), (0, 0)),  # nobody to compare with
    ],
)
def test_errors_do_not_fail_it(canary: tuple[int, int], stable: tuple[int, int]) -> None:
    assert count(error_rate(), 300, canary, stable).result().finding is not Finding.FAIL


def test_an_outage_of_both_is_no_evidence() -> None:
    made = count(error_rate(), 30, (1000, 0), (2000, 0))
    before = made.harm.value
    count(made, 10, (600, 400), (1200, 800))
    assert made.harm.value <= before
    assert made.result().finding is not Finding.FAIL


def test_no_single_interval_decides() -> None:
    made = count(error_rate(), 20, (1000, 0), (2000, 0))
    assert count(made, 1, (0, 1000), (2000, 0)).result().finding is not Finding.FAIL
    assert count(made, 4, (0, 1000), (2000, 0)).result().finding is Finding.FAIL


def test_it_passes_when_the_objective_is_kept() -> None:
    assert count(error_rate(), 4, (1000, 0), (2000, 0)).result().finding is Finding.PASS
    assert count(error_rate(), 1, (1000, 0), (2000, 0)).result().finding is Finding.INCONCLUSIVE


@pytest.mark.parametrize(
    ("stable_rate", "canary_rate"), [(0.0, 0.02), (0.02, 0.02), (0.05, 0.05), (0.2, 0.2), (0.019, 0.01), (0.3, 0.02)]
)
@pytest.mark.parametrize(("n_stable", "n_canary"), [(12, 8), (30, 2), (5, 9)])
def test_the_smaller_of_two_e_values_has_an_expectation_of_at_most_one(
    stable_rate: float, canary_rate: float, n_stable: int, n_canary: int
) -> None:
    """Wherever the canary keeps the objective of 2 % or fails no more often than stable: summed over all counts."""
    made = error_rate(0.02)

    def chance(k: int, n: int, p: float) -> float:
        return math.comb(n, k) * p**k * (1 - p) ** (n - k)

    expected = np.zeros(5)
    for a in range(n_stable + 1):
        for b in range(n_canary + 1):
            weight = chance(a, n_stable, stable_rate) * chance(b, n_canary, canary_rate)
            expected += weight * np.exp(made._logs((a, n_stable), (b, n_canary), 0.01))
    assert expected.max() <= 1 + 1e-9


def test_objectives_are_judged_only_where_there_are_some_and_share_the_false_alarms() -> None:
    names = [check.name for check in judge(AnalysisSettings(), Slo()).checks]
    assert not any(name.startswith("slo") for name in names)
    both = judge(AnalysisSettings(), Slo(p99_ms=50.0, error_rate=0.001))
    assert [check.name for check in both.checks if check.name.startswith("slo")] == ["slo errors", "slo latency"]
    (errors,) = [check for check in both.checks if isinstance(check, SloErrors)]
    assert errors.alarm == pytest.approx(7 / 0.005)
    warns = judge(AnalysisSettings(slo=SloSettings(gate=False)), Slo(p99_ms=50.0))
    (slow,) = [check for check in warns.checks if isinstance(check, SloLatency)]
    assert (slow.alarm, slow.result().gate) == (pytest.approx(5 / 0.005), False)


def test_a_judge_with_objectives_goes_on_after_a_restart() -> None:
    first = judge(AnalysisSettings(), Slo(p99_ms=50.0, error_rate=0.001))
    first.begin_step()
    bad = Observation(10.0, canary=times(90, 10), stable=times(2000, 0), baseline=times(100, 0))
    for _ in range(10):
        first.look(bad)
    second = msgspec.json.decode(msgspec.json.encode(first), type=Judge)
    assert second == first
    for _ in range(60):
        found = second.look(bad)
        assert first.look(bad) == found
    assert (found.finding, "slo latency" in found.reason) == (Finding.FAIL, True)
