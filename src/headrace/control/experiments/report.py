"""What an experiment has shown so far, in numbers and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from headrace.control.experiments import intervals, mismatch, strata, thompson
from headrace.control.experiments.intervals import Lift
from headrace.control.experiments.mismatch import SampleRatio
from headrace.core.experiments import ArmTotal, Experiment, HourTally, totals

_FEW = 100
_POWER = 0.8
_EFFECT = 0.05
"""The sample-size note is for a difference of this part of the control's mean."""


class ArmReport(msgspec.Struct, frozen=True):
    """``share``: of the endpoint's requests now. ``lift`` is for one look, ``sequential`` for any number of looks; both
    None for the control."""

    arm: str
    share: float
    requests: int
    outcomes: int
    mean: float
    deviation: float
    """Standard deviation of the rewards."""
    probability_best: float
    lift: Lift | None
    sequential: Lift | None


class ExperimentReport(msgspec.Struct, frozen=True):
    experiment: Experiment
    arms: tuple[ArmReport, ...]
    sample_ratio: SampleRatio
    needed_per_arm: int | None
    """Outcomes of each arm to find a difference of a twentieth of the control's mean with a power of 0.8."""
    notes: tuple[str, ...]


def report(
    experiment: Experiment, hours: Sequence[HourTally], shares: Mapping[str, float], notes: Sequence[str] = ()
) -> ExperimentReport:
    """``shares``: of the arms now. ``notes`` are what others have to say about it, for people."""
    found = totals(experiment.arms, hours)
    ratio = mismatch.sample_ratio(found)
    best = thompson.probability_best([arm.tally for arm in found], seed=0)
    control = found[0].tally
    arms = tuple(
        _arm(total, shares.get(total.arm, 0.0), probability, _compared(experiment, total, found[0], hours))
        for total, probability in zip(found, best, strict=True)
    )
    needed = intervals.needed_per_arm(control, _EFFECT * abs(control.mean), experiment.confidence, _POWER)
    return ExperimentReport(experiment, arms, ratio, needed, (*_notes(experiment, found, ratio), *notes))


def _compared(
    experiment: Experiment, total: ArmTotal, control: ArmTotal, hours: Sequence[HourTally]
) -> tuple[Lift, Lift] | None:
    """For one look and for any number; None for the control. A bandit's arms are compared within hours."""
    if total is control:
        return None
    pair = control.tally, total.tally
    if experiment.bandit is not None:
        pair = strata.standardized(control.arm, total.arm, hours)
    return intervals.fixed(*pair, experiment.confidence), intervals.sequential(*pair, experiment.confidence)


def _arm(total: ArmTotal, share: float, best: float, lifts: tuple[Lift, Lift] | None) -> ArmReport:
    tally = total.tally
    return ArmReport(
        arm=total.arm,
        share=share,
        requests=total.requests,
        outcomes=tally.outcomes,
        mean=tally.mean,
        deviation=tally.variance**0.5,
        probability_best=best,
        lift=None if lifts is None else lifts[0],
        sequential=None if lifts is None else lifts[1],
    )


def _notes(experiment: Experiment, arms: Sequence[ArmTotal], ratio: SampleRatio) -> list[str]:
    notes = []
    if ratio.mismatch:
        seen = ", ".join(f"{arm.arm} {arm.requests} of {arm.expected:.0f} expected" for arm in arms)
        notes.append(
            f"sample ratio mismatch (p = {ratio.p_value:.2g}): {seen}. The arms are not comparable until it is known"
            " why: does one fail more often, or was it not ready for a while? headrace endpoints says"
        )
    few = [arm.arm for arm in arms if arm.tally.outcomes < _FEW]
    if few:
        notes.append(f"fewer than {_FEW} outcomes of {', '.join(few)}: no interval is worth much yet")
    if experiment.bandit is not None:
        notes.append(
            "shares move with the outcomes: arms are compared within hours, so that lift is not the difference of the"
            " means; go by the sequential interval"
        )
    fallbacks = sum(arm.fallbacks for arm in arms)
    if fallbacks:
        notes.append(f"{fallbacks} requests were answered by a fallback; they count for the arm that did not answer")
    repeated = sum(arm.repeated for arm in arms)
    if repeated:
        notes.append(f"{repeated} answers had a request id that was there already; the first answer under it counts")
    pinned = sum(arm.pinned for arm in arms)
    if pinned:
        notes.append(f"{pinned} requests named their deployment themselves and are not counted")
    return notes
