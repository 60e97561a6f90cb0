"""Compares an answer in Open Inference Protocol JSON with the outputs that are right for its request."""

from __future__ import annotations

import math

import msgspec
import numpy as np


class _Output(msgspec.Struct):
    name: str
    shape: list[int]
    data: list[float]


class _Answer(msgspec.Struct):
    outputs: list[_Output]


_decode = msgspec.json.Decoder(_Answer).decode
_MANY = 64  # from here on numpy is faster than a loop


def mismatch(body: bytes, expected: dict[str, list[float]], rtol: float, atol: float) -> str | None:
    """None when every expected output is there with the right values; else what is wrong."""
    try:
        outputs = {output.name: output for output in _decode(body).outputs}
    except msgspec.DecodeError as error:
        return f"not an answer: {error}"
    for name, right in expected.items():
        if (output := outputs.get(name)) is None:
            return f"output {name!r} is missing"
        if len(output.data) != len(right) or math.prod(output.shape) != len(right):
            return f"{name}: {len(output.data)} values of shape {output.shape}, expected {len(right)}"
        if not _close(output.data, right, rtol, atol):
            return f"{name}: got {output.data[:4]}, expected {right[:4]}"
    return None


def _close(got: list[float], right: list[float], rtol: float, atol: float) -> bool:
    if len(right) >= _MANY:
        return bool(np.allclose(got, right, rtol=rtol, atol=atol))
    return all(abs(a - b) <= atol + rtol * abs(b) for a, b in zip(got, right, strict=True))
