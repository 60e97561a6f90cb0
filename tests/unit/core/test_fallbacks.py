"""Constants as outputs: of the declared type and shape, for every row, or an error that names the output."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.core import errors
from headrace.core.fallbacks import constant_outputs
from headrace.core.models import Signature, TensorSpec
from headrace.core.tensors import DType


def outputs(dtype: DType, shape: tuple[int, ...], value: Any, rows: int = 3, *, batchable: bool = True) -> Any:
    signature = Signature((), (TensorSpec("y", dtype, shape),), batchable=batchable)
    (tensor,) = constant_outputs({"y": value, "unasked": 1}, signature, rows)
    assert (tensor.name, tensor.dtype) == ("y", dtype)
    assert tensor.array.flags["C_CONTIGUOUS"]
    return tensor.array


@pytest.mark.parametrize(
    ("dtype", "shape", "value", "expected"),
    [
        (DType.FP32, (-1,), 0.5, [0.5, 0.5, 0.5]),
        (DType.INT64, (-1,), 7, [7, 7, 7]),
        (DType.BOOL, (-1,), True, [True] * 3),
        (DType.BYTES, (-1,), "unknown", [b"unknown"] * 3),
        (DType.FP32, (-1, 2), 0, [[0, 0]] * 3),
        (DType.FP32, (-1, 2), [0.25, 0.75], [[0.25, 0.75]] * 3),
        (DType.FP32, (-1, -1), [1, 2, 3], [[1, 2, 3]] * 3),
        (DType.BYTES, (-1, 2), ["a", "b"], [[b"a", b"b"]] * 3),
    ],
)
def test_every_row_gets_the_constant(dtype: DType, shape: tuple[int, ...], value: Any, expected: Any) -> None:
    assert outputs(dtype, shape, value).tolist() == expected


def test_a_model_without_rows_gets_it_once() -> None:
    assert outputs(DType.FP64, (2,), 1, rows=1, batchable=False).tolist() == [1.0, 1.0]
    assert outputs(DType.FP32, (-1,), [1, 2, 3], rows=1, batchable=False).dtype == np.float32


@pytest.mark.parametrize(
    ("dtype", "shape", "value", "words"),
    [
        (DType.FP32, (-1,), "high", "output 'y' is FP32, the constant 'high' is not"),
        (DType.FP32, (-1, 3), [1, 2], r"output 'y' has the shape \[3\] a row, the constant has \[2\]"),
        (DType.FP32, (-1, -1), 1, r"has the shape \[-1\] a row, the constant has \[\]"),
        (DType.FP32, (-1,), [[1], [2, 3]], "the constant .* is not"),
        (DType.BF16, (-1,), 1, "is BF16, which a constant cannot be"),
    ],
)
def test_what_does_not_fit_is_said(dtype: DType, shape: tuple[int, ...], value: Any, words: str) -> None:
    with pytest.raises(errors.BadModelOutput, match=words):
        outputs(dtype, shape, value)


def test_outputs_that_are_missing_are_named() -> None:
    signature = Signature((), (TensorSpec("label", DType.INT64, (-1,)),))
    with pytest.raises(errors.BadModelOutput, match="the constant has no output 'label'; it has: y"):
        constant_outputs({"y": 1}, signature, 1)
