"""Checks what was declared about padding against a loaded model: the answers must not change silently.

Two tensors have a dimension in common when it has the same name: the artifact's (symbolic dimensions of ONNX) or one
that was declared. Whatever is left open is refused, with what to declare.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from headrace.core import errors, tensors
from headrace.core.models import Signature, SlotKind, Slots, TensorSpec
from headrace.core.padding import DEFAULT_BUCKETS, PaddedInput, Padding, PaddingRules, Value
from headrace.core.tensors import NUMPY_DTYPES, DType

ONLY_DIM = "length"
"""Name of the one open dimension of a padded input that nothing else names."""

Names = Mapping[str, tuple[str, ...]]
"""Tensor → names of all its dimensions as the artifact has them, the rows included; empty: unnamed."""

_WORDS = {"true": True, "1": True, "false": False, "0": False}


def resolve(signature: Signature, slots: Slots, names: Names, rules: PaddingRules) -> Padding | None:
    """How requests are padded; None when nothing was declared. Raises LoadFailed when the declaration does not fit the
    model or does not say enough."""
    if not rules.pad:
        if rules.buckets or rules.dims:
            raise errors.LoadFailed("buckets and dims say how inputs are padded, but pad names none, e.g. input_ids: 0")
        return None
    _check_model(signature, slots, rules)
    dims: list[str] = []
    inputs: dict[str, PaddedInput] = {}
    for spec in signature.inputs:
        if spec.name in rules.pad:
            named = _padded_dims(spec, names, rules)
            dims += [name for name in named.values() if name not in dims]
            axes = tuple((axis, dims.index(name)) for axis, name in named.items())
            inputs[spec.name] = PaddedInput(axes, _value(spec, rules.pad[spec.name]))
    others = _other_dims(signature, names, rules, dims)
    outputs = {spec.name: _output_axes(spec, names, rules, dims, others) for spec in signature.outputs}
    return Padding(tuple(dims), _buckets(rules), inputs, {name: axes for name, axes in outputs.items() if axes})


def _check_model(signature: Signature, slots: Slots, rules: PaddingRules) -> None:
    if signature.any_inputs or not signature.outputs:
        raise errors.LoadFailed("pad needs a model whose inputs and outputs are declared: this one's are not")
    if not signature.batchable or signature.streaming or slots.kind is SlotKind.CONCURRENT:
        raise errors.LoadFailed("pad is for models that compute several requests at once; this one takes one at a time")
    _check_names("pad", rules.pad, signature.inputs)
    _check_names("dims", rules.dims, (*signature.inputs, *signature.outputs))
    for spec in (*signature.inputs, *signature.outputs):
        given = rules.dims.get(spec.name)
        if given is not None and (len(given) != len(spec.shape) - 1 or not all(given)):
            raise errors.LoadFailed(
                f"dims names {len(given)} dimensions of {spec.name!r}, which has {len(spec.shape) - 1} after the rows"
            )


def _check_names(key: str, given: Iterable[str], known: tuple[TensorSpec, ...]) -> None:
    names = [spec.name for spec in known]
    for name in given:
        if name not in names:
            raise errors.LoadFailed(f"{key} names {name!r}, which the model does not have; it has {', '.join(names)}")


def _open_dims(spec: TensorSpec, names: Names, rules: PaddingRules) -> dict[int, str]:
    """Axis behind the rows → name, of the dimensions of any size; empty where nothing names one."""
    artifact = names.get(spec.name, ())
    unnamed = ("",) * (len(spec.shape) - 1)
    found = rules.dims.get(spec.name) or (artifact[1:] if len(artifact) == len(spec.shape) else unnamed)
    return {axis: found[axis] for axis, size in enumerate(spec.shape[1:]) if size == -1}


def _padded_dims(spec: TensorSpec, names: Names, rules: PaddingRules) -> dict[int, str]:
    found = _open_dims(spec, names, rules)
    if not found:
        raise errors.LoadFailed(f"pad names input {spec.name!r}, which has no dimension of any size after the rows")
    if list(found.values()) == [""]:
        return dict.fromkeys(found, ONLY_DIM)
    if "" in found.values():
        raise errors.LoadFailed(f"input {spec.name!r} has several dimensions of any size: name them in dims")
    return found


def _other_dims(signature: Signature, names: Names, rules: PaddingRules, dims: list[str]) -> set[str]:
    """Names of open dimensions of inputs that are not padded. Raises LoadFailed when one has to be, or may have to."""
    others: set[str] = set()
    for spec in signature.inputs:
        if spec.name in rules.pad:
            continue
        for axis, name in _open_dims(spec, names, rules).items():
            if not name or name in dims:
                what = f"{name!r}, which is padded" if name else "any size, and nothing names it"
                raise errors.LoadFailed(
                    f"dimension {axis + 1} of input {spec.name!r} has {what}: give the input a value in pad, or the"
                    " dimension another name in dims"
                )
            others.add(name)
    return others


def _output_axes(
    spec: TensorSpec, names: Names, rules: PaddingRules, dims: list[str], others: set[str]
) -> tuple[tuple[int, int], ...]:
    axes = []
    artifact = _open_dims(spec, names, PaddingRules())
    for axis, name in _open_dims(spec, names, rules).items():
        if name not in dims and artifact[axis] in dims:
            raise errors.LoadFailed(
                f"dims calls dimension {axis + 1} of output {spec.name!r} {name!r}, but the model calls it"
                f" {artifact[axis]!r}, which is padded: it has to be cut back"
            )
        if name in dims:
            axes.append((axis, dims.index(name)))
        elif not (spec.name in rules.dims or name in others):
            # A name like "floor(tokens/2)" is related to what is padded, and an unnamed one may be.
            known = f" ({name})" if name else ""
            raise errors.LoadFailed(
                f"nothing says whether dimension {axis + 1} of output {spec.name!r}{known} follows"
                f" {' or '.join(dims)}: name it in dims, e.g. {spec.name}: {dims[0]}"
            )
    return tuple(axes)


def _buckets(rules: PaddingRules) -> tuple[int, ...]:
    buckets = rules.buckets or DEFAULT_BUCKETS
    if any(not isinstance(size, int) or size < 1 for size in buckets):
        raise errors.LoadFailed(f"buckets are lengths of at least 1, got {', '.join(map(str, buckets))}")
    return tuple(sorted(set(buckets)))


def _value(spec: TensorSpec, given: Value) -> Value:
    """The value as the dtype holds it; texts of settings are read. Raises LoadFailed."""
    try:
        value = _read(spec.dtype, given)
    except (ValueError, OverflowError):
        raise errors.LoadFailed(f"pad: {given!r} is no value of input {spec.name!r}, which is {spec.dtype}") from None
    return value


def _read(dtype: DType, given: Value) -> Value:
    if dtype is DType.BYTES:
        return str(given)
    if dtype is DType.BOOL:
        word = str(given).lower()
        if word not in _WORDS:
            raise ValueError(word)
        return _WORDS[word]
    if dtype in (DType.FP16, DType.FP32, DType.FP64, DType.BF16):
        number = float(given)
        if math.isnan(number):
            raise ValueError(given)
        # BF16 tensors hold bit patterns.
        return int(tensors.fp32_to_bf16(np.array([number]))[0]) if dtype is DType.BF16 else number
    whole = int(str(given))
    limits = np.iinfo(NUMPY_DTYPES[dtype])
    if not limits.min <= whole <= limits.max:
        raise ValueError(given)
    return whole
