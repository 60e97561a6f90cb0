"""Golden requests: does a new version give the answers that were recorded for it? Pure.

When two answers are equal is said in ``core/comparison.py``; ``app/rollouts/golden_requests.py`` asks."""

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
    """What came of one golden request: responses, or the error it ended with.

    expected   the outputs of each recorded response, in order; one, unless ``streams``
    responses  what came, likewise; of a stream at most one more than expected, which is one too many"""

    request: str
    """Its name, or its line in the file."""
    expected: tuple[tuple[Tensor, ...], ...]
    responses: tuple[tuple[Tensor, ...], ...] = ()
    error: errors.HeadraceError | None = None
    tolerances: Mapping[str, Tolerance] = {}
    """By output name; an output without one has the default of its datatype."""
    streams: bool = False


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
            found = _differences(answer)
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


def _differences(answer: GoldenAnswer) -> list[str]:
    """What is different, in words; of a stream in the first response that differs, and in their number."""
    pairs = enumerate(zip(answer.expected, answer.responses, strict=False), 1)
    wrong = [
        (at, found) for at, (wanted, got) in pairs if (found := compare(wanted, got, answer.tolerances).differences)
    ]
    if not answer.streams:
        return [difference for _, found in wrong for difference in found]
    differences = [f"response {at}: {difference}" for at, found in wrong[:1] for difference in found]
    if len(wrong) > 1:
        differences.append(f"{len(wrong)} responses differ, of which that is the first")
    expected, got = len(answer.expected), len(answer.responses)
    if got < expected:
        differences.append(f"the stream ended after {got} of {expected} responses")
    elif got > expected:
        differences.append(f"the stream goes on after the {expected} responses that were recorded")
    return differences


def _titles(requests: Sequence[str]) -> str:
    return requests[0] if len(requests) == 1 else f"{requests[0]} and {len(requests) - 1} more"
