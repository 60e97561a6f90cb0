"""Compares the input signature in an ``MLmodel`` file with what the model's own file says about its inputs.

A difference keeps nothing from being served; it is told when the model is pushed. The signature was written by hand or
from other data than the model was trained with, and requests that fit it will fail, or worse, not fail.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from headrace.core.models import Artifact
from headrace.runtimes import model_inputs
from headrace.runtimes.model_inputs import Features, TensorInput

_SHOWN = 5


class Comparison(msgspec.Struct, frozen=True):
    """``verdict`` for people; ``differences`` is empty when nothing speaks against the signature."""

    verdict: str
    differences: tuple[str, ...] = ()


def compare(signature: Any, inner: Artifact) -> Comparison:
    """``signature`` is that entry of the MLmodel file; ``inner`` the model's file as inspected."""
    declared = _declared(signature)
    if not declared:
        return Comparison("none declared")
    found = model_inputs.read(inner)
    if found is None or found in ((), Features(None, None)):
        return Comparison(f"not compared: a {inner.format.value} file tells its inputs only when it is loaded")
    differences = (
        _table_differences(declared, found) if isinstance(found, Features) else _tensor_differences(declared, found)
    )
    return Comparison("differs from the model's file" if differences else "as in the model's file", tuple(differences))


def _declared(signature: Any) -> list[dict[str, Any]]:
    """Entries of the signature's inputs; empty when there are none, or none that can be read."""
    text = signature.get("inputs") if isinstance(signature, dict) else None
    try:
        entries = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return []  # ``mlmodel.read`` has refused what is damaged
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _table_differences(declared: list[dict[str, Any]], found: Features) -> list[str]:
    if declared[0].get("type") == "tensor":
        width = _shape(declared[0])[-1:]
        if found.count is not None and width and width[0] not in (-1, found.count):
            return [f"the signature has {width[0]} features, the model {found.count}"]
        return []
    names = [str(entry.get("name", "")) for entry in declared]
    if found.names is not None and all(names):
        # LightGBM writes names without spaces.
        here, there = ([name.replace(" ", "_") for name in listed] for listed in (names, found.names))
        missing = [name for name in there if name not in here]
        foreign = [name for name in here if name not in there]
        differences = [f"the model has features that the signature lacks: {_listed(missing)}"] if missing else []
        return differences + (
            [f"the signature has columns that the model lacks: {_listed(foreign)}"] if foreign else []
        )
    if found.count is not None and len(names) != found.count:
        return [f"the signature has {len(names)} columns, the model {found.count} features"]
    return []


def _tensor_differences(declared: list[dict[str, Any]], found: tuple[TensorInput, ...]) -> list[str]:
    inputs = {tensor.name: tensor for tensor in found}
    if any(entry.get("type") != "tensor" for entry in declared):
        return _column_differences([str(entry.get("name", "")) for entry in declared], found)
    if len(declared) != len(found):
        return [f"the signature has {len(declared)} inputs, the model {len(found)}: {_listed(inputs)}"]
    differences = []
    for entry, first in zip(declared, found, strict=True):
        name = entry.get("name")
        tensor = first if name is None else inputs.get(str(name))
        if tensor is None:
            differences.append(f"the model has no input {name!r}; it has {_listed(inputs)}")
            continue
        dtype = str(_spec(entry).get("dtype", ""))
        if tensor.dtype and dtype not in (tensor.dtype, "", "object"):
            differences.append(f"input {tensor.name!r} is {dtype} in the signature, {tensor.dtype} in the model")
        if not _shapes_fit(_shape(entry), tensor.shape):
            differences.append(
                f"input {tensor.name!r} has shape {list(_shape(entry))} in the signature,"
                f" {list(tensor.shape or ())} in the model"
            )
    return differences


def _column_differences(names: list[str], found: tuple[TensorInput, ...]) -> list[str]:
    """Columns go to inputs of their names, or all of them to one matrix."""
    if len(found) == 1 and found[0].shape is not None and len(found[0].shape) == 2:
        width = found[0].shape[1]
        return [] if width in (-1, len(names)) else [f"the signature has {len(names)} columns, the model takes {width}"]
    missing = [tensor.name for tensor in found if tensor.name not in names]
    return [f"the model has inputs that the signature lacks: {_listed(missing)}"] if missing else []


def _shape(entry: dict[str, Any]) -> tuple[int, ...]:
    shape = _spec(entry).get("shape")
    return tuple(size if isinstance(size, int) else -1 for size in shape) if isinstance(shape, list) else ()


def _spec(entry: dict[str, Any]) -> dict[str, Any]:
    spec = entry.get("tensor-spec")
    return spec if isinstance(spec, dict) else {}


def _shapes_fit(declared: tuple[int, ...], found: tuple[int, ...] | None) -> bool:
    if not declared or found is None:
        return True
    return len(declared) == len(found) and all(
        -1 in pair or pair[0] == pair[1] for pair in zip(declared, found, strict=True)
    )


def _listed(names: Any) -> str:
    shown = [str(name) for name in names]
    return ", ".join(shown[:_SHOWN]) + (f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else "")
