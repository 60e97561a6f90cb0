"""Arms compared within hours, for shares that move.

When more of the traffic goes to one arm in the hours in which everybody buys, that arm looks better without being so
(Simpson's paradox). Each hour's means are weighted by ``a·c / (a + c)`` of its outcomes, the weights of Cochran, Mantel
and Haenszel, the same for both arms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from headrace.core.experiments import HourTally, Tally


def standardized(control: str, arm: str, hours: Sequence[HourTally]) -> tuple[Tally, Tally]:
    """Both arms as if every hour had had the same shares: the weighted mean, and as many outcomes as would make it that
    exact. Hours in which one of them had no outcome say nothing. Both are empty when there is no other hour."""
    found = {(tally.arm, tally.hour): tally for tally in hours if tally.outcomes}
    shared = sorted(hour for name, hour in found if name == arm and (control, hour) in found)
    pairs = [(found[control, hour], found[arm, hour]) for hour in shared]
    weights = [c.outcomes * a.outcomes / (c.outcomes + a.outcomes) for c, a in pairs]
    return _one([c for c, _ in pairs], weights), _one([a for _, a in pairs], weights)


def _one(tallies: Sequence[Tally], weights: Sequence[float]) -> Tally:
    total = math.fsum(weights)
    if not total:
        return Tally()
    mean = math.fsum(weight * tally.mean for weight, tally in zip(weights, tallies, strict=True)) / total
    # Kish's effective sample size; whole, and never more than there are.
    squares = math.fsum(weight**2 / tally.outcomes for weight, tally in zip(weights, tallies, strict=True))
    count = min(round(total**2 / squares), sum(tally.outcomes for tally in tallies))
    return Tally(count, mean, _variance(tallies, mean) * (count - 1), sum(tally.others for tally in tallies))


def _variance(tallies: Sequence[Tally], mean: float) -> float:
    """Within hours, pooled: an hour of few outcomes that are all alike is no proof that there is no spread. Rewards of
    0 and 1 have the variance of their mean."""
    if not any(tally.others for tally in tallies):
        return mean * (1 - mean)
    freedom = sum(tally.outcomes - 1 for tally in tallies)
    return math.fsum(tally.squares for tally in tallies) / freedom if freedom else 0.0
