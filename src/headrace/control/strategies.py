"""Strategies of a rollout: each is a list of steps. Pure."""

from __future__ import annotations

import itertools
import re

import msgspec

from headrace.core import errors

BAKE_S = 600.0
"""Default time of a step."""
SHADOW = 0.1
"""Default part of stable's requests that is mirrored before the first live one."""
MOST_STEPS = 1000
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h)\s*\Z")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class Step(msgspec.Struct, frozen=True):
    """What the new deployment gets, and for how long at least."""

    traffic: float
    """Share of the live requests, 0..1."""
    bake_s: float = BAKE_S
    shadow: float = 0.0
    """Part of stable's requests that is mirrored to it, 0..1."""


Steps = tuple[Step, ...]


def canary(percents: str, bake_s: float = BAKE_S) -> Steps:
    """``1,5,25,50``: rising shares in percent; 100 follows by itself."""
    try:
        shares = [float(part) / 100 for part in percents.split(",")]
    except ValueError:
        raise errors.BadSettings(f"canary steps {percents!r} are not numbers: write percents, e.g. 1,5,25,50") from None
    return check(tuple(Step(share, bake_s) for share in shares))


def linear(rise: str) -> Steps:
    """``10/2m``: 10 % more every two minutes."""
    percent, slash, every = rise.partition("/")
    duration = _DURATION.match(every)
    try:
        share = float(percent) / 100
    except ValueError:
        share = 0.0
    if not slash or duration is None or not 0 < share < 1:
        raise errors.BadSettings(f"linear steps {rise!r} are not valid: write percent/duration, e.g. 10/2m")
    bake_s = float(duration[1]) * _UNITS[duration[2]]
    if share * MOST_STEPS < 1:
        raise errors.BadSettings(f"linear steps {rise!r} are more than {MOST_STEPS}: rise by 0.1 percent or more")
    count = int((1 - 1e-9) / share)
    return check(tuple(Step(share * (index + 1), bake_s) for index in range(count)))


def blue_green() -> Steps:
    """No steps: all traffic at once after the golden requests; the old deployment stays warm to go back to."""
    return ()


def shadow_first(then: Steps, shadow: float = SHADOW, bake_s: float = BAKE_S) -> Steps:
    """Mirrored requests first; only what they do not fail sees live ones. The answers are thrown away."""
    return check((Step(0.0, bake_s, shadow), *then))


def check(steps: Steps) -> Steps:
    """Return ``steps`` when shares rise and lie between 0 and 1; raise BadSettings otherwise."""
    shares = [step.traffic for step in steps]
    if any(not 0 <= share < 1 for share in shares) or any(a >= b for a, b in itertools.pairwise(shares)):
        shown = ", ".join(f"{share * 100:g}" for share in shares)
        raise errors.BadSettings(f"steps must rise and stay below 100 percent; got {shown}")
    for step in steps:
        if step.bake_s < 0 or not 0 <= step.shadow <= 1 or not (step.traffic or step.shadow):
            raise errors.BadSettings(f"a step needs traffic or mirrored requests and a bake time; got {step}")
    return steps
