from __future__ import annotations

from headrace.control.analysis.latency import LatencyQuantile
from headrace.control.analysis.settings import LatencySettings
from headrace.control.analysis.verdict import Finding
from headrace.core import tallies
from headrace.core.tallies import Tally
from tests.observations import observe, tally


def check(quantile: float = 0.5) -> LatencyQuantile:
    made = LatencyQuantile(quantile, LatencySettings(), block_s=20.0, block_requests=20, alarm=1000.0, clear=20.0)
    made.begin_step()
    return made


def feed(
    made: LatencyQuantile, looks: int, canary_ms: float, stable_ms: float = 10.0, requests: int = 40
) -> LatencyQuantile:
    for _ in range(looks):
        made.observe(observe(tally(requests, ms=canary_ms), tally(requests, ms=stable_ms)))
    return made


def test_equal_latency_passes() -> None:
    result = feed(check(), 30, 10.0).result()
    assert result.finding is Finding.PASS
    assert "in 0 of 15 blocks of this step" in result.reason


def test_twice_the_latency_fails_and_the_reason_has_the_numbers() -> None:
    result = feed(check(), 40, 20.0).result()
    assert result.finding is Finding.FAIL
    assert result.check == "latency p50"
    assert "more than 1.25 times the baseline's in 18 of 18 blocks" in result.reason


def test_between_margin_and_tolerance_neither_harm_nor_health_is_found_out_of_thin_air() -> None:
    assert feed(check(), 40, 12.0).result().finding is Finding.PASS
    assert feed(check(), 40, 14.0).result().finding is Finding.FAIL


def test_a_burst_of_a_minute_is_borne() -> None:
    made = feed(check(), 30, 10.0)
    feed(made, 6, 100.0)
    assert feed(made, 30, 10.0).result().finding is Finding.PASS


def test_a_block_waits_for_requests_of_both_sides() -> None:
    made = feed(check(), 100, 50.0, requests=0)
    assert made.signs.blocks == 0
    assert "0 of the 20 requests that a block needs" in made.result().reason
    assert made.result().finding is Finding.INCONCLUSIVE
    feed(made, 1, 50.0, requests=19)
    assert made.signs.blocks == 0
    feed(made, 1, 50.0, requests=1)
    assert made.signs.blocks == 1


def test_a_tail_needs_more_requests_in_a_block() -> None:
    assert check(0.5).enough == 20
    assert check(0.95).enough == 40
    assert check(0.99).enough == 200


def test_a_slow_tail_is_seen_by_its_quantile_only() -> None:
    slow = tallies.add_counts(({tallies.latency_bucket(0.010): 36}, {tallies.latency_bucket(0.100): 4}))
    median, tail = check(0.5), check(0.95)
    for made in (median, tail):
        for _ in range(40):
            made.observe(observe(Tally(latency=slow), tally(40, ms=10.0)))
    assert median.result().finding is Finding.PASS
    assert tail.result().finding is Finding.FAIL


def test_only_the_baseline_slice_is_compared() -> None:
    made = check()
    for _ in range(40):
        made.observe(observe(tally(40, ms=10.0), tally(4000, ms=2.0), tally(40, ms=10.0)))
    assert made.result().finding is Finding.PASS


def test_a_step_begins_with_an_empty_block() -> None:
    made = feed(check(), 1, 50.0)
    made.begin_step()
    feed(made, 1, 50.0)
    assert made.signs.blocks == 0
