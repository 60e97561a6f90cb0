"""What counts as the same answer, and how far apart two are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.comparison import compare
from headrace.core.tensors import NUMPY_DTYPES, DType, Tensor

NAN, INF = math.nan, math.inf


def tensor(values: Any, dtype: DType = DType.FP32, name: str = "y") -> Tensor:
    return Tensor(name, dtype, np.array(values, NUMPY_DTYPES[dtype]))


@pytest.mark.parametrize(
    ("live", "other", "dtype", "agrees", "absolute", "relative"),
    [
        ([1.0, 2.0], [1.0, 2.0], DType.FP32, True, 0.0, 0.0),
        ([1.0], [1.000001], DType.FP64, True, 1e-6, 1e-6),
        ([1.0, 4.0], [1.0, 5.0], DType.FP32, False, 1.0, 0.25),
        ([0.0], [0.5], DType.FP32, False, 0.5, 0.0),
        ([NAN, INF, -INF], [NAN, INF, -INF], DType.FP32, True, 0.0, 0.0),
        ([NAN], [1.0], DType.FP32, False, 0.0, 0.0),
        ([INF], [1.0], DType.FP32, False, 0.0, 0.0),
        ([1, 2], [1, 3], DType.INT64, False, 1.0, 0.5),
        ([2**62], [2**62 + 1], DType.INT64, False, 0.0, 0.0),
        ([True], [False], DType.BOOL, False, 0.0, 0.0),
        ([b"a"], [b"a"], DType.BYTES, True, 0.0, 0.0),
        ([b"a"], [b"b"], DType.BYTES, False, 0.0, 0.0),
        ([], [], DType.FP32, True, 0.0, 0.0),
    ],
)
def test_answers(live: Any, other: Any, dtype: DType, agrees: bool, absolute: float, relative: float) -> None:
    found = compare([tensor(live, dtype)], [tensor(other, dtype)])
    assert found.agrees is agrees
    assert found.absolute == pytest.approx(absolute, rel=1e-3)
    assert found.relative == pytest.approx(relative, rel=1e-3)


def test_the_first_output_that_differs_is_shown() -> None:
    live = [tensor([1.0], name="same"), tensor([[b"cat"]], DType.BYTES, "label"), tensor(range(20), DType.INT64, "z")]
    other = [tensor(range(20), DType.INT64, "z"), tensor([[b"dog"]], DType.BYTES, "label"), tensor([1.0], name="same")]
    found = compare(live, other)
    assert (found.output, found.live, found.other) == ("label", "[1, 1]: 'cat'", "[1, 1]: 'dog'")
    assert compare(live, other[1:]).output == "label"
    gone = compare(live[:1], [])
    assert (gone.output, gone.live, gone.other) == ("same", "[1]: 1.0", "nothing")


@pytest.mark.parametrize("other", [tensor([1.0, 2.0]), tensor([1], DType.INT64)])
def test_another_shape_or_type_differs(other: Tensor) -> None:
    assert not compare([tensor([1.0])], [other]).agrees


@given(st.lists(st.floats(width=32), min_size=1), st.lists(st.floats(width=32), min_size=1))
def test_every_answer_agrees_with_itself_and_distances_are_numbers(one: list[float], two: list[float]) -> None:
    assert compare([tensor(one)], [tensor(one)]) == ("", "", "", 0.0, 0.0)
    length = min(len(one), len(two))
    found = compare([tensor(one[:length])], [tensor(two[:length])])
    assert math.isfinite(found.absolute)
    assert math.isfinite(found.relative)
