"""When two answers to one request are equal, and how far apart they are. Pure; the one definition of it.

Equal means: bit-identical for integers, booleans and strings (labels); within a tolerance for floating-point numbers,
which is wider for FP16 and BF16, and which an output may declare; bit-identical where it is declared to be 0. NaN
equals NaN, an infinity equals the same infinity, and neither equals a number, whatever the tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from headrace.core import errors
from headrace.core.tensors import Array, DType, Tensor, bf16_to_fp32

_SHOWN = 8
"""Values of an output that are shown."""
_SHOWN_BYTES = 40
"""Bytes of a string that are shown."""


class Tolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number may differ from the expected one by ``atol + rtol·|expected|``. Both 0: bit-identical."""

    rtol: float = 1e-5
    atol: float = 1e-6

    def __post_init__(self) -> None:
        if not (0 <= self.rtol < math.inf and 0 <= self.atol < math.inf):
            raise errors.BadSettings(
                f"a tolerance is a number and not negative, like 1e-3; got rtol {self.rtol}, atol {self.atol}"
            )


EXACT = Tolerance(0.0, 0.0)
_HALF = Tolerance(1e-2, 1e-2)
DEFAULTS: Mapping[DType, Tolerance] = {
    DType.FP64: Tolerance(),
    DType.FP32: Tolerance(),
    DType.FP16: _HALF,
    DType.BF16: _HALF,
}
"""Tolerances of the datatypes that have one: two builds of a model, or batches of two sizes, differ by that much.
Values of all others are equal or are not."""


class Comparison(NamedTuple):
    """``output`` is the first that differs, with a few values of both sides; empty when the answers are equal.

    ``absolute`` and ``relative`` (to the expected number) are the greatest differences of finite numbers over all
    outputs. ``differences`` tells in words what is different, one sentence per output."""

    output: str
    expected: str
    got: str
    absolute: float
    relative: float
    differences: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        return not self.differences


def compare(
    expected: Sequence[Tensor], got: Sequence[Tensor], tolerances: Mapping[str, Tolerance] | None = None
) -> Comparison:
    """Compare two answers. Outputs are matched by name; one that is missing, or has another datatype or shape, differs;
    one that is not among the expected is no difference.

    tolerances  by output name; an output without one has the default of its datatype"""
    theirs = {tensor.name: tensor for tensor in got}
    output, shown, against = "", "", ""
    absolute = relative = 0.0
    differences: list[str] = []
    for tensor in expected:
        found = theirs.get(tensor.name)
        tolerance = (tolerances or {}).get(tensor.name) or DEFAULTS.get(tensor.dtype, EXACT)
        if found is not None and found.dtype == tensor.dtype and found.shape == tensor.shape:
            difference, far = _compare_values(tensor, found, tolerance)
            absolute, relative = max(absolute, far[0]), max(relative, far[1])
        else:
            difference = _misfit(tensor, found)
        if difference:
            if not differences:
                output, shown, against = tensor.name, _show(tensor), "nothing" if found is None else _show(found)
            differences.append(f"output {tensor.name!r} {difference}")
    return Comparison(output, shown, against, absolute, relative, tuple(differences))


def _misfit(expected: Tensor, got: Tensor | None) -> str:
    if got is None:
        return "is missing"
    if got.dtype != expected.dtype:
        return f"is {got.dtype}, expected {expected.dtype}"
    return f"has shape {list(got.shape)}, expected {list(expected.shape)}"


def _compare_values(expected: Tensor, got: Tensor, tolerance: Tolerance) -> tuple[str, tuple[float, float]]:
    """What is different, in words, and the greatest absolute and relative difference."""
    wanted, found = _values(expected), _values(got)
    if not wanted.size or (wanted.dtype != object and wanted.tobytes() == found.tobytes()):
        # Bit by bit the same agree within any tolerance. Most mirrored answers do, and computing how far they are apart
        # takes thirty times as long, on the event loop of a gateway.
        return "", (0.0, 0.0)
    wrong = _wrong(wanted, found, tolerance) if expected.dtype in DEFAULTS else np.asarray(wanted != found)
    far = _distances(wanted, found) if wanted.dtype.kind in "fiu" else (0.0, 0.0)
    count = int(np.count_nonzero(wrong))
    if not count:
        return "", far
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    where = f"differs in {count} of {wanted.size} values, first at {list(at)}"
    return f"{where}: {_text(found[at])}, expected {_text(wanted[at])}", far


def _wrong(wanted: Array, found: Array, tolerance: Tolerance) -> Array:
    """Which of these floating-point numbers differ."""
    if tolerance == EXACT:
        # Bit by bit, but that any NaN equals any other.
        different = np.signbit(wanted) != np.signbit(found)
        return np.asarray(((wanted != found) | different) & ~(np.isnan(wanted) & np.isnan(found)))
    # A difference or a tolerance beyond the largest number is infinite, which compares as it should; a signalling NaN
    # is an invalid operand already when it is cast.
    with np.errstate(over="ignore", invalid="ignore"):
        wanted, found = wanted.astype(np.float64), found.astype(np.float64)
        close = np.isclose(found, wanted, rtol=tolerance.rtol, atol=tolerance.atol, equal_nan=True)
    # isclose takes a number for close to an infinity when their distance, infinite, is within an infinite tolerance.
    return np.asarray(~close | ((wanted != found) & (np.isinf(wanted) | np.isinf(found))))


def _distances(wanted: Array, found: Array) -> tuple[float, float]:
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        one, two = wanted.astype(np.float64), found.astype(np.float64)
        # The same infinity on both sides, or no number on both, is no difference.
        same = (one == two) | (np.isnan(one) & np.isnan(two))
        apart = np.where(same, 0.0, np.abs(one - two))
        share = np.where(apart > 0, apart / np.abs(one), 0.0)
    return _greatest(apart), _greatest(share)


def _greatest(values: Array) -> float:
    """Over the finite ones: a number against none has no distance."""
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else 0.0


def _values(tensor: Tensor) -> Array:
    return bf16_to_fp32(tensor.array) if tensor.dtype is DType.BF16 else tensor.array


def _show(tensor: Tensor) -> str:
    flat = _values(tensor).ravel()
    values = ", ".join(_text(value) for value in flat[:_SHOWN])
    return f"{list(tensor.shape)}: {values}{', …' if flat.size > _SHOWN else ''}"


def _text(value: object) -> str:
    if not isinstance(value, bytes):
        return str(value)
    return repr(value[:_SHOWN_BYTES].decode("utf-8", "replace")) + ("…" if len(value) > _SHOWN_BYTES else "")
