"""Groups of waiting batches: which fit together, and what each gets back."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.core.requests import Parameter
from headrace.replica import execution, messages
from headrace.replica.messages import TensorHead
from headrace.replica.waiting import Waiting, compatible, join, split, withdrawn


def batch(
    rows: list[int],
    *,
    flags: int = 0,
    replica: int = 0,
    gone: frozenset[int] = frozenset(),
    dtype: str = "FP32",
    width: int = 1,
    **parameters: Parameter,
) -> Waiting:
    array = np.arange(sum(rows) * width, dtype=np.float32).reshape(-1, width)
    head = messages.RunHead(1, rows, [TensorHead("x", dtype, array.shape, array.nbytes)], parameters, 8, True)
    frame = messages.Frame(messages.RUN, flags, replica, b"", b"")
    return Waiting(None, frame, head, [array], gone)  # type: ignore[arg-type]


def test_split_gives_every_batch_its_rows_and_failures() -> None:
    group = [batch([1, 2]), batch([0]), batch([1, 1])]
    failures = [messages.CallFailure(1, "model_raised", "a"), messages.CallFailure(4, "model_raised", "b")]
    computed = execution.Computed({"y": np.array([10, 20])}, failures, 5)
    parts = split(group, computed)
    assert [p.outputs["y"].tolist() for p in parts] == [[10], [], [20]]
    assert [[(f.index, f.message) for f in p.failures] for p in parts] == [[(1, "a")], [], [(1, "b")]]
    nothing = execution.Computed({}, [messages.CallFailure(i, "bug", "") for i in range(5)], 5)
    assert [p.outputs for p in split(group, nothing)] == [{}, {}, {}]


def test_joined_inputs_follow_the_order_of_the_group() -> None:
    assert join([batch([1, 2]), batch([0]), batch([1])])["x"].tolist() == [[0], [1], [2], [0]]


def test_withdrawn_calls_are_counted_over_the_group() -> None:
    group = [batch([1, 2]), batch([1], gone=frozenset({0})), batch([1, 1], gone=frozenset({1, 7}))]
    assert withdrawn(group) == {2, 4}
    assert not withdrawn(group[:1])


@pytest.mark.parametrize(
    ("one", "other", "fits"),
    [
        (batch([1]), batch([2]), True),
        (batch([1]), batch([2], width=2), False),
        (batch([1]), batch([2], dtype="INT32"), False),
        (batch([1]), batch([2], replica=1), False),
        (batch([1]), batch([2], flags=messages.SOLO), False),
        (batch([1], mode=1), batch([1], mode=1), True),
        (batch([1], mode=1), batch([1], mode=True), False),
        (batch([1], mode=1), batch([1]), False),
    ],
)
def test_only_alike_batches_fit(one: Waiting, other: Waiting, fits: bool) -> None:
    assert compatible(one, other) is fits
