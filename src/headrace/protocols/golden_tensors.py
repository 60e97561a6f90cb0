"""Tensors of golden files: those of the Open Inference Protocol's JSON, and what it has no form for. Sans-IO.

``name``, ``datatype``, ``shape`` and ``data`` (flat or nested). FP16 and BF16 are numbers, "NaN", "Infinity" and
"-Infinity" stand for what is no number, {"b64": "…"} for bytes that are no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from headrace.core import errors
from headrace.core.tensors import Array, DType, Tensor, bf16_to_fp32, element_count
from headrace.protocols import json_elements

_NO_NUMBERS = Literal["NaN", "Infinity", "-Infinity"]
_Dimension = Annotated[int, msgspec.Meta(ge=0)]


class WrittenTensor(msgspec.Struct):
    """As it is written."""

    name: str
    datatype: DType
    shape: tuple[_Dimension, ...]
    data: Any


class RawTensor(WrittenTensor):
    """As it is read: ``data`` is decoded when its datatype is known."""

    data: msgspec.Raw


def _element(dtype: DType) -> Any:
    element = json_elements.ELEMENT[dtype]
    if dtype in json_elements.FLOATS:
        return element | _NO_NUMBERS
    return element | json_elements.Base64 if dtype is DType.BYTES else element


_decode_data = {dtype: msgspec.json.Decoder(json_elements.nested(_element(dtype))).decode for dtype in DType}


def read(found: Sequence[RawTensor], field: str) -> tuple[Tensor, ...]:
    """The tensors of a line's field, which errors call ``field``. Raises InvalidInput."""
    names = [item.name for item in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise errors.InvalidInput(f"{field}: {twice!r} is given more than once")
    return tuple(
        Tensor(item.name, item.datatype, _array(item, f"{field}[{at}] {item.name!r}")) for at, item in enumerate(found)
    )


def _array(item: RawTensor, where: str) -> Array:
    try:
        expected = element_count(item.shape)
        array = json_elements.to_array(item.datatype, _decode_data[item.datatype](item.data))
    except msgspec.ValidationError as error:
        problem = json_elements.problem(error)
        what = problem.what.replace(" or array", "") if problem.path else problem.what
        raise errors.InvalidInput(f"{where}: data{problem.path}: {what}; {_kind(item.datatype)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise errors.InvalidInput(f"{where}: data cannot be read: {error}; {_kind(item.datatype)}") from None
    except OverflowError:
        raise errors.InvalidInput(f"{where}: data holds an integer out of range of {item.datatype}") from None
    except ValueError:
        raise errors.InvalidInput(f"{where}: the nested lists of data have different lengths") from None
    except errors.InvalidInput as error:
        raise errors.InvalidInput(f"{where}: {error.message}") from None
    if array.size != expected:
        raise errors.InvalidInput(f"{where}: shape {list(item.shape)} takes {expected} elements, data has {array.size}")
    return array.reshape(item.shape)


def _kind(dtype: DType) -> str:
    """What elements of this datatype look like."""
    if dtype is DType.BYTES:
        return 'expected strings like "US", or {"b64": "AP8="} for bytes that are no text'
    if dtype is DType.BOOL:
        return "expected true or false"
    if dtype in json_elements.FLOATS:
        return f'expected numbers in the range of {dtype} like 0.5, or "NaN", "Infinity", "-Infinity"'
    return f"expected whole numbers in the range of {dtype}"


def written(tensor: Tensor) -> WrittenTensor:
    """``read`` gives the same values back, bit for bit but for the bits of NaN."""
    array = tensor.array.ravel()
    if tensor.dtype is DType.BYTES:
        data: list[Any] = [_text(item) for item in array]
    elif tensor.dtype in json_elements.FLOATS:
        data = _numbers(bf16_to_fp32(array) if tensor.dtype is DType.BF16 else array)
    else:
        data = array.tolist()
    return WrittenTensor(tensor.name, tensor.dtype, tensor.shape, data)


def _text(item: bytes) -> str | json_elements.Base64:
    try:
        return item.decode()
    except UnicodeDecodeError:
        return json_elements.Base64(item)


def _numbers(array: Array) -> list[Any]:
    """Short floats keep their own digits: 0.1, not 0.10000000149011612."""
    exact = array.astype(np.float64)
    # Rounded to its own digits, the largest number of a datatype is out of its range.
    short = np.where(np.abs(exact) < 1e38, array.astype(str).astype(np.float64), exact)
    values: list[Any] = short.tolist()
    if np.isfinite(exact).all():
        return values
    return [value if np.isfinite(value) else _NAMES[str(value)] for value in values]


_NAMES = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
