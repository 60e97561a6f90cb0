"""Columns of a table as a model wants them: names, datatypes, and how requests are turned into values.

Shared by the runtimes whose models were trained on data frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from headrace.core import errors
from headrace.core.models import TensorSpec
from headrace.core.tensors import NUMPY_DTYPES, Array, DType


class Column(msgspec.Struct, frozen=True):
    """``missing`` stands for an empty string of a text column (NO_MISSING: it stays one), and for every row of
    an optional column that is left out. ``example`` is a value the model knows."""

    name: str
    dtype: DType = DType.FP64
    missing: Any = ""
    optional: bool = False
    example: Any = None
    kind: str = ""
    """``datetime``: text that becomes a time; ``binary``: bytes that stay bytes."""

    @property
    def spec(self) -> TensorSpec:
        return TensorSpec(self.name, self.dtype, (-1,), optional=self.optional)


class _Given(msgspec.Struct, forbid_unknown_fields=True):
    dtype: DType
    optional: bool = False
    kind: str = ""


OPTION = "columns"
"""The option that names columns and their datatypes, as JSON: ``{"age": "INT64", "country": "BYTES"}``."""


def from_option(options: Mapping[str, str]) -> tuple[Column, ...] | None:
    """Columns as given by the option, None when it is not."""
    text = options.get(OPTION)
    if text is None:
        return None
    try:
        given = msgspec.json.decode(text, type=dict[str, DType | _Given])
    except msgspec.DecodeError as error:
        raise errors.BadSettings(
            f'option {OPTION!r} is JSON such as {{"age": "INT64", "country": "BYTES"}}: {error}'
        ) from error
    columns: list[Column] = []
    for name, entry in given.items():
        detail = entry if isinstance(entry, _Given) else _Given(entry)
        missing = np.nan if detail.optional and detail.dtype is not DType.BYTES else None if detail.optional else ""
        columns.append(Column(name, detail.dtype, missing, detail.optional, kind=detail.kind))
    return tuple(columns)


def to_option(columns: Sequence[Column]) -> str:
    """The inverse of ``from_option``."""
    return msgspec.json.encode({c.name: _Given(c.dtype, c.optional, c.kind) for c in columns}).decode()


def text(column: Column, array: Array) -> Array:
    """An object array of ``str`` from the bytes of a request; empty strings become the missing value."""
    try:
        values: list[Any] = [item.decode() for item in array]
    except UnicodeDecodeError as error:
        raise errors.InvalidInput(f"column {column.name!r} is not valid UTF-8: {error.reason}") from error
    if column.missing != "":
        values = [value if value else column.missing for value in values]
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out


def samples(columns: Sequence[Column]) -> dict[str, Array]:
    """One row of values that the model knows."""
    return {column.name: _one(column) for column in columns if not column.optional}


def _one(column: Column) -> Array:
    if column.dtype is DType.BYTES:
        out = np.empty(1, dtype=object)
        out[0] = str(column.example if column.example is not None else "").encode(errors="surrogateescape")
        return out
    return np.array([column.example if column.example is not None else 0], dtype=NUMPY_DTYPES[column.dtype])
