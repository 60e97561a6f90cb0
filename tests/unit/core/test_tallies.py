from __future__ import annotations

import math

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import given

from headrace.core import errors, tallies
from headrace.core.tallies import BatchTally, Observation, Outcome, Tally


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, Outcome.OK),
        (errors.ModelRaised(), Outcome.ERROR),
        (errors.ReplicaDied(), Outcome.ERROR),
        (errors.DeadlineExceeded(), Outcome.ERROR),
        (errors.Bug(), Outcome.ERROR),
        (errors.Overloaded(), Outcome.REFUSED),
        (errors.NotReady(), Outcome.REFUSED),
        (errors.InvalidInput(), Outcome.REJECTED),
        (errors.QuotaExceeded(), Outcome.REJECTED),
        (errors.Cancelled(), Outcome.CANCELLED),
    ],
)
def test_outcome_of(error: errors.HeadraceError | None, outcome: Outcome) -> None:
    assert tallies.outcome_of(error) is outcome


@given(st.floats(1e-6, 1e6))
def test_a_latency_lies_in_its_bucket(seconds: float) -> None:
    bucket = tallies.latency_bucket(seconds)
    assert tallies.bucket_start(bucket) <= seconds * (1 + 1e-9)
    assert seconds <= tallies.bucket_start(bucket + 1) * (1 + 1e-9)


def test_extreme_latencies_have_a_bucket() -> None:
    assert tallies.latency_bucket(0.0) == 0
    assert tallies.latency_bucket(1e-9) == 0
    assert tallies.latency_bucket(1e12) == tallies.latency_bucket(1e11) < 1000


@given(st.lists(st.floats(1e-5, 100.0), min_size=1, max_size=200), st.floats(0.01, 0.99))
def test_quantile_is_right_within_a_bucket(seconds: list[float], q: float) -> None:
    histogram = tallies.add_counts({tallies.latency_bucket(s): 1} for s in seconds)
    found = tallies.quantile(histogram, q)
    exact = float(np.quantile(seconds, q, method="inverted_cdf"))
    assert exact / 1.1 <= found <= exact * 1.1


def test_quantile_of_nothing_is_a_bug() -> None:
    with pytest.raises(errors.Bug, match="empty"):
        tallies.quantile({}, 0.5)
    with pytest.raises(errors.Bug, match="empty"):
        tallies.quantile({3: 0}, 0.5)


def test_totals_of_a_tally() -> None:
    counts = {Outcome.OK: 90, Outcome.ERROR: 5, Outcome.REFUSED: 3, Outcome.REJECTED: 1, Outcome.CANCELLED: 1}
    assert Tally(counts).arrived == 100
    assert Tally(counts).judged == 95


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (0.0, "0"),
        (1.0, "+0"),
        (1.3, "+0"),
        (1.5, "+1"),
        (-1.0, "-0"),
        (0.5, "+-2"),
        (math.inf, "inf"),
        (math.nan, "nan"),
    ],
)
def test_value_bucket(value: float, label: str) -> None:
    assert tallies.value_bucket(value) == label


@pytest.mark.parametrize("share", [0.01, 0.05, 0.25, 0.5])
def test_baseline_is_as_large_as_the_canary(share: float) -> None:
    assert (1 - share) * tallies.baseline_fraction(share) == pytest.approx(share)


def test_baseline_is_at_most_all_of_stable() -> None:
    assert tallies.baseline_fraction(0.9) == 1.0
    assert tallies.baseline_fraction(0.0) == 0.0


def test_an_observation_crosses_a_process() -> None:
    tally = Tally({Outcome.OK: 3}, {5: 3}, {8: BatchTally(1, 0.25)}, {"label": {"cat": 2, "dog": 1}})
    seen = Observation(10.0, canary=tally, stable=tally)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(seen), type=Observation) == seen
