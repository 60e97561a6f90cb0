"""Binding a request to a signature: checks names, dtypes and shapes, and computes what batching needs.

Runs for every request before it is queued, so that a request that does not fit never reaches a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import msgspec
import numpy as np

from headrace.core import errors
from headrace.core.models import Signature, TensorSpec
from headrace.core.padding import Inner, Padded
from headrace.core.requests import Parameter
from headrace.core.tensors import Array, DType, Tensor, wire_size

Key = tuple[object, ...]
"""Requests with equal keys may share a batch."""
_PADDED = "padded"


class Bound(msgspec.Struct, gc=False):
    """A request that fits: arrays in the order of ``names``; ``rows`` is 1 for signatures without rows."""

    names: tuple[str, ...]
    dtypes: tuple[str, ...]
    arrays: list[Array]
    rows: int
    nbytes: int
    key: Key
    parameters: dict[str, Parameter]
    padded: Padded | None = None
    """Requests of other lengths may share its batch; None: only those of its exact inner shapes."""


def bind(signature: Signature, tensors: Sequence[Tensor], parameters: dict[str, Parameter]) -> Bound:
    """Match tensors to the signature's inputs.

    Raises InvalidInput that names the input, what came and what was expected."""
    read = _read_by_model(signature, parameters) if parameters else {}
    if signature.any_inputs:
        return _bind_any(signature, tensors, read)
    specs = signature.inputs
    if len(tensors) == 1 and len(specs) == 1:
        spec, only = specs[0], tensors[0]
        array = only.array
        shape = array.shape
        if (
            signature.batchable
            and not read
            and only.name == spec.name
            and only.dtype is spec.dtype
            and spec.dtype is not DType.BYTES
            and len(shape) == len(spec.shape)
            and shape[1:] == spec.shape[1:]
        ):
            # The usual request, in a few steps: one fixed-size input.
            return Bound((spec.name,), (spec.dtype,), [array], shape[0], array.nbytes, (shape[1:],), read)
    ordered = _order(signature, tensors)
    names: list[str] = []
    dtypes: list[str] = []
    arrays: list[Array] = []
    inner: list[Inner | None] = []
    rows = -1
    nbytes = 0
    for spec, tensor in zip(specs, ordered, strict=True):
        if tensor is None:
            inner.append(None)
            continue
        array = _fit(spec, tensor)
        if signature.batchable:
            count = array.shape[0]
            if rows < 0:
                rows = count
            elif count != rows:
                raise errors.InvalidInput(
                    f"input {spec.name!r} has {count} rows, input {names[0]!r} has {rows}: all inputs need the same"
                )
            inner.append(array.shape[1:])
        names.append(spec.name)
        dtypes.append(spec.dtype)
        arrays.append(array)
        nbytes += array.nbytes if spec.dtype is not DType.BYTES else wire_size(tensor)
    padded = None
    shapes: Key = tuple(inner)
    if signature.padding is not None:
        padded = signature.padding.fit([spec.name for spec in specs], inner)
        if padded is not None:
            shapes = (*padded.shapes, _PADDED)
    key: Key = (*shapes, *_parameters_key(read)) if read else shapes
    return Bound(tuple(names), tuple(dtypes), arrays, rows if rows >= 0 else 1, nbytes, key, read, padded)


def rebind(bound: Bound, signature: Signature) -> Bound:
    """The same request for another deployment, whose signature agrees but which may be padded otherwise."""
    tensors = [Tensor(name, DType(d), a) for name, d, a in zip(bound.names, bound.dtypes, bound.arrays, strict=True)]
    return bind(signature, tensors, bound.parameters)


def _bind_any(signature: Signature, tensors: Sequence[Tensor], read: dict[str, Parameter]) -> Bound:
    names = tuple(t.name for t in tensors)
    if len(set(names)) != len(names):
        _refuse_names(signature, tensors)
    rows = 1
    if signature.batchable:
        if not tensors:
            raise errors.InvalidInput("a request needs at least one input tensor")
        for tensor in tensors:
            if tensor.array.ndim == 0:
                raise errors.InvalidInput(f"input {tensor.name!r} has no dimensions; dimension 0 is the rows")
        rows = tensors[0].array.shape[0]
        for tensor in tensors[1:]:
            if tensor.array.shape[0] != rows:
                raise errors.InvalidInput(
                    f"input {tensor.name!r} has {tensor.array.shape[0]} rows, input {names[0]!r} has {rows}"
                )
    key: Key = (
        *((t.name, t.dtype, t.array.shape[1:]) for t in tensors),
        *_parameters_key(read),
    )
    return Bound(
        names,
        tuple(t.dtype for t in tensors),
        [t.array for t in tensors],
        rows,
        sum(wire_size(t) for t in tensors),
        key,
        read,
    )


def _read_by_model(signature: Signature, parameters: dict[str, Parameter]) -> dict[str, Parameter]:
    read = {name: parameters[name] for name in signature.parameters if name in parameters}
    for name, value in read.items():
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
            raise errors.InvalidInput(f"parameter {name!r}: an integer may have 64 bits")
    return read


def _parameters_key(read: dict[str, Parameter]) -> list[tuple[str, type, Parameter]]:
    # 1, 1.0 and True are equal, but a model may tell them apart.
    return [(name, type(read[name]), read[name]) for name in sorted(read)]


def _fit(spec: TensorSpec, tensor: Tensor) -> Array:
    array = tensor.array
    if tensor.dtype is not spec.dtype and tensor.dtype != spec.dtype:
        raise errors.InvalidInput(f"input {spec.name!r}: expected datatype {spec.dtype}, got {tensor.dtype}")
    shape = array.shape
    want = spec.shape
    if len(shape) != len(want):
        # A column [n] is often sent as [n, 1] (pandas, kserve); the values are the same.
        if len(want) == 1 and len(shape) == 2 and shape[1] == 1:
            return array.reshape(shape[0])
        if len(want) == 2 and want[1] == 1 and len(shape) == 1:
            return array.reshape(shape[0], 1)
        _refuse_shape(spec, shape)
    for have, dim in zip(shape, want, strict=True):
        if have != dim and dim != -1:
            _refuse_shape(spec, shape)
    return array


def _order(signature: Signature, tensors: Sequence[Tensor]) -> list[Tensor | None]:
    by_name = {t.name: t for t in tensors}
    if len(by_name) != len(tensors):
        _refuse_names(signature, tensors)
    ordered: list[Tensor | None] = []
    for spec in signature.inputs:
        tensor = by_name.pop(spec.name, None)
        if tensor is None and not spec.optional:
            _refuse_names(signature, tensors)
        ordered.append(tensor)
    if by_name:
        _refuse_names(signature, tensors)
    return ordered


def _refuse_names(signature: Signature, tensors: Sequence[Tensor]) -> NoReturn:
    got = [t.name for t in tensors]
    seen: set[str] = set()
    twice = sorted({n for n in got if n in seen or seen.add(n)})  # type: ignore[func-returns-value]
    if twice:
        raise errors.InvalidInput(f"input {twice[0]!r} is given more than once")
    wanted = [s.name for s in signature.inputs]
    required = [s.name for s in signature.inputs if not s.optional]
    missing = [n for n in required if n not in got]
    unknown = [n for n in got if n not in wanted]
    parts = []
    if missing:
        parts.append(f"missing input {_quoted(missing)}")
    if unknown:
        parts.append(f"unexpected input {_quoted(unknown)}")
    raise errors.InvalidInput(f"{' and '.join(parts)}; the model takes {describe(signature.inputs)}")


def _refuse_shape(spec: TensorSpec, shape: tuple[int, ...]) -> NoReturn:
    raise errors.InvalidInput(
        f"input {spec.name!r}: expected shape {list(spec.shape)} (-1 is any size), got {list(shape)}"
    )


def _quoted(names: list[str]) -> str:
    shown = ", ".join(repr(n) for n in names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"


def describe(specs: Sequence[TensorSpec]) -> str:
    """Specs for people: ``'X' FP32[-1,30], 'age' INT64[-1]``."""
    shown = ", ".join(f"{s.name!r} {s.dtype}{list(s.shape)}" for s in specs[:12]).replace(" [", "[")
    return shown if len(specs) <= 12 else f"{shown} and {len(specs) - 12} more"


def concatenate(parts: Sequence[Array]) -> Array:
    """Join row blocks along dimension 0 (no copy for a single block)."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
