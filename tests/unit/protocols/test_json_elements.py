"""Element types and the words of their refusals."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from headrace.core import errors
from headrace.core.tensors import NUMPY_DTYPES, DType, fp32_to_bf16
from headrace.protocols import json_elements


def wrapped(depth: int) -> bytes:
    return b"[" * depth + b"1" + b"]" * depth


def test_nesting_is_bounded() -> None:
    kind = json_elements.nested(int)
    deepest = msgspec.json.decode(wrapped(json_elements.NESTING), type=kind)
    assert json_elements.to_array(DType.INT64, deepest).ndim == json_elements.NESTING
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(wrapped(json_elements.NESTING + 1), type=kind)


@pytest.mark.parametrize("dtype", [d for d in DType if NUMPY_DTYPES[d].kind in "iu" and d is not DType.BF16])
def test_integers_have_exactly_the_range_of_their_datatype(dtype: DType) -> None:
    limits = np.iinfo(NUMPY_DTYPES[dtype])
    kind = json_elements.nested(json_elements.ELEMENT[dtype])
    good = msgspec.json.decode(b"[%d,%d]" % (limits.min, limits.max), type=kind)
    assert json_elements.to_array(dtype, good).tolist() == [limits.min, limits.max]
    for beyond in (limits.min - 1, limits.max + 1):
        with pytest.raises((msgspec.ValidationError, OverflowError)):
            json_elements.to_array(dtype, msgspec.json.decode(b"[%d]" % beyond, type=kind))


@pytest.mark.parametrize(("dtype", "largest"), [(DType.FP16, 65504.0), (DType.FP32, float(np.finfo(np.float32).max))])
def test_floats_never_become_infinite(dtype: DType, largest: float) -> None:
    kind = json_elements.nested(json_elements.ELEMENT[dtype])
    good = msgspec.json.decode(f"[{largest!r}]".encode(), type=kind)
    assert json_elements.to_array(dtype, good).tolist() == [largest]
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(f"[{largest * 1.001!r}]".encode(), type=kind)


def test_nonfinite_values_are_found_in_every_float_datatype() -> None:
    for value in (np.nan, np.inf, -np.inf):
        array = np.array([1, value], np.float32)
        for dtype in (DType.FP16, DType.FP32, DType.FP64):
            assert json_elements.has_nonfinite(dtype, array.astype(NUMPY_DTYPES[dtype]))
        assert json_elements.has_nonfinite(DType.BF16, fp32_to_bf16(array))
    assert not json_elements.has_nonfinite(DType.BF16, np.array([1], np.uint16))
    assert not json_elements.has_nonfinite(DType.BYTES, np.array([b"nan"], object))


def test_names_in_messages_keep_their_spelling() -> None:
    """Only msgspec's own type names are put in words; a field may be called ``str``."""
    kind = msgspec.defstruct("Row", [("str", int)])
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(b"{}", type=kind)
    assert json_elements.problem(caught.value) == json_elements.Problem("object missing required field `str`", "")
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(b'{"str": "x"}', type=kind)
    assert json_elements.problem(caught.value) == json_elements.Problem("expected integer, got string", ".str")


def test_texts() -> None:
    assert json_elements.texts("y", ["é".encode()], "no") == ["é"]
    with pytest.raises(errors.InvalidInput, match="output 'y': holds bytes that are not UTF-8; use binary"):
        json_elements.texts("y", [b"\xff"], "use binary")
