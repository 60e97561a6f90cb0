"""Golden requests: does a new version give the answers that were recorded for it? Pure.

Equal means: bit-identical for integers, booleans, strings and labels; within a tolerance for floats, which each output
may declare; bit-identical too where ``exact`` is declared, as trees are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from headrace.control.analysis.verdict import Finding
from headrace.core import errors, tensors
from headrace.core.tensors import Array, DType, Tensor

_SHOWN = 5
"""Differences that a report spells out."""


class Tolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value may differ from the expected one by ``atol + rtol·|expected|``. Both 0: bit-identical."""

    rtol: float = 1e-5
    atol: float = 1e-6

    def __post_init__(self) -> None:
        if self.rtol < 0 or self.atol < 0:
            raise errors.BadSettings(f"tolerances are not negative; got rtol {self.rtol}, atol {self.atol}")


EXACT = Tolerance(0.0, 0.0)
_DEFAULTS = {
    DType.FP64: Tolerance(),
    DType.FP32: Tolerance(),
    DType.FP16: Tolerance(1e-2, 1e-2),
    DType.BF16: Tolerance(1e-2, 1e-2),
}


class GoldenReport(msgspec.Struct, frozen=True):
    """INCONCLUSIVE: requests could not be asked, which is no fault of the version."""

    finding: Finding
    reason: str
    differences: tuple[str, ...] = ()


class GoldenAnswer(msgspec.Struct, frozen=True):
    """What came of one golden request: outputs, or the error it ended with."""

    request: str
    """Its name, or its line in the file."""
    expected: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...] = ()
    error: errors.HeadraceError | None = None


def report(answers: Sequence[GoldenAnswer], tolerances: Mapping[str, Tolerance] | None = None) -> GoldenReport:
    """Judge all golden requests of a version. No requests at all pass: there is nothing to hold it to.

    tolerances  by output name; an output without one has the default of its datatype"""
    differences: list[str] = []
    wrong = 0
    unasked: list[str] = []
    for answer in answers:
        if isinstance(answer.error, errors.NotReady | errors.Overloaded | errors.Cancelled | errors.ReplicaDied):
            unasked.append(f"{answer.request}: {answer.error.message}")
        elif answer.error is not None:
            wrong += 1
            differences.append(f"{answer.request}: failed with {answer.error.code}: {answer.error.message}")
        else:
            found = compare(answer.expected, answer.outputs, tolerances or {})
            wrong += bool(found)
            differences += [f"{answer.request}: {difference}" for difference in found]
    if differences:
        reason = f"{wrong} of {len(answers)} differ: " + "; ".join(differences[:_SHOWN])
        return GoldenReport(Finding.FAIL, reason, tuple(differences))
    if unasked:
        reason = f"{len(unasked)} of {len(answers)} could not be asked: " + "; ".join(unasked[:_SHOWN])
        return GoldenReport(Finding.INCONCLUSIVE, reason)
    return GoldenReport(Finding.PASS, f"{len(answers)} answered as recorded" if answers else "there are none")


def compare(expected: Sequence[Tensor], got: Sequence[Tensor], tolerances: Mapping[str, Tolerance]) -> list[str]:
    """Differences in words, one per output at most; empty when the answers are equal.

    Outputs are matched by name; one that was not recorded is no difference."""
    outputs = {tensor.name: tensor for tensor in got}
    differences = []
    for tensor in expected:
        found = outputs.get(tensor.name)
        tolerance = tolerances.get(tensor.name, _DEFAULTS.get(tensor.dtype, EXACT))
        difference = _difference(tensor, found, tolerance) if found is not None else "is missing"
        if difference:
            differences.append(f"output {tensor.name!r} {difference}")
    return differences


def _difference(expected: Tensor, got: Tensor, tolerance: Tolerance) -> str:
    if expected.dtype is not got.dtype:
        return f"is {got.dtype}, expected {expected.dtype}"
    if expected.shape != got.shape:
        return f"has shape {list(got.shape)}, expected {list(expected.shape)}"
    wanted, found = _comparable(expected), _comparable(got)
    wrong = _wrong(wanted, found, tolerance, floats=expected.dtype in _DEFAULTS)
    count = int(np.count_nonzero(wrong))
    if not count:
        return ""
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    shown = _shown(found[at]), _shown(wanted[at])
    return f"differs in {count} of {wanted.size} values, first at {list(at)}: {shown[0]}, expected {shown[1]}"


def _comparable(tensor: Tensor) -> Array:
    return tensors.bf16_to_fp32(tensor.array) if tensor.dtype is DType.BF16 else tensor.array


def _wrong(wanted: Array, found: Array, tolerance: Tolerance, *, floats: bool) -> Array:
    if not floats:
        return np.asarray(wanted != found)
    if tolerance == EXACT:
        # Bit by bit, but that any NaN equals any other.
        different = np.signbit(wanted) != np.signbit(found)
        return np.asarray(((wanted != found) | different) & ~(np.isnan(wanted) & np.isnan(found)))
    wanted, found = wanted.astype(np.float64), found.astype(np.float64)
    return ~np.isclose(found, wanted, rtol=tolerance.rtol, atol=tolerance.atol, equal_nan=True)


def _shown(value: object) -> str:
    return repr(value.decode(errors="replace")) if isinstance(value, bytes) else f"{value}"
