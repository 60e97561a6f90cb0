"""Tallies: what gateways count per deployment and interval, for the judge of rollouts.

Everything here is a sum, so the tallies of several gateways and intervals add up, and a gateway pays a few increments
per request. The *baseline* is a slice of stable's requests, picked by a hash of the request id, as large as the
canary's share: small samples have biased quantiles, so only slices of one size may be compared quantile by quantile.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import StrEnum
from typing import TypeVar

import msgspec

from headrace.core import errors

K = TypeVar("K")

BUCKETS_PER_OCTAVE = 8
"""Latency buckets grow by 2^(1/8): a bucket is 9 % wide."""
_LOWEST_S = 1e-6
_HIGHEST_BUCKET = 40 * BUCKETS_PER_OCTAVE
"""The last bucket begins at 2^40 microseconds: no request lives that long."""


class Outcome(StrEnum):
    """How a request ended, as far as it says something about the deployment that got it."""

    OK = "ok"
    ERROR = "error"
    """The deployment failed: its model raised, its process died, its time ran out."""
    REFUSED = "refused"
    """Not taken: overloaded, or no replica ready."""
    REJECTED = "rejected"
    """The caller's fault, as this deployment sees it; a changed signature shows here."""
    CANCELLED = "cancelled"
    """The caller went away."""


def outcome_of(error: errors.HeadraceError | None) -> Outcome:
    """The outcome that a request's end counts as; None is success."""
    match error:
        case None:
            return Outcome.OK
        case errors.CallerError() | errors.QuotaExceeded():
            return Outcome.REJECTED
        case errors.Overloaded() | errors.NotReady():
            return Outcome.REFUSED
        case errors.Cancelled():
            return Outcome.CANCELLED
        case _:
            return Outcome.ERROR


class BatchTally(msgspec.Struct, frozen=True):
    """Executed batches of one size."""

    batches: int
    seconds: float
    """Sum of their compute times."""


class Tally(msgspec.Struct, frozen=True):
    """One deployment, or a slice of its requests, over one interval."""

    outcomes: dict[Outcome, int] = {}
    latency: dict[int, int] = {}
    """Requests by ``latency_bucket`` of their total time in the gateway: those that were answered, ran out of time, or
    were given up by their caller. Who left waited at least that long, so a replica that hangs shows here before any
    deadline; requests that failed otherwise would only make the deployment look fast.

    Of a stream: the time to its first response, whatever comes after it; without one, as of any request."""
    compute: dict[int, BatchTally] = {}
    """By batch size in rows. Of a slice: empty, batches belong to the deployment."""
    predictions: dict[str, dict[str, int]] = {}
    """Output name → class label, or ``value_bucket`` of a number → how often."""

    @property
    def arrived(self) -> int:
        """Requests that were routed here."""
        return sum(self.outcomes.values())

    @property
    def judged(self) -> int:
        """Requests that were taken and ended in success or in an error of the deployment."""
        return self.outcomes.get(Outcome.OK, 0) + self.outcomes.get(Outcome.ERROR, 0)


class Agreement(msgspec.Struct, frozen=True):
    """Mirrored requests whose two answers were compared."""

    pairs: int = 0
    agreed: int = 0


class Measurement(msgspec.Struct, frozen=True):
    """One look at a metric of the user. ``value`` None: it could not be had, ``error`` says why."""

    metric: str
    value: float | None = None
    error: str = ""


class Observation(msgspec.Struct, frozen=True):
    """What there is to judge after one interval."""

    seconds: float
    """Length of the interval."""
    canary: Tally = Tally()
    stable: Tally = Tally()
    """All of stable, the baseline slice included."""
    baseline: Tally = Tally()
    shadow: Agreement = Agreement()
    measurements: tuple[Measurement, ...] = ()
    error: str = ""
    """Why there are no tallies, when there are none: a gateway that is silent is no fault of the canary."""


def latency_bucket(seconds: float) -> int:
    """Index of the bucket that counts this latency; bucket i begins at ``bucket_start(i)``."""
    if seconds <= _LOWEST_S:
        return 0
    return min(int(math.log2(seconds / _LOWEST_S) * BUCKETS_PER_OCTAVE), _HIGHEST_BUCKET)


def bucket_start(bucket: float) -> float:
    """Seconds at which a bucket begins; fractions lie within it, evenly in the logarithm."""
    return float(_LOWEST_S * 2 ** (bucket / BUCKETS_PER_OCTAVE))


def quantile(latency: dict[int, int], q: float) -> float:
    """Seconds below which the share ``q`` of the counted requests lies; interpolated in the logarithm.

    Raises Bug when nothing was counted."""
    rank = q * sum(latency.values())
    below = 0
    for bucket in sorted(latency):
        count = latency[bucket]
        if count and below + count >= rank:
            return bucket_start(bucket + (rank - below) / count)
        below += count
    raise errors.Bug("quantile of an empty latency histogram")


def value_bucket(value: float) -> str:
    """Label of the bucket of a predicted number: its sign and its octave, halved; NaN and infinities have their own."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    return f"{'-' if value < 0 else '+'}{math.floor(2 * math.log2(abs(value)))}"


def add_counts(parts: Iterable[dict[K, int]]) -> dict[K, int]:
    """The sum of counts by key."""
    total: dict[K, int] = {}
    for part in parts:
        for key, count in part.items():
            total[key] = total.get(key, 0) + count
    return total


def baseline_fraction(canary_share: float) -> float:
    """Part of stable's requests that makes a slice as large as the canary's ``canary_share`` (0..1) of all traffic."""
    if canary_share >= 0.5:
        return 1.0
    return canary_share / (1 - canary_share)
