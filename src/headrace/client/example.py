"""Example requests made from a model's signature, to paste into a shell: they work, though their values are zeros."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from headrace.core.models import TensorSpec
from headrace.core.tensors import DType

MOST_VALUES = 64
"""Requests with more values than this are no reading matter: a file is named instead."""

_FLOATS = frozenset({DType.FP16, DType.BF16, DType.FP32, DType.FP64})


def example_inputs(inputs: Sequence[TensorSpec]) -> dict[str, Any] | None:
    """Sample tensors by name, as ``Client.predict`` and ``headrace predict --data`` take them: one row of zeros.

    None when that is more than ``MOST_VALUES`` values."""
    needed = [spec for spec in inputs if not spec.optional] or list(inputs)
    if not needed:
        return {"input": [0.0]}
    if sum(math.prod(_sizes(spec)) for spec in needed) > MOST_VALUES:
        return None
    return {spec.name: _nested(_sizes(spec), _sample(spec.dtype)) for spec in needed}


def example_body(inputs: Sequence[TensorSpec], *, batchable: bool, columns: bool) -> bytes | None:
    """Body for ``POST /v1/models/{model}:predict``; None when the inputs are too large to type."""
    sample = example_inputs(inputs)
    if sample is None:
        return None
    if not batchable:
        return msgspec.json.encode({"inputs": sample})
    row = {name: values[0] for name, values in sample.items()}
    if len(inputs) == 1 and not columns:
        return msgspec.json.encode({"instances": list(row.values())})
    return msgspec.json.encode({"instances": [row]})


def curl(
    url: str,
    model: str,
    inputs: Sequence[TensorSpec],
    *,
    batchable: bool,
    columns: bool,
    streaming: bool,
    key: bool = False,
) -> str:
    """One shell command that sends an example, or, for large inputs, one that shows what the model takes; ``key``: with
    the API key of the shell's environment."""
    # The certificate of a first try is rarely one that curl knows.
    command = "curl -s -k" if url.startswith("https:") else "curl -s"
    if key:
        command += ' -H "Authorization: Bearer $HEADRACE_API_KEY"'
    name = quote(model, safe="/")
    if streaming:
        sample = example_inputs(inputs)
        if sample is not None:
            target = f"{url}/v2/models/{name}/generate_stream"
            return f"{command} -N {shlex.quote(target)} -d {_quoted(msgspec.json.encode(sample))}"
    else:
        body = example_body(inputs, batchable=batchable, columns=columns)
        if body is not None:
            return f"{command} {shlex.quote(f'{url}/v1/models/{name}:predict')} -d {_quoted(body)}"
    return f"{command} {shlex.quote(f'{url}/v2/models/{name}')}"


def predict_command(url: str, model: str, inputs: Sequence[TensorSpec]) -> str:
    """The same with ``headrace predict``, which also sends large tensors from files."""
    parts = ["headrace", "predict", shlex.quote(model)]
    if url != "http://127.0.0.1:8000":
        parts += ["--url", shlex.quote(url)]
    sample = example_inputs(inputs)
    if sample is not None:
        parts += ["--data", _quoted(msgspec.json.encode(sample))]
    else:
        for spec in inputs:
            if not spec.optional:
                parts += ["--input", shlex.quote(f"{spec.name}=@{spec.name}.npy")]
    return " ".join(parts)


def _quoted(document: bytes) -> str:
    return shlex.quote(document.decode())


def _sizes(spec: TensorSpec) -> tuple[int, ...]:
    """The shape with 1 for every free dimension."""
    return tuple(1 if dim == -1 else dim for dim in spec.shape)


def _sample(dtype: DType) -> Any:
    if dtype is DType.BYTES:
        return "a"
    if dtype is DType.BOOL:
        return False
    return 0.0 if dtype in _FLOATS else 0


def _nested(sizes: Sequence[int], value: Any) -> Any:
    if not sizes:
        return value
    return [_nested(sizes[1:], value) for _ in range(sizes[0])]
