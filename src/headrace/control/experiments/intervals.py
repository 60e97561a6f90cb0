"""How much better an arm is than the control, with a confidence interval: one look, or any number of looks.

Sources: Newcombe, "Interval estimation for the difference between independent proportions", Statistics in Medicine 17
(1998), method 10; Welch, Biometrika 34 (1947); Katz et al., Biometrics 34 (1978) for ratios, by the delta method;
Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic confidence
sequences", Annals of Statistics 52 (2024).
"""

from __future__ import annotations

import math
from enum import StrEnum

import msgspec

from headrace.core.experiments import Tally

_TUNED_FOR = 5000
"""Outcomes at which the confidence sequence is tightest; it holds at any number."""


class Method(StrEnum):
    NEWCOMBE = "newcombe"
    """Two proportions; right once, at a number of outcomes that was settled before."""
    WELCH = "welch"
    """Two means; likewise."""
    SEQUENTIAL = "sequential"
    """However often one looks, and whenever one stops."""


class Interval(msgspec.Struct, frozen=True):
    """``low`` and ``high`` may be infinite: nothing is known yet."""

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


class Lift(msgspec.Struct, frozen=True):
    """An arm against the control: ``absolute`` is mean minus mean, ``relative`` that in parts of the control's mean
    (None where the control's mean is not above 0)."""

    method: Method
    absolute: Interval
    relative: Interval | None


def fixed(control: Tally, arm: Tally, confidence: float) -> Lift:
    """For one look. Proportions where all outcomes are 0 or 1, else means."""
    if control.others or arm.others:
        return _welch(control, arm, confidence)
    return _newcombe(control, arm, confidence)


def sequential(control: Tally, arm: Tally, confidence: float) -> Lift:
    """A confidence sequence: with probability ``confidence`` it holds the truth at all looks together. Asymptotic: it
    wants some hundred outcomes of each arm."""
    count = control.outcomes + arm.outcomes
    error = standard_error(control, arm)
    width = error * _sequence_factor(count, 1 - confidence)
    return Lift(
        Method.SEQUENTIAL,
        _around(arm.mean - control.mean, width),
        _relative(control, arm, width / error if error else 0),
    )


def standard_error(control: Tally, arm: Tally) -> float:
    """Of the difference of means; infinite while it cannot be known."""
    if control.outcomes < 2 or arm.outcomes < 2:
        return math.inf
    return math.sqrt(control.variance / control.outcomes + arm.variance / arm.outcomes)


def _sequence_factor(count: int, alpha: float) -> float:
    """How many standard errors wide, after ``count`` outcomes; Waudby-Smith et al., equation 6, with their choice of
    the parameter for ``_TUNED_FOR``."""
    if count < 2:
        return math.inf
    rho_squared = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / _TUNED_FOR
    scaled = count * rho_squared
    return math.sqrt(2 * (scaled + 1) / scaled * math.log(math.sqrt(scaled + 1) / alpha))


def _newcombe(control: Tally, arm: Tally, confidence: float) -> Lift:
    z = _normal_quantile(confidence)
    difference = arm.mean - control.mean
    if not control.outcomes or not arm.outcomes:
        return Lift(Method.NEWCOMBE, Interval(difference, -1.0, 1.0), None)
    low_c, high_c = wilson(control.mean, control.outcomes, z)
    low_a, high_a = wilson(arm.mean, arm.outcomes, z)
    low = difference - math.hypot(arm.mean - low_a, high_c - control.mean)
    high = difference + math.hypot(high_a - arm.mean, control.mean - low_c)
    return Lift(Method.NEWCOMBE, Interval(difference, low, high), _relative(control, arm, z))


def wilson(share: float, count: int, z: float) -> tuple[float, float]:
    """Wilson's interval of a proportion."""
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    whole = 1 + z * z / count
    return max((middle - spread) / whole, 0.0), min((middle + spread) / whole, 1.0)


def _welch(control: Tally, arm: Tally, confidence: float) -> Lift:
    from scipy import special

    error = standard_error(control, arm)
    difference = arm.mean - control.mean
    if math.isinf(error):
        return Lift(Method.WELCH, Interval(difference, -math.inf, math.inf), None)
    parts = [t.variance / t.outcomes for t in (control, arm)]
    rest = sum(part * part / (t.outcomes - 1) for part, t in zip(parts, (control, arm), strict=True))
    freedom = error**4 / rest if rest else float(control.outcomes + arm.outcomes - 2)
    quantile = float(special.stdtrit(freedom, 0.5 + confidence / 2))
    return Lift(Method.WELCH, _around(difference, quantile * error), _relative(control, arm, quantile))


def _relative(control: Tally, arm: Tally, quantile: float) -> Interval | None:
    """The ratio of means less 1, on the scale of its logarithm, where it is closer to normal."""
    if control.mean <= 0 or arm.mean <= 0 or math.isinf(standard_error(control, arm)):
        return None
    ratio = arm.mean / control.mean
    error = math.sqrt(
        arm.variance / (arm.outcomes * arm.mean**2) + control.variance / (control.outcomes * control.mean**2)
    )
    if not math.isfinite(quantile) or quantile * error > 700:
        return Interval(ratio - 1, -1.0, math.inf)
    stretch = math.exp(quantile * error)
    return Interval(ratio - 1, ratio / stretch - 1, ratio * stretch - 1)


def _around(middle: float, width: float) -> Interval:
    return Interval(middle, middle - width, middle + width)


def _normal_quantile(confidence: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(0.5 + confidence / 2)


def needed_per_arm(control: Tally, effect: float, confidence: float, power: float = 0.8) -> int | None:
    """Outcomes that each of two arms needs to find an absolute difference of ``effect`` with this power; None when
    nothing is known of the spread or there is nothing to find."""
    if control.outcomes < 2 or not control.variance or not effect:
        return None
    from statistics import NormalDist

    quantiles = _normal_quantile(confidence) + NormalDist().inv_cdf(power)
    return math.ceil(2 * control.variance * (quantiles / effect) ** 2)
