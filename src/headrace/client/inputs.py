"""Python values → typed tensors by a model's signature: dicts, rows, data frames, arrays.

Conversions never lose anything silently: a float that is not whole, a number out of range or text that is no number
is an InvalidInput that names the input and the row. Names and shapes are also checked by the server, which has the
last word; here only what conversion needs is checked.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from headrace.client.metadata import ModelMetadata
from headrace.core import errors
from headrace.core.binding import describe
from headrace.core.models import TensorSpec
from headrace.core.tensors import NUMPY_DTYPES, Array, DType, Tensor, as_bytes_elements, dtype_of, fp32_to_bf16

Inputs = Any
"""A dict of names to values, a list of row dicts, a data frame, or one array for a model with one input."""


def to_tensors(inputs: Inputs, metadata: ModelMetadata) -> list[Tensor]:
    """Tensors with the dtypes of the signature. Raises InvalidInput that names the input."""
    named = _by_name(inputs, metadata)
    if not metadata.inputs:
        return [_untyped(name, value) for name, value in named.items()]
    specs = {spec.name: spec for spec in metadata.inputs}
    for name in named:
        if name not in specs:
            close = difflib.get_close_matches(str(name), specs, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise errors.InvalidInput(f"unexpected input {name!r}; the model takes {describe(metadata.inputs)}{hint}")
    return [Tensor(name, specs[name].dtype, to_array(specs[name], value)) for name, value in named.items()]


def to_array(spec: TensorSpec, value: Any) -> Array:
    """``value`` as an array of ``spec``'s dtype. A single row gets the missing first dimension."""
    array = _convert(spec, value)
    if array.ndim == len(spec.shape) - 1 and spec.shape[0] == -1:
        array = array.reshape(1, *array.shape)
    return array


def _by_name(inputs: Inputs, metadata: ModelMetadata) -> dict[str, Any]:
    if isinstance(inputs, Mapping):
        return dict(inputs)
    if hasattr(inputs, "columns") and hasattr(inputs, "to_numpy"):
        return _from_frame(inputs, metadata)
    if isinstance(inputs, Sequence) and inputs and all(isinstance(row, Mapping) for row in inputs):
        return _from_rows(inputs)
    if len(metadata.inputs) == 1:
        return {metadata.inputs[0].name: inputs}
    if not metadata.inputs:
        return {"input": inputs}
    raise errors.InvalidInput(
        f"the model has {len(metadata.inputs)} inputs: give a dict of name to values or a data frame, not"
        f" {type(inputs).__name__}; it takes {describe(metadata.inputs)}"
    )


def _from_frame(frame: Any, metadata: ModelMetadata) -> dict[str, Any]:
    """Columns by name (pandas and polars alike); a model with one matrix input takes all columns in order."""
    columns = [str(name) for name in frame.columns]
    if len(metadata.inputs) == 1 and len(metadata.inputs[0].shape) == 2 and metadata.inputs[0].name not in columns:
        return {metadata.inputs[0].name: frame.to_numpy()}
    return {str(name): frame[name].to_numpy() for name in frame.columns}


def _from_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = list(rows[0])
    for index, row in enumerate(rows):
        if row.keys() != rows[0].keys():
            odd = sorted(map(str, row.keys() ^ rows[0].keys()))
            raise errors.InvalidInput(f"row {index} and row 0 differ in {', '.join(map(repr, odd))}")
    return {name: [row[name] for row in rows] for name in names}


def _untyped(name: str, value: Any) -> Tensor:
    array = _as_array(TensorSpec(name, DType.BYTES, ()), value)
    if array.dtype.kind in "USO":
        return Tensor(name, DType.BYTES, as_bytes_elements(array))
    dtype = dtype_of(array)
    array = np.atleast_1d(array)
    return Tensor(name, dtype, array.astype(NUMPY_DTYPES[dtype], copy=False))


def _as_array(spec: TensorSpec, value: Any) -> Array:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, bytes):
        # numpy would strip trailing zero bytes
        return _object_array([value]).reshape(())
    if hasattr(value, "to_numpy"):
        return np.asarray(value.to_numpy())
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise errors.InvalidInput(f"input {spec.name!r}: rows have different lengths: {error}") from error
    if array.dtype.kind in "USO" or _lossy(array, value):
        array = _ragged_checked(spec, value)
    return array


def _lossy(array: Array, value: Any) -> bool:
    """True when numpy met ints beyond int64 beside others and fell back to float64."""
    return (
        array.dtype.kind == "f"
        and bool(array.size)
        and not isinstance(value, float)
        and bool(np.any(np.abs(array[np.isfinite(array)]) >= 2**53))
    )


def _ragged_checked(spec: TensorSpec, value: Any) -> Array:
    """An object array of the leaves: keeps str, bytes and big ints as they are."""
    array = np.array(value, dtype=object)
    if any(isinstance(item, list | tuple) for item in array.ravel()):
        raise errors.InvalidInput(f"input {spec.name!r}: rows have different lengths")
    return array


def _object_array(items: list[Any]) -> Array:
    out = np.empty(len(items), dtype=object)
    out[:] = items
    return out


def _convert(spec: TensorSpec, value: Any) -> Array:
    array = _as_array(spec, value)
    match spec.dtype:
        case DType.BYTES:
            return _to_bytes(spec, array)
        case DType.BOOL:
            return _to_bool(spec, array)
        case DType.FP16 | DType.FP32 | DType.FP64 | DType.BF16:
            return _to_float(spec, array)
        case _:
            return _to_integer(spec, array)


def _to_bytes(spec: TensorSpec, array: Array) -> Array:
    if array.dtype.kind not in "USO":
        _refuse(spec, "text", array.ravel()[:1].tolist()[0] if array.size else str(array.dtype), 0)
    for row, item in enumerate(array.ravel()):
        if not isinstance(item, str | bytes) and not _is_missing(item):
            _refuse(spec, "text", item, _row(array, row))
    filled = array
    if array.dtype == object:
        filled = _object_array([b"" if _is_missing(item) else item for item in array.ravel()]).reshape(array.shape)
    return as_bytes_elements(filled)


def _to_bool(spec: TensorSpec, array: Array) -> Array:
    if array.dtype == np.bool_:
        return array
    if array.dtype.kind in "USO":
        bad = np.array(
            [not isinstance(item, bool | int | np.bool_) or item not in (0, 1) for item in array.ravel()], bool
        )
    elif array.dtype.kind in "iuf":
        bad = ((array != 0) & (array != 1)).ravel()
    else:
        _refuse(spec, "true or false", str(array.dtype), None)
    _refuse_first(spec, "true or false", array, bad)
    return array.astype(np.bool_)


def _to_float(spec: TensorSpec, array: Array) -> Array:
    if array.dtype.kind in "USO":
        array = _numbers(spec, array, missing=True)
    elif array.dtype.kind not in "biuf":
        _refuse(spec, "numbers", str(array.dtype), None)
    if spec.dtype is DType.BF16:
        return fp32_to_bf16(array.astype(np.float32))
    target = NUMPY_DTYPES[spec.dtype]
    with np.errstate(over="ignore"):
        converted = array.astype(target, copy=False)
    if converted is not array and array.dtype.kind == "f":
        # A finite number that became infinite was out of range.
        _refuse_first(
            spec, f"a number in the range of {spec.dtype}", array, (np.isinf(converted) & np.isfinite(array)).ravel()
        )
    return converted


def _to_integer(spec: TensorSpec, array: Array) -> Array:
    target = NUMPY_DTYPES[spec.dtype]
    if array.dtype == target:
        return array
    if array.dtype.kind in "USO":
        array = _numbers(spec, array, missing=False)
    elif array.dtype.kind not in "biuf":
        _refuse(spec, "whole numbers", str(array.dtype), None)
    limits = np.iinfo(target)
    expected = f"a whole number from {limits.min} to {limits.max}"
    flat = array.ravel()
    if array.dtype == object:
        bad = np.array([item != item or not limits.min <= item <= limits.max or item % 1 != 0 for item in flat], bool)
    elif array.dtype.kind == "f":
        # limits.max + 1 is exact as a float where limits.max itself is rounded up to it.
        inside = (flat >= float(limits.min)) & (flat < float(limits.max) + 1.0)
        bad = ~inside | (flat != np.trunc(flat))
    elif array.dtype.kind == "b":
        return array.astype(target)
    else:
        bad = (flat > limits.max) if flat.dtype.kind == "u" else (flat < limits.min) | (flat > limits.max)
    _refuse_first(spec, expected, array, bad)
    return array.astype(target)


def _numbers(spec: TensorSpec, array: Array, *, missing: bool) -> Array:
    """Numbers out of an object array; None and NA become NaN when ``missing`` is allowed."""
    items: list[Any] = []
    for index, item in enumerate(array.ravel()):
        if missing and _is_missing(item):
            items.append(np.nan)
        elif isinstance(item, bool | int | float | np.number | np.bool_):
            items.append(item)
        else:
            _refuse(spec, "a number", None if _is_missing(item) else item, _row(array, index))
    if missing:
        return np.array(items, dtype=np.float64).reshape(array.shape)
    return _object_array(items).reshape(array.shape)


def _is_missing(item: Any) -> bool:
    """None, NaN and pandas' NA and NaT, without importing pandas."""
    if item is None or type(item).__name__ in {"NAType", "NaTType"}:
        return True
    return isinstance(item, float | np.floating) and bool(item != item)


def _row(array: Array, index: int) -> int:
    """Row of a flat index."""
    return index // max(1, array.size // array.shape[0]) if array.ndim else 0


def _refuse_first(spec: TensorSpec, expected: str, array: Array, bad: Array) -> None:
    """Raise for the first element that ``bad`` (flat) marks."""
    if bad.any():
        index = int(bad.argmax())
        item = array.ravel()[index]
        _refuse(spec, expected, item.item() if isinstance(item, np.generic) else item, _row(array, index))


def _refuse(spec: TensorSpec, expected: str, got: Any, row: int | None) -> NoReturn:
    shown = repr(got) if not isinstance(got, float) else f"{got!r}"
    if len(shown) > 60:
        shown = f"{shown[:57]}…"
    at = "" if row is None else f" row {row}"
    raise errors.InvalidInput(f"input {spec.name!r}{at}: expected {expected} ({spec.dtype}), got {shown}")
