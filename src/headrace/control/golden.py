"""Golden requests: does a new version give the answers that were recorded for it? Pure.

When two answers are equal is said in ``core/comparison.py``; ``app/golden_requests.py`` asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from headrace.control.analysis.verdict import Finding
from headrace.core import errors
from headrace.core.comparison import Tolerance, compare
from headrace.core.tensors import Tensor

_SHOWN = 5
"""Differences that a report spells out."""


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
    tolerances: Mapping[str, Tolerance] = {}
    """By output name; an output without one has the default of its datatype."""


def report(answers: Sequence[GoldenAnswer]) -> GoldenReport:
    """Judge all golden requests of a version. No requests at all pass: there is nothing to hold it to."""
    differences: list[str] = []
    wrong = 0
    unasked: dict[str, list[str]] = {}
    for answer in answers:
        if isinstance(answer.error, errors.NotReady | errors.Overloaded | errors.Cancelled | errors.ReplicaDied):
            unasked.setdefault(answer.error.message, []).append(answer.request)
        elif answer.error is not None:
            wrong += 1
            differences.append(f"{answer.request}: failed with {answer.error.code}: {answer.error.message}")
        else:
            found = compare(answer.expected, answer.outputs, answer.tolerances).differences
            wrong += bool(found)
            differences += [f"{answer.request}: {difference}" for difference in found]
    count = sum(map(len, unasked.values()))
    if differences:
        reason = f"{wrong} of {len(answers)} differ: " + "; ".join(differences[:_SHOWN])
        if count:
            reason += f"; {count} could not be asked"
        return GoldenReport(Finding.FAIL, reason, tuple(differences))
    if unasked:
        why = "; ".join(f"{_titles(requests)}: {message}" for message, requests in list(unasked.items())[:_SHOWN])
        return GoldenReport(Finding.INCONCLUSIVE, f"{count} of {len(answers)} could not be asked: {why}")
    return GoldenReport(Finding.PASS, f"{len(answers)} answered as recorded" if answers else "there are none")


def _titles(requests: Sequence[str]) -> str:
    return requests[0] if len(requests) == 1 else f"{requests[0]} and {len(requests) - 1} more"
