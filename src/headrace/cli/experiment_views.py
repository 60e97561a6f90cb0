"""A report of an experiment as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.client.experiments import ArmReport, Bounds, Comparison, Report


def lines(report: Report) -> Iterator[str]:
    """What it is, one line per arm, how the arms compare, and what to beware of."""
    experiment = report.experiment
    kind = "bandit" if experiment.bandit is not None else "experiment"
    state = "runs" if experiment.ended is None else f"has ended: {experiment.why}"
    yield f"{experiment.endpoint}: {kind} {experiment.id} by {experiment.metric} {state}"
    width = max(len(arm.arm) for arm in report.arms)
    for arm in report.arms:
        yield _arm(arm, width)
    for arm in report.arms:
        if arm.lift is not None and arm.sequential is not None:
            level = f"{100 * experiment.confidence:g} %"
            yield f"{arm.arm} against {report.arms[0].arm}, {level} intervals:"
            yield f"  one look ({arm.lift.method}): {_comparison(arm.lift)}"
            yield f"  any number of looks: {_comparison(arm.sequential)}{_verdict(arm.sequential)}"
    if report.needed_per_arm is not None:
        yield f"to find a difference of 5 % of the control's mean each arm needs {report.needed_per_arm} outcomes"
    for note in report.notes:
        yield f"note: {note}"


def _arm(arm: ArmReport, width: int) -> str:
    return (
        f"  {arm.arm:<{width}}  {100 * arm.share:5.4g} % of requests, {arm.requests} answered, {arm.outcomes} outcomes,"
        f" mean {arm.mean:.6g} (deviation {arm.deviation:.4g}), best with probability {arm.probability_best:.3f}"
    )


def _comparison(found: Comparison) -> str:
    relative = "" if found.relative is None else f"; {_bounds(found.relative, 100.0, ' %')}"
    return f"{_bounds(found.absolute)}{relative}"


def _bounds(bounds: Bounds, scale: float = 1.0, unit: str = "") -> str:
    low = "-∞" if bounds.low is None else f"{scale * bounds.low:+.4g}{unit}"
    high = "+∞" if bounds.high is None else f"{scale * bounds.high:+.4g}{unit}"
    return f"{scale * bounds.estimate:+.4g}{unit} ({low} to {high})"


def _verdict(found: Comparison) -> str:
    low, high = found.absolute.low, found.absolute.high
    if low is not None and low > 0:
        return ": better"
    if high is not None and high < 0:
        return ": worse"
    return ": no difference shown yet"
