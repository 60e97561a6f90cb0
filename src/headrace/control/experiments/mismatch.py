"""Check: did every arm get the requests that chance should have given it?

A chi-square test of answered requests against the sum of the shares that were in force at each of them. A mismatch
means that requests went missing or elsewhere in one arm (it fails more, or was not ready for a while), and then the
arms are not comparable, whatever their outcomes say. Fabijan et al., "Diagnosing Sample Ratio Mismatch in Online
Controlled Experiments", KDD 2019, who warn below 0.0005 and the like because one looks often; so do we.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.core.experiments import ArmTotal

ALARM = 0.0005
_LEAST_EXPECTED = 5.0


class SampleRatio(msgspec.Struct, frozen=True):
    """``p_value``: probability of shares at least as far off when nothing is wrong; 1 while too few are expected."""

    p_value: float
    mismatch: bool


def sample_ratio(arms: Sequence[ArmTotal]) -> SampleRatio:
    """Of the arms that were to get requests at all."""
    taking = [arm for arm in arms if arm.expected > 0]
    if len(taking) < 2 or min(arm.expected for arm in taking) < _LEAST_EXPECTED:
        return SampleRatio(1.0, False)
    from scipy import special

    # Requests of deployments outside the experiment are in neither sum.
    scale = sum(arm.requests for arm in taking) / sum(arm.expected for arm in taking)
    statistic = sum((arm.requests - scale * arm.expected) ** 2 / (scale * arm.expected) for arm in taking)
    p_value = float(special.chdtrc(len(taking) - 1, statistic))
    return SampleRatio(p_value, p_value < ALARM)
