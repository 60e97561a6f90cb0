import numpy as np
import pytest

from benchmarks.load import timing
from benchmarks.load.plan import Arrivals


def test_constant_arrivals_are_evenly_spaced():
    times = timing.arrival_times(Arrivals(100, 2, "constant"))
    assert len(times) == 200
    assert np.allclose(np.diff(times), 0.01)
    assert times[0] == 0


def test_poisson_arrivals_have_the_asked_rate_and_memoryless_gaps():
    times = timing.arrival_times(Arrivals(1000, 60, "poisson", seed=3))
    assert times[-1] < 60
    assert len(times) == pytest.approx(60_000, rel=0.02)
    gaps = np.diff(times)
    assert (gaps >= 0).all()
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.03)  # of an exponential distribution both are equal


def test_the_same_seed_gives_the_same_schedule():
    first, again, other = (timing.arrival_times(Arrivals(50, 5, seed=seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert len(first) != len(other) or not np.array_equal(first, other)


@pytest.mark.parametrize(("rate", "seconds"), [(0, 1), (1, 0), (-1, 1)])
def test_a_schedule_needs_a_rate_and_a_length(rate, seconds):
    with pytest.raises(ValueError, match="positive"):
        timing.arrival_times(Arrivals(rate, seconds))


def test_kinds_come_in_proportion_to_their_shares():
    chosen = timing.choose_kinds([99, 1], 100_000, seed=0)
    assert set(chosen) == {0, 1}
    assert (chosen == 1).mean() == pytest.approx(0.01, rel=0.2)


def test_summary_of_known_values():
    summary = timing.summarise(np.arange(1, 1001) / 1000)
    assert summary.count == 1000
    assert summary.p50 == pytest.approx(0.5005)
    assert summary.p99 == pytest.approx(0.99, abs=0.001)
    assert summary.p999 == pytest.approx(0.999, abs=0.001)
    assert summary.max == 1.0


def test_summary_of_nothing_is_zero():
    assert timing.summarise([]).count == 0


def test_histogram_counts_every_value_once_below_its_edge():
    values = [5e-6, 1e-3, 1.01e-3, 2.0, 1e6]
    buckets = timing.histogram(values)
    assert sum(count for _, count in buckets) == len(values)
    edges = [edge for edge, _ in buckets]
    assert edges == sorted(edges)
    assert edges[0] == pytest.approx(timing.HISTOGRAM_START)
    one_millisecond = next(edge for edge, _ in buckets if edge >= 1e-3)
    assert one_millisecond <= 1e-3 * timing.HISTOGRAM_GROWTH
