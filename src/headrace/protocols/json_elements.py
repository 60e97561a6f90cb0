"""Tensor elements in JSON: what msgspec may accept for each datatype, and lists of them as arrays and back.

Types do the checking: strings, booleans, null, fractions and numbers out of range never reach numpy, which would
convert or wrap them silently. Shared by the JSON dialects.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Any, NoReturn

import msgspec
import numpy as np

from headrace.core import errors
from headrace.core.tensors import NUMPY_DTYPES, Array, DType, bf16_to_fp32, fp32_to_bf16

NESTING = 10
"""Deepest list that is accepted as tensor data."""

_FLOAT_MAX = {
    DType.FP16: 65504.0,
    DType.BF16: 3.3895313892515355e38,
    DType.FP32: 3.4028234663852886e38,
    DType.FP64: 1.7976931348623157e308,
}
FLOATS = frozenset(_FLOAT_MAX)


def _integers(low: int | None, high: int | None) -> Any:
    return Annotated[int, msgspec.Meta(ge=low, le=high)]


def _bounded(dtype: DType) -> Any:
    return Annotated[float, msgspec.Meta(ge=-_FLOAT_MAX[dtype], le=_FLOAT_MAX[dtype])]


# 64-bit bounds do not fit msgspec's constraints where they are its own limits; numpy refuses what is beyond them.
ELEMENT: dict[DType, Any] = {
    DType.BOOL: bool | _integers(0, 1),
    DType.INT8: _integers(-(1 << 7), (1 << 7) - 1),
    DType.INT16: _integers(-(1 << 15), (1 << 15) - 1),
    DType.INT32: _integers(-(1 << 31), (1 << 31) - 1),
    DType.INT64: int,
    DType.UINT8: _integers(0, (1 << 8) - 1),
    DType.UINT16: _integers(0, (1 << 16) - 1),
    DType.UINT32: _integers(0, (1 << 32) - 1),
    DType.UINT64: _integers(0, None),
    DType.FP16: _bounded(DType.FP16),
    DType.BF16: _bounded(DType.BF16),
    DType.FP32: _bounded(DType.FP32),
    DType.FP64: float,
    DType.BYTES: str,
}
"""The msgspec type of one JSON element of each datatype."""


class Base64(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``{"b64": "…"}``: a BYTES element in dialects that have it."""

    b64: bytes


def nested(element: Any) -> Any:
    """The type of a list of ``element``, flat or nested up to ``NESTING`` levels."""
    found: Any = list[element]
    for _ in range(NESTING - 1):
        found = list[element | found]
    return found


def to_array(dtype: DType, data: Any) -> Array:
    """An array of checked elements, in the shape of the nesting. None among floats becomes NaN.

    Raises ValueError for ragged nesting and OverflowError for integers out of range: the caller knows the name."""
    if dtype is DType.BYTES:
        return _bytes_array(data)
    if dtype is DType.BF16:
        return fp32_to_bf16(np.array(data, np.float32))
    return np.array(data, NUMPY_DTYPES[dtype])


def _bytes_array(data: Any) -> Array:
    if not isinstance(data, list):
        return _filled([_encode(data)]).reshape(())
    shape: list[int] = [len(data)]
    while data and isinstance(data[0], list):
        inner = len(data[0])
        if not all(isinstance(item, list) and len(item) == inner for item in data):
            raise ValueError("ragged nesting")
        shape.append(inner)
        data = list(chain.from_iterable(data))
    return _filled([_encode(item) for item in data]).reshape(shape)


def _encode(item: Any) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, bytes):
        return item
    if isinstance(item, Base64):
        return item.b64
    raise ValueError("ragged nesting")


def _filled(items: list[bytes]) -> Array:
    out = np.empty(len(items), dtype=object)
    out[:] = items
    return out


def to_list(dtype: DType, array: Array) -> list[Any]:
    """A flat or nested list (the array's shape) of Python numbers or ``bytes``, ready to be encoded."""
    if dtype is DType.BF16:
        array = bf16_to_fp32(array)
    values: list[Any] = array.tolist()
    return values


def texts(name: str, values: list[bytes], advice: str) -> list[str]:
    """BYTES elements of an output as JSON strings. Raises InvalidInput with ``advice`` when one is not UTF-8."""
    try:
        return [item.decode() for item in values]
    except UnicodeDecodeError:
        raise errors.InvalidInput(f"output {name!r}: holds bytes that are not UTF-8; {advice}") from None


def has_nonfinite(dtype: DType, array: Array) -> bool:
    """Whether NaN or an infinity is among the elements."""
    if dtype not in FLOATS:
        return False
    return not np.isfinite(bf16_to_fp32(array) if dtype is DType.BF16 else array).all()


_LOCATED = re.compile(r"(?s)(.*?) - at `(?:key in )?\$(.*)`\Z")
_KINDS = re.compile(r"(?<=xpected )`[a-z| ]+`|(?<=, got )`[a-z| ]+`")
_NAMES = {"str": "string", "bool": "boolean", "null": "null", "int": "integer", "float": "number"}


class Problem(msgspec.Struct, frozen=True):
    """What msgspec found wrong: ``what`` in words, at ``path`` (``.inputs[0].data[3]``; empty: the whole body)."""

    what: str
    path: str


def problem(error: msgspec.ValidationError) -> Problem:
    """msgspec's message, taken apart and put in words of JSON."""
    found = _LOCATED.match(str(error))
    what, path = (found[1], found[2]) if found else (str(error), "")
    what = _KINDS.sub(lambda kinds: " or ".join(_NAMES.get(name, name) for name in kinds[0][1:-1].split(" | ")), what)
    return Problem(what[:1].lower() + what[1:], path)


def refuse_malformed(error: Exception, body: bytes | memoryview) -> NoReturn:
    """Raise InvalidInput for a body that is no JSON at all."""
    if isinstance(error, RecursionError):
        raise errors.InvalidInput("the JSON of the body is nested too deeply") from None
    if isinstance(error, UnicodeDecodeError):
        raise errors.InvalidInput(f"the body is not valid UTF-8: {error.reason} at byte {error.start}") from None
    if not len(body):
        raise errors.InvalidInput("the body is empty; a JSON object was expected") from None
    raise errors.InvalidInput(f"the body is not valid JSON: {error}") from None


def refuse_count(name: str, shape: Sequence[int], got: int) -> NoReturn:
    """Raise InvalidInput for data that does not fill its shape."""
    expected = 1
    for dim in shape:
        expected *= dim
    raise errors.InvalidInput(f"input {name!r}: shape {list(shape)} takes {expected} elements, got {got}")
