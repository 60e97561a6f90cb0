"""Reads the signature of a user's model from the annotations of ``predict``, and converts its results.

The rules are those of the docstring of ``headrace.Model``. What cannot be understood is a LoadFailed that names
the argument and says what to write.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import numpy as np

from headrace.core import errors, tensors
from headrace.core.models import Signature, SlotKind, Slots, TensorSpec
from headrace.core.padding import PaddingRules
from headrace.core.tensors import NUMPY_DTYPES, Array, DType
from headrace.runtimes.model import Model, Shape, TensorType

STREAM_CONCURRENCY = 64
_SINGLE = "output"
_EXAMPLES = {"pad": '{"tokens": 0}', "dims": '{"tokens": "length", "scores": "length"}'}
_SCALARS = (str, int, float, bool)
_STREAMS = (collections.abc.Iterator, collections.abc.Generator, collections.abc.Iterable)


@dataclasses.dataclass(frozen=True, slots=True)
class Declared:
    """What the annotations say. ``outputs`` is None when nothing is declared; ``single`` means that ``predict``
    returns the one output itself, not a dict. ``positional`` is the name of the argument that takes the dict of
    all inputs."""

    signature: Signature
    slots: Slots
    inputs: tuple[tuple[str, TensorType], ...]
    outputs: tuple[tuple[str, TensorType], ...] | None
    single: bool
    positional: str | None


def read(model: Model) -> Declared:
    """Declarations of a model object. Raises LoadFailed when they cannot be understood."""
    owner = type(model).__name__
    predict = model.predict
    if inspect.iscoroutinefunction(predict) or inspect.isasyncgenfunction(predict):
        raise errors.LoadFailed(f"{owner}.predict is async: write `def predict`; set `concurrency` to overlap requests")
    hints = _hints(predict, owner)
    returned = hints.pop("return", None)
    inputs, parameters, positional = _arguments(model, predict, hints, owner)
    streaming, returned = _streaming(predict, returned)
    outputs, single = _outputs(returned, owner)
    concurrency = model.concurrency or (STREAM_CONCURRENCY if streaming else 1)
    slots = Slots(SlotKind.CONCURRENT, concurrency) if streaming or concurrency > 1 else Slots()
    # Requests that run side by side run alone, so there is nothing to join.
    batchable = bool(model.batchable) and slots.kind is SlotKind.BATCH
    if batchable:
        _check_rows((*inputs, *(outputs or ())), owner)
    signature = Signature(
        inputs=tuple(_spec(name, kind) for name, kind in inputs),
        outputs=tuple(_spec(name, kind) for name, kind in outputs or ()),
        batchable=batchable,
        columns=bool(inputs) and all(kind.shape == (-1,) for _, kind in inputs),
        streaming=streaming,
        parameters=parameters,
        any_inputs=positional is not None,
    )
    return Declared(signature, slots, inputs, outputs, single, positional)


def _hints(predict: Callable[..., Any], owner: str) -> dict[str, Any]:
    function = getattr(predict, "__func__", predict)
    # Text annotations of a function that was pickled by value come without the globals they name.
    known = {} if "headrace" in getattr(function, "__globals__", {}) else {"headrace": sys.modules["headrace"]}
    try:
        return inspect.get_annotations(function, locals=known, eval_str=True)
    except Exception as error:  # annotations are code of the user's file and may raise anything
        raise errors.LoadFailed(f"the annotations of {owner}.predict cannot be evaluated: {error}") from error


def _arguments(
    model: Model, predict: Callable[..., Any], hints: dict[str, Any], owner: str
) -> tuple[tuple[tuple[str, TensorType], ...], tuple[str, ...], str | None]:
    inputs: list[tuple[str, TensorType]] = []
    parameters: list[str] = []
    plain: list[str] = []
    arguments = inspect.signature(predict).parameters
    for name, argument in arguments.items():
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            continue
        if argument.kind is argument.POSITIONAL_ONLY:
            raise errors.LoadFailed(f"{owner}.predict: argument {name!r} is positional-only; inputs are given by name")
        hint = hints.get(name)
        defaulted = argument.default is not argument.empty
        if name in model.parameters or (hint in _SCALARS and defaulted):
            if not defaulted:
                raise errors.LoadFailed(f"{owner}.predict: request parameter {name!r} needs a default value")
            parameters.append(name)
            continue
        kind = tensor_type(hint)
        if kind is None:
            plain.append(name)
            if hint in _SCALARS:
                raise errors.LoadFailed(
                    f"{owner}.predict: {name!r} is annotated {hint.__name__}; annotate an input with a column type"
                    f" such as headrace.Float32 or headrace.Strings, or give a request parameter a default"
                )
            continue
        inputs.append((name, dataclasses.replace(kind, optional=True) if defaulted else kind))
    for name in model.parameters:
        if name not in arguments and not any(a.kind is a.VAR_KEYWORD for a in arguments.values()):
            raise errors.LoadFailed(f"{owner}.parameters names {name!r}, which predict does not take")
        if name not in parameters:
            parameters.append(name)
    if not plain and not inputs:
        raise errors.LoadFailed(f"{owner}.predict takes no inputs; write e.g. `def predict(self, x: headrace.Float32)`")
    if plain and (inputs or len(plain) > 1):
        raise errors.LoadFailed(
            f"{owner}.predict: argument {plain[0]!r} has no column type; annotate every input, e.g."
            f" `{plain[0]}: headrace.Float32`, or take one dict of all inputs: `def predict(self, inputs)`"
        )
    return tuple(inputs), tuple(parameters), plain[0] if plain else None


def tensor_type(hint: Any) -> TensorType | None:
    """The tensor type an annotation means, or None: plain, ``Annotated`` with a Shape, or optional."""
    if isinstance(hint, TensorType):
        return hint
    origin = typing.get_origin(hint)
    if origin is Annotated:
        inner = tensor_type(hint.__origin__)
        for extra in hint.__metadata__:
            if inner is not None and isinstance(extra, Shape):
                inner = inner.shaped(extra.dims)
        return inner
    if origin is typing.Union or origin is types.UnionType:
        members = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        inner = tensor_type(members[0]) if len(members) == 1 else None
        return dataclasses.replace(inner, optional=True) if inner is not None else None
    return None


def _streaming(predict: Callable[..., Any], returned: Any) -> tuple[bool, Any]:
    origin = typing.get_origin(returned)
    if origin in _STREAMS:
        return True, typing.get_args(returned)[0]
    return inspect.isgeneratorfunction(predict), returned


def _outputs(returned: Any, owner: str) -> tuple[tuple[tuple[str, TensorType], ...] | None, bool]:
    kind = tensor_type(returned)
    if kind is not None:
        return ((_SINGLE, kind),), True
    if isinstance(returned, dict):
        fields = returned
    elif isinstance(returned, type) and _has_fields(returned):
        fields = typing.get_type_hints(returned, include_extras=True)
    else:
        # `-> dict`, `-> Any`, nothing: the outputs are known when they come.
        return None, False
    outputs: list[tuple[str, TensorType]] = []
    for name, hint in fields.items():
        kind = tensor_type(hint)
        if not isinstance(name, str) or kind is None:
            raise errors.LoadFailed(
                f"{owner}.predict: output {name!r} is annotated {hint!r}; use a type such as headrace.Float32"
            )
        outputs.append((name, kind))
    return tuple(outputs), False


def _has_fields(cls: type) -> bool:
    return typing.is_typeddict(cls) or dataclasses.is_dataclass(cls) or hasattr(cls, "_fields")


def _check_rows(tensors: tuple[tuple[str, TensorType], ...], owner: str) -> None:
    for name, kind in tensors:
        if not kind.shape or kind.shape[0] != -1:
            raise errors.LoadFailed(
                f"{owner}.predict: {name!r} has shape {list(kind.shape)}, but rows of requests are joined along the"
                f" first dimension, which must be -1; change the shape or set `batchable = False`"
            )


def _spec(name: str, kind: TensorType) -> TensorSpec:
    return TensorSpec(name, kind.dtype, kind.shape, optional=kind.optional)


def padding_rules(model: Model) -> PaddingRules:
    """What the class says about padding. Raises LoadFailed when it is not of the kind that ``headrace.Model`` tells."""
    owner = type(model).__name__
    for name in ("pad", "dims"):
        if not isinstance(getattr(model, name), Mapping):
            raise errors.LoadFailed(f"{owner}.{name} is no mapping; write e.g. {name} = {_EXAMPLES[name]}")
    for name, value in model.pad.items():
        if not isinstance(value, bool | int | float | str):
            raise errors.LoadFailed(f"{owner}.pad[{name!r}] is no number, bool or text")
    dims = {name: (names,) if isinstance(names, str) else tuple(names) for name, names in model.dims.items()}
    return PaddingRules(dict(model.pad), tuple(model.buckets), dims)


# --- values -------------------------------------------------------------------------------------------------------


def from_wire(kind: TensorType, array: Array) -> Array:
    """What a user's argument gets for an array as it comes to the runtime."""
    if kind.dtype is DType.BYTES and kind.text:
        out = np.empty(array.shape, dtype=object)
        out.ravel()[:] = [item.decode() for item in array.ravel()]
        return out
    if kind.dtype is DType.BF16:
        return tensors.bf16_to_fp32(array)
    return array


def results(declared: Declared, value: Any) -> dict[str, Array]:
    """Outputs by name from what ``predict`` returned or yielded. Raises BadModelOutput when they do not fit."""
    if declared.outputs is None:
        named = value if isinstance(value, Mapping) else {_SINGLE: value}
        return {str(name): undeclared(str(name), item) for name, item in named.items()}
    if declared.single or _lone(declared, value):
        name, kind = declared.outputs[0]
        return {name: convert(name, kind, value)}
    named = _mapping(value)
    if len(named) != len(declared.outputs) or any(name not in named for name, _ in declared.outputs):
        raise errors.BadModelOutput(
            f"predict returned {_listed(list(named))}, its annotation declares"
            f" {_listed([name for name, _ in declared.outputs])}"
        )
    return {name: convert(name, kind, named[name]) for name, kind in declared.outputs}


def _lone(declared: Declared, value: Any) -> bool:
    """A stream of one declared output may yield the bare value: ``yield token``."""
    outputs = declared.outputs
    return declared.signature.streaming and outputs is not None and len(outputs) == 1 and not _is_named(value)


def _is_named(value: Any) -> bool:
    return isinstance(value, Mapping) or dataclasses.is_dataclass(value) or hasattr(value, "_fields")


def _mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(value, "_asdict"):
        named: Mapping[str, Any] = value._asdict()
        return named
    if hasattr(value, "columns") and hasattr(value, "__getitem__"):  # a data frame
        return {str(name): value[name] for name in value.columns}
    raise errors.BadModelOutput(f"predict returned {type(value).__name__}; its annotation declares a dict of outputs")


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names) if names else "nothing"


def convert(name: str, kind: TensorType, value: Any) -> Array:
    """An array of the declared dtype. A scalar becomes one row. Values never change silently: a float is not
    cut to an integer, a number is not made a truth value."""
    if kind.dtype is DType.BYTES:
        return _at_least_one_row(to_bytes(name, value))
    want = NUMPY_DTYPES["FP32" if kind.dtype is DType.BF16 else kind.dtype]
    array = _array(name, value)
    if array.dtype != want:
        array = _cast(name, kind, array, want)
    if kind.dtype is DType.BF16:
        array = tensors.fp32_to_bf16(array)
    return _at_least_one_row(array)


def _cast(name: str, kind: TensorType, array: Array, want: np.dtype[Any]) -> Array:
    have = array.dtype
    if array.size == 0 or np.can_cast(have, want, "same_kind"):
        return array.astype(want)
    if have.kind in "iu" and want.kind in "iu":
        limits = np.iinfo(want)
        if int(array.min()) >= limits.min and int(array.max()) <= limits.max:
            return array.astype(want)
        raise errors.BadModelOutput(f"output {name!r} has values outside {kind.dtype}")
    raise errors.BadModelOutput(f"output {name!r} is declared {kind.dtype}, predict returned {have}")


def _array(name: str, value: Any) -> Array:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise errors.BadModelOutput(f"output {name!r} is not a rectangular array: {error}") from error


def to_bytes(name: str, value: Any) -> Array:
    """Object array of ``bytes`` from strings in any arrangement."""
    if isinstance(value, (str, bytes)):
        return tensors.as_bytes_elements(np.array([value], dtype=object))
    if not isinstance(value, np.ndarray):
        # dtype=object keeps trailing zero bytes, which numpy's own string dtypes drop
        try:
            value = np.array(value, dtype=object)
        except ValueError as error:
            raise errors.BadModelOutput(f"output {name!r} is not a rectangular array: {error}") from error
    return tensors.as_bytes_elements(value)


def undeclared(name: str, value: Any) -> Array:
    """An array of whatever dtype the value has."""
    if isinstance(value, (str, bytes)):
        return to_bytes(name, value)
    array = _array(name, value)
    if array.dtype.kind in "OUS":
        return _at_least_one_row(to_bytes(name, value))
    try:
        want = NUMPY_DTYPES[tensors.dtype_of(array)]
    except errors.InvalidInput as error:
        raise errors.BadModelOutput(f"output {name!r}: {error.message}") from error
    return _at_least_one_row(array.astype(want, copy=False))


def _at_least_one_row(array: Array) -> Array:
    return array.reshape(1) if array.ndim == 0 else array


def sample_rows(declared: Declared, samples: Mapping[str, Any] | None) -> dict[str, Array] | None:
    """The first row of a model's ``samples`` as a worker would send it."""
    if samples is None:
        return None
    kinds = dict(declared.inputs)
    rows: dict[str, Array] = {}
    for name, value in samples.items():
        if declared.positional is None and name not in kinds:
            raise errors.LoadFailed(f"samples has {name!r}, which is no input of predict")
        kind = kinds.get(name)
        array = undeclared(name, value) if kind is None else convert(name, kind, value)
        if kind is not None and array.ndim == len(kind.shape) - 1:
            array = array[np.newaxis]
        rows[name] = array[:1] if kind is None or kind.shape[:1] == (-1,) else array
    return rows
