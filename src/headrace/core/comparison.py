"""How far two answers to one request are apart. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from headrace.core.tensors import Array, DType, Tensor

RELATIVE_TOLERANCE = 1e-5
ABSOLUTE_TOLERANCE = 1e-6
"""Differences of floating-point numbers up to ``ABSOLUTE + RELATIVE * |live|`` count as agreement: two builds of one
model differ by that much."""

_SHOWN = 8


class Difference(NamedTuple):
    """``output`` is the first that differs, with a few values of both sides; empty when they agree. ``absolute`` and
    ``relative`` are the greatest differences of numbers."""

    output: str
    live: str
    other: str
    absolute: float
    relative: float

    @property
    def agrees(self) -> bool:
        return not self.output


def compare(live: Sequence[Tensor], other: Sequence[Tensor]) -> Difference:
    """Outputs are matched by name; one that is missing, or has another shape, differs."""
    theirs = {tensor.name: tensor for tensor in other}
    output, shown, against = "", "", ""
    absolute = relative = 0.0
    for tensor in live:
        found = theirs.get(tensor.name)
        if found is None or found.array.shape != tensor.array.shape or found.dtype is not tensor.dtype:
            same, far = False, (0.0, 0.0)
        else:
            same, far = _compare(tensor.array, found.array, tensor.dtype)
        absolute, relative = max(absolute, far[0]), max(relative, far[1])
        if not same and not output:
            output, shown, against = tensor.name, _show(tensor), "nothing" if found is None else _show(found)
    return Difference(output, shown, against, absolute, relative)


def _compare(live: Array, other: Array, dtype: DType) -> tuple[bool, tuple[float, float]]:
    if dtype in (DType.BYTES, DType.BOOL, DType.BF16):
        return bool(np.array_equal(live, other)), (0.0, 0.0)
    one, two = live.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        apart = np.abs(one - two)
        # The same infinity on both sides, or no number on both, is no difference.
        apart[(one == two) | (np.isnan(one) & np.isnan(two))] = 0.0
        share = np.where(apart > 0, apart / np.abs(one), 0.0)
    far = _greatest(apart), _greatest(share)
    if live.dtype.kind in "iu":
        return bool(np.array_equal(live, other)), far
    close = np.isclose(two, one, rtol=RELATIVE_TOLERANCE, atol=ABSOLUTE_TOLERANCE, equal_nan=True)
    return bool(np.all(close)), far


def _greatest(values: Array) -> float:
    """Over the finite ones: a number against none has no distance."""
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else 0.0


def _show(tensor: Tensor) -> str:
    flat = tensor.array.ravel()
    values = ", ".join(_text(value) for value in flat[:_SHOWN].tolist())
    return f"{list(tensor.shape)}: {values}{', …' if flat.size > _SHOWN else ''}"


def _text(value: object) -> str:
    return repr(value.decode("utf-8", "replace")[:40]) if isinstance(value, bytes) else str(value)
