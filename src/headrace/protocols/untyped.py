"""JSON values as tensors without datatypes from the client: converted to a spec, or guessed for dynamic models."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np

from headrace.core import errors
from headrace.core.models import Signature, TensorSpec
from headrace.core.tensors import Array, DType, Tensor, element_count
from headrace.protocols import json_elements

UNNAMED = "input"
"""Name of a bare value for a model that declares no inputs."""


def guess(name: str, data: Any) -> tuple[DType, Array]:
    """Datatype and array of a JSON value: whole numbers are INT64 (UINT64 when large), others FP64, text BYTES.

    Raises InvalidInput for ragged lists, mixed types and objects."""
    leaves = set(map(type, flatten(data)))
    try:
        if leaves <= {str, bytes} and leaves:
            return DType.BYTES, json_elements.to_array(DType.BYTES, data)
        if leaves == {bool}:
            return DType.BOOL, json_elements.to_array(DType.BOOL, data)
        if leaves == {int}:
            return _integers(data)
        if leaves <= {int, float, type(None)}:
            return DType.FP64, json_elements.to_array(DType.FP64, data)
    except OverflowError:
        raise errors.InvalidInput(f"input {name!r}: an integer does not fit in 64 bits") from None
    except ValueError:
        raise errors.InvalidInput(f"input {name!r}: the nested lists have different lengths") from None
    kinds = ", ".join(sorted(_JSON_NAMES.get(kind, kind.__name__) for kind in leaves))
    raise errors.InvalidInput(f"input {name!r}: expected numbers, booleans or strings, all of one kind; got {kinds}")


_JSON_NAMES = {str: "string", bool: "boolean", int: "number", float: "number", dict: "object", type(None): "null"}


def _integers(data: Any) -> tuple[DType, Array]:
    try:
        return DType.INT64, np.array(data, np.int64)
    except OverflowError:
        if any(item < 0 for item in flatten(data)):
            raise
        return DType.UINT64, np.array(data, np.uint64)


def flatten(data: Any) -> list[Any]:
    """The leaves of nested lists; a scalar is its own leaf. Raises InvalidInput for absurd nesting."""
    items = data if isinstance(data, list) else [data]
    for _ in range(json_elements.NESTING):
        if not any(isinstance(item, list) for item in items):
            return items
        items = list(chain.from_iterable(item if isinstance(item, list) else [item] for item in items))
    raise errors.InvalidInput(f"lists of values are nested more than {json_elements.NESTING} deep")


def guess_rows(signature: Signature, value: Any) -> list[Tensor]:
    """Rows of a dynamic model as tensors: objects give one per key, anything else one. Raises InvalidInput."""
    if not isinstance(value, list) or not value:
        raise errors.InvalidInput("instances: expected a list of at least one row")
    if not isinstance(value[0], dict):
        return [_guessed(_only_name(signature), value)]
    names = value[0].keys()
    for at, row in enumerate(value):
        if not isinstance(row, dict) or row.keys() != names:
            raise errors.InvalidInput(
                f"instances[{at}]: expected an object with the keys of the first row: {list(names)}"
            )
    return [_guessed(name, [row[name] for row in value]) for name in names]


def guess_columns(signature: Signature, value: Any) -> list[Tensor]:
    """Columns of a dynamic model as tensors: an object gives one per key, anything else one. Raises InvalidInput."""
    if isinstance(value, dict):
        return [_guessed(name, column) for name, column in value.items()]
    return [_guessed(_only_name(signature), value)]


def _guessed(name: str, value: Any) -> Tensor:
    dtype, array = guess(name, value)
    return Tensor(name, dtype, array)


def _only_name(signature: Signature) -> str:
    return signature.inputs[0].name if signature.inputs else UNNAMED


def fill(spec: TensorSpec, array: Array, batchable: bool) -> Array:
    """Give flat values the shape of ``spec``: one row where rows are possible, else one free dimension is deduced.

    Raises InvalidInput when the count does not fit."""
    shape = list(spec.shape)
    free = [at for at, dim in enumerate(shape) if dim == -1]
    if batchable and shape[:1] == [-1] and len(free) > 1:
        shape[free.pop(0)] = 1
    for at in free[:-1]:
        shape[at] = 1
    known = element_count(tuple(dim for at, dim in enumerate(shape) if at not in free[-1:]))
    if free and known and array.size % known == 0:
        shape[free[-1]] = array.size // known
    try:
        return array.reshape(shape)
    except ValueError:
        raise errors.InvalidInput(
            f"input {spec.name!r}: {array.size} values do not fill shape {list(spec.shape)} (-1 is any size)"
        ) from None
