"""One array for every datatype of the Open Inference Protocol, with the values that go wrong most easily."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

TEXTS = ["", "plain", "küche", "中国", "🦀 emoji", 'quote " and \\ backslash', "nul \0 inside", "line\nbreak"]


def objects(values: list[Any], *shape: int) -> Array:
    made = np.empty(len(values), object)
    made[:] = values
    return made.reshape(shape or len(values))


def _integers(dtype: type) -> Array:
    limits = np.iinfo(dtype)
    return np.array([[limits.min, 0, 1], [2, limits.max - 1, limits.max]], dtype)


ARRAYS: dict[str, Array] = {
    "BOOL": np.array([[True, False], [False, True]]),
    "INT8": _integers(np.int8),
    "INT16": _integers(np.int16),
    "INT32": _integers(np.int32),
    "INT64": _integers(np.int64),
    "UINT8": _integers(np.uint8),
    "UINT16": _integers(np.uint16),
    "UINT32": _integers(np.uint32),
    "UINT64": _integers(np.uint64),
    "FP16": np.array([[0.5, -2.25], [65504, 6e-8]], np.float16),
    "BF16": np.array([[0.5, -2.25], [3e38, 1e-30]], ml_dtypes.bfloat16),
    "FP32": np.array([[0.1, -1.5], [3.4e38, 1.2e-38]], np.float32),
    "FP64": np.array([[0.1, -1.5], [1.7e308, 5e-324]], np.float64),
    "BYTES": objects([text.encode() for text in TEXTS], 2, 4),
}

WITHOUT_JSON = ("FP16", "BF16")
"""Datatypes that travel as binary only."""


def same(got: Array, wanted: Array) -> bool:
    """Bit for bit, the shape too."""
    if got.shape != wanted.shape:
        return False
    if wanted.dtype == object:
        return [v if isinstance(v, bytes) else v.encode() for v in got.ravel()] == wanted.ravel().tolist()
    return got.dtype == wanted.dtype and got.tobytes() == wanted.tobytes()
