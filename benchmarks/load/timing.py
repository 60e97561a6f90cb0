"""Arrival times and latency summaries: pure functions on numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.load.plan import Arrivals, Latency

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

HISTOGRAM_START = 10e-6
HISTOGRAM_GROWTH = 1.15
HISTOGRAM_BUCKETS = 110  # up to about 50 s


def arrival_times(arrivals: Arrivals) -> Floats:
    """Seconds since the start at which requests are due, ascending, all below ``arrivals.seconds``."""
    if arrivals.rate <= 0 or arrivals.seconds <= 0:
        raise ValueError("rate and seconds must be positive")
    if arrivals.shape == "constant":
        return np.arange(int(arrivals.rate * arrivals.seconds)) / arrivals.rate
    random = np.random.default_rng(arrivals.seed)
    expected = arrivals.rate * arrivals.seconds
    # Six standard deviations more gaps than needed: the cut below then never comes short.
    gaps = random.exponential(1 / arrivals.rate, int(expected + 6 * expected**0.5 + 16))
    times = np.cumsum(gaps)
    return times[times < arrivals.seconds]


def choose_kinds(shares: Sequence[float], count: int, seed: int) -> Indices:
    """Which kind each of ``count`` requests is, at random with probabilities in proportion to ``shares``."""
    weights = np.asarray(shares, dtype=np.float64)
    return np.random.default_rng(seed + 1).choice(len(weights), size=count, p=weights / weights.sum())


def summarise(seconds: Sequence[float] | Floats) -> Latency:
    values = np.asarray(seconds, dtype=np.float64)
    if not len(values):
        return Latency(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    p50, p90, p99, p999 = np.percentile(values, [50, 90, 99, 99.9])
    return Latency(
        len(values), float(values.mean()), float(p50), float(p90), float(p99), float(p999), float(values.max())
    )


def histogram(seconds: Sequence[float] | Floats) -> list[tuple[float, int]]:
    """Log-spaced counts as (upper edge in seconds, count); empty buckets are left out."""
    edges = HISTOGRAM_START * HISTOGRAM_GROWTH ** np.arange(HISTOGRAM_BUCKETS)
    buckets = np.searchsorted(edges, np.asarray(seconds, dtype=np.float64))
    counts = np.bincount(np.minimum(buckets, HISTOGRAM_BUCKETS - 1), minlength=HISTOGRAM_BUCKETS)
    return [(float(edge), int(count)) for edge, count in zip(edges, counts, strict=True) if count]
