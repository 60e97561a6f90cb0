"""What gateways count of both versions while a rollout is judged."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core import errors
from headrace.core.tallies import BatchTally, Outcome, latency_bucket
from headrace.core.tensors import DType, Tensor
from headrace.core.trials import Trial
from headrace.pipeline.tallying import DeploymentCounter, TrialCounters, predicted_label


def tensor(dtype: DType, values: object) -> Tensor:
    return Tensor("y", dtype, np.array(values))


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        (tensor(DType.INT64, [3, 4]), "3"),
        (tensor(DType.BOOL, [True]), "True"),
        (Tensor("y", DType.BYTES, np.array([b"yes", b"no"], object)), "yes"),
        (tensor(DType.FP32, [[0.1, 0.7, 0.2]]), "class 1"),
        (tensor(DType.FP64, [4.0]), "+4"),
        (tensor(DType.FP64, [[4.1]]), "+4"),
        (tensor(DType.FP64, [-0.0]), "0"),
        (tensor(DType.FP32, np.zeros((1, 3, 3))), None),
        (tensor(DType.FP32, np.zeros((1, 1000))), None),
        (tensor(DType.INT32, [[1, 2]]), None),
        (tensor(DType.FP32, np.zeros((0, 3))), None),
        (tensor(DType.BF16, np.zeros(1, np.uint16)), None),
    ],
)
def test_what_is_counted_as_a_prediction(answer: Tensor, label: str | None) -> None:
    assert predicted_label(answer) == label


def test_ends_and_times() -> None:
    counter = DeploymentCounter()
    ends = [
        (None, Outcome.OK, True),
        (errors.ModelRaised("x"), Outcome.ERROR, False),
        (errors.DeadlineExceeded("x"), Outcome.ERROR, True),
        (errors.Cancelled("x"), Outcome.CANCELLED, True),
        (errors.Overloaded("x"), Outcome.REFUSED, False),
        (errors.InvalidInput("x"), Outcome.REJECTED, False),
    ]
    for error, _, _ in ends:
        counter.request(error, 0.01, "id", ())
    tally = counter.tally()
    assert tally.outcomes == {
        Outcome.OK: 1,
        Outcome.ERROR: 2,
        Outcome.CANCELLED: 1,
        Outcome.REFUSED: 1,
        Outcome.REJECTED: 1,
    }
    assert tally.latency == {latency_bucket(0.01): sum(timed for _, _, timed in ends)}


_ENDS = st.sampled_from(
    [None, errors.ModelRaised("x"), errors.Cancelled("x"), errors.DeadlineExceeded("x"), errors.InvalidInput("x")]
)


@given(st.lists(st.tuples(st.booleans(), _ENDS, st.floats(1e-3, 10.0)), max_size=30), st.floats(0.0, 1.0))
def test_streams_are_counted_once_and_timed_by_their_first_response(
    streams: list[tuple[bool, errors.HeadraceError | None, float]], fraction: float
) -> None:
    """Whatever their number, their ends and the order of begins and ends; in the baseline slice alike."""
    counter = DeploymentCounter(fraction)
    for number, (began, _, seconds) in enumerate(streams):
        if began:
            counter.first_response(seconds, f"id-{number}", [tensor(DType.INT64, [number % 3])])
    for number, (began, error, seconds) in enumerate(streams):
        counter.request(error, None if began else seconds, f"id-{number}", ())
    waited = [
        seconds
        for began, error, seconds in streams
        if began or error is None or isinstance(error, errors.Cancelled | errors.DeadlineExceeded)
    ]
    tally, part = counter.tally(), counter.slice.tally({})
    assert tally.arrived == len(streams)
    assert tally.latency == Counter(map(latency_bucket, waited))
    assert sum(tally.predictions.get("y", {}).values()) == sum(began for began, _, _ in streams)
    for mine, all_of_it in ((part.outcomes, tally.outcomes), (part.latency, tally.latency)):
        assert Counter(mine) <= Counter(all_of_it)  # type: ignore[arg-type]
    assert part.arrived >= sum(part.predictions.get("y", {}).values())


def test_batches_by_their_size() -> None:
    counter = DeploymentCounter()
    for rows, seconds in ((4, 0.5), (4, 0.25), (1, 1.0)):
        counter.batch(rows, seconds)
    assert counter.tally().compute == {4: BatchTally(2, 0.75), 1: BatchTally(1, 1.0)}


@given(st.floats(0.01, 1.0), st.integers(0, 1 << 30))
def test_the_baseline_is_a_slice_of_that_size(fraction: float, seed: int) -> None:
    counter = DeploymentCounter(fraction)
    for number in range(2000):
        counter.request(None, 0.01, f"{seed}-{number}", ())
    found = counter.slice.tally({})
    # Six standard deviations.
    assert abs(found.arrived - 2000 * fraction) <= 6 * (2000 * fraction * (1 - fraction)) ** 0.5 + 1
    assert found.compute == {}


def test_labels_without_end_are_counted_together() -> None:
    counter = DeploymentCounter()
    for number in range(1000):
        counter.request(None, 0.01, "id", [tensor(DType.INT64, [number])])
    (seen,) = counter.tally().predictions.values()
    assert sum(seen.values()) == 1000
    assert len(seen) <= 201


def test_another_share_goes_on_counting_and_another_trial_begins() -> None:
    counters = TrialCounters(Trial("m@1", "m@2", 0.1))
    counters.new.request(None, 0.1, "id", ())
    assert counters.follow(Trial("m@1", "m@2", 1.0))
    assert counters.old.baseline == 1.0
    assert counters.tally("m").new.arrived == 1
    assert not counters.follow(Trial("m@1", "m@3", 1.0))
