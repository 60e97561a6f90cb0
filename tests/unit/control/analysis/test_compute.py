from __future__ import annotations

import pytest

from headrace.control.analysis.compute import BatchTimes, ComputeTime
from headrace.control.analysis.settings import ComputeSettings
from headrace.control.analysis.verdict import Finding
from headrace.core.tallies import BatchTally, Tally
from tests.observations import batches, observe


def check() -> ComputeTime:
    made = ComputeTime(ComputeSettings(), block_s=20.0, block_batches=20, alarm=1000.0, clear=20.0)
    made.begin_step()
    return made


def line(*sizes: int, count: int = 30, factor: float = 1.0) -> dict[int, BatchTally]:
    """Batches of these sizes that take 2 ms + 0.5 ms a row."""
    return {n: BatchTally(count, count * factor * (0.002 + 0.0005 * n)) for n in sizes}


def feed(
    made: ComputeTime, canary: dict[int, BatchTally], stable: dict[int, BatchTally], looks: int = 40
) -> ComputeTime:
    for _ in range(looks):
        made.observe(observe(Tally(compute=canary), Tally(compute=stable)))
    return made


def test_smaller_batches_of_an_equal_model_are_not_faster_nor_slower() -> None:
    result = feed(check(), line(1, 2), line(1, 2, 8, 16, 32)).result()
    assert result.finding is Finding.PASS
    assert "last 1 times" in result.reason


def test_a_slower_model_fails_though_its_batches_take_less_time() -> None:
    """Batches of 1 and 2 rows at 1.5 times the cost are still quicker than stable's of 32."""
    assert feed(check(), line(1, 2, factor=1.5), line(1, 2, 32)).result().finding is Finding.FAIL


def test_sizes_between_stables_are_compared_by_the_fit() -> None:
    assert feed(check(), line(8), line(1, 16)).result().finding is Finding.PASS
    assert feed(check(), line(8, factor=1.5), line(1, 16)).result().finding is Finding.FAIL


def test_sizes_beyond_stables_are_not_compared() -> None:
    made = feed(check(), line(1, factor=5.0), line(8, 16))
    assert made.result().finding is Finding.INCONCLUSIVE
    assert "too few batches of sizes that stable has too" in made.result().reason
    assert not made.result().needed


def test_a_stall_is_one_sign() -> None:
    made = feed(check(), line(4), line(4))
    feed(made, batches(b4=(20, 5.0)), line(4), looks=2)
    assert made.signs.worse == 1
    assert made.result().finding is Finding.PASS


def test_fit_of_exact_times_is_exact() -> None:
    times = BatchTimes()
    times.learn(line(2, 4, 32, count=25))
    assert times.expected(10) == pytest.approx(0.002 + 0.0005 * 10)
    assert times.expected(33) is None
    assert times.expected(1) is None


def test_nothing_is_expected_of_nothing() -> None:
    assert BatchTimes().expected(1) is None
    one = BatchTimes()
    one.learn(batches(b4=(3, 0.001)))
    assert one.expected(4) is None


def test_what_is_measured_goes_before_the_fit() -> None:
    times = BatchTimes()
    times.learn({**line(1, 16), 8: BatchTally(30, 30 * 0.020)})
    assert times.expected(8) == pytest.approx(0.020)


def test_old_times_are_forgotten() -> None:
    times = BatchTimes()
    times.learn(batches(b1=(50, 0.010)))
    for _ in range(80):
        times.learn(batches(b2=(50, 0.001)))
    assert set(times.sizes) == {2}
