"""What XGBoost and LightGBM have in common: one matrix made of named columns, and labels made of scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from headrace.core import errors
from headrace.core.models import TensorSpec
from headrace.core.tensors import NUMPY_DTYPES, Array, DType, as_bytes_elements
from headrace.runtimes import columns as tables
from headrace.runtimes.columns import Column
from headrace.runtimes.runtime import Arrays


class Categories(msgspec.Struct, frozen=True):
    """The known values of a categorical feature; the code of a value is its position. ``unknown_is_missing``:
    any other value counts as missing (LightGBM), else it is refused (XGBoost)."""

    values: tuple[Any, ...]
    unknown_is_missing: bool

    @property
    def dtype(self) -> DType:
        if all(isinstance(value, str) for value in self.values):
            return DType.BYTES
        if all(isinstance(value, bool) for value in self.values):
            return DType.BOOL
        return DType.INT64 if all(isinstance(value, int) for value in self.values) else DType.FP64


class Table(msgspec.Struct, frozen=True):
    """How a request becomes the matrix of a booster."""

    inputs: tuple[TensorSpec, ...]
    read: Callable[[Mapping[str, Array]], Array]
    example: Arrays
    by_columns: bool


def table(
    width: int,
    names: Sequence[str] | None,
    categories: Mapping[int, Categories],
    given: Sequence[Column] | None,
    dtype: DType,
) -> Table:
    """Columns when the model kept names (or ``given`` has them), else one matrix called ``input``.

    ``dtype`` is that of the matrix and of the columns nothing else is known of."""
    if given is not None and len(given) != width:
        raise errors.BadSettings(f"option {tables.OPTION!r} names {len(given)} columns, the model has {width} features")
    if names is None and given is None and not categories:
        example = {"input": np.zeros((1, width), NUMPY_DTYPES[dtype])}
        return Table((TensorSpec("input", dtype, (-1, width)),), lambda inputs: inputs["input"], example, False)
    labels = list(names) if names is not None else [c.name for c in given or ()] or [f"f{i}" for i in range(width)]
    columns = [_column(label, categories.get(index), given, dtype) for index, label in enumerate(labels)]
    codes = [_coder(column, categories.get(index)) for index, column in enumerate(columns)]
    numpy_dtype = NUMPY_DTYPES[dtype]
    plan = list(zip(range(width), labels, codes, strict=True))

    def read(inputs: Mapping[str, Array]) -> Array:
        # Column-major, so that each column is one straight copy.
        matrix = np.empty((len(next(iter(inputs.values()))), width), numpy_dtype, order="F")
        for index, label, code in plan:
            column = inputs.get(label)
            if column is None:
                matrix[:, index] = np.nan
            else:
                matrix[:, index] = column if code is None else code(column)
        return np.ascontiguousarray(matrix)

    return Table(tuple(column.spec for column in columns), read, tables.samples(columns), True)


def _column(name: str, known: Categories | None, given: Sequence[Column] | None, dtype: DType) -> Column:
    chosen = next((column for column in given or () if column.name == name), None)
    if known is not None:
        optional = chosen is not None and chosen.optional
        return Column(name, known.dtype, example=known.values[0], optional=optional)
    if chosen is not None and chosen.dtype is not DType.BYTES:
        return chosen
    return Column(name, dtype)


def _coder(column: Column, known: Categories | None) -> Callable[[Array], Array] | None:
    """The function from values to category codes; None for a column of numbers."""
    if known is None:
        return None
    text = known.dtype is DType.BYTES
    codes = {_key(value): float(code) for code, value in enumerate(known.values)}

    def code(array: Array) -> Array:
        values = array.tolist()
        found = [codes.get(value, np.nan) for value in values]
        if not known.unknown_is_missing:
            for index, value in enumerate(values):
                if found[index] != found[index] and value != b"" and value == value:
                    found[index] = codes.get(_cut(value), np.nan) if text else np.nan
                    if found[index] != found[index]:
                        raise errors.InvalidInput(_unknown(column.name, value, known))
        return np.array(found)

    return code


def _key(value: Any) -> Any:
    return value.encode(errors="surrogateescape") if isinstance(value, str) else value


def _cut(value: bytes) -> bytes:
    """A text as XGBoost 3 keeps it among its categories: as many bytes as it has characters."""
    return value[: len(value.decode(errors="replace"))]


def _unknown(name: str, value: Any, known: Categories) -> str:
    shown = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    listed = ", ".join(repr(item) for item in known.values[:8])
    more = f" and {len(known.values) - 8} more" if len(known.values) > 8 else ""
    return f"column {name!r}: {shown!r} is no category of the model; it knows {listed}{more}"


# --- outputs ------------------------------------------------------------------------------------------------------


class Labels:
    """Class labels by index: the classes of the estimator when they are known, else 0, 1, …"""

    def __init__(self, count: int, classes: Array | None) -> None:
        if classes is not None and len(classes) != count:
            classes = None
        self.texts = tuple(str(label) for label in (range(count) if classes is None else classes.tolist()))
        if classes is None or classes.dtype.kind in "iu":
            self._values: Array | None = None if classes is None else classes.astype(np.int64)
            dtype = DType.INT64
        elif classes.dtype.kind in "OUS":
            self._values, dtype = as_bytes_elements(classes.astype(object)), DType.BYTES
        else:
            self._values = classes
            dtype = DType.BOOL if classes.dtype.kind == "b" else DType.FP64
        self.spec = TensorSpec("label", dtype, (-1,))

    def take(self, indices: Array) -> Array:
        return indices.astype(np.int64, copy=False) if self._values is None else self._values.take(indices)


Outputs = tuple[tuple[TensorSpec, ...], Callable[[Array], Arrays]]


def binary(dtype: DType, classes: Array | None) -> Outputs:
    """``label`` and ``probabilities`` of both classes, from the probability of the second, [n, 1]."""
    labels = Labels(2, classes)
    numpy_dtype = NUMPY_DTYPES[dtype]

    def finish(raw: Array) -> Arrays:
        second = raw.reshape(-1)
        probabilities = np.empty((len(second), 2), numpy_dtype)
        probabilities[:, 1] = second
        np.subtract(1, second, out=probabilities[:, 0])
        return {"label": labels.take((second > 0.5).view(np.int8)), "probabilities": probabilities}

    return (labels.spec, TensorSpec("probabilities", dtype, (-1, 2), labels=labels.texts)), finish


def multiclass(dtype: DType, count: int, classes: Array | None) -> Outputs:
    """``label`` and ``probabilities`` from one probability per class, [n, count]."""
    labels = Labels(count, classes)

    def finish(raw: Array) -> Arrays:
        return {"label": labels.take(raw.argmax(axis=1)), "probabilities": raw}

    return (labels.spec, TensorSpec("probabilities", dtype, (-1, count), labels=labels.texts)), finish
