"""Experiments on an endpoint: its arms, outcomes that come back for answered requests, and their tallies.

An arm is a deployment by name. Which arm answered a request is indexed for every request (``core/request_log.py``); a
reward that comes later is joined to it by request id.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec

HOUR_S = 3600
DEFAULT_RETENTION_S = 24.0 * HOUR_S
DEFAULT_RETENTION_REQUESTS = 10_000_000
MAX_OUTCOMES = 10_000
"""In one batch of feedback."""


class BanditSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Thompson sampling as a traffic policy."""

    floor: float = 0.05
    """Least share of every arm, so that none is given up for good."""
    minimum: int = 50
    """Outcomes of every arm before the first move."""
    every_s: float = 10.0
    """Seconds between two looks at the outcomes."""
    least_move: float = 0.02
    """A change of shares by less than this is not worth a change of the endpoint."""


class Experiment(msgspec.Struct, frozen=True):
    """An experiment from its start to its end. Times are seconds since 1970 (UTC)."""

    id: str
    endpoint: str
    arms: tuple[str, ...]
    """The first one is the control: what the others are compared with."""
    started: float
    who: str
    metric: str = "reward"
    """What the rewards stand for, for people."""
    bandit: BanditSettings | None = None
    """None: the shares stay."""
    confidence: float = 0.95
    ended: float | None = None
    why: str = ""
    """It ended."""

    @property
    def running(self) -> bool:
        return self.ended is None

    @property
    def control(self) -> str:
        return self.arms[0]


class Outcome(msgspec.Struct, frozen=True):
    """What came of a request. Of several for one request the one with the latest ``at`` counts, of equals the one that
    came last; so that sending one again changes nothing and a correction is taken."""

    request_id: str
    reward: float
    at: float | None = None
    """Seconds since 1970 (UTC); None: now."""


class Joined(StrEnum):
    """What became of an outcome."""

    JOINED = "joined"
    """It is the first of its request, and counts for its arm."""
    REPLACED = "replaced"
    """It counts instead of one that came before."""
    UNCHANGED = "unchanged"
    """The same is known already."""
    OLDER = "older"
    """A later one is known, and counts."""
    NOT_COUNTED = "not_counted"
    """The request itself named its deployment: chance did not, so it is no evidence."""
    UNKNOWN = "unknown"
    """No answered request of this endpoint has this id, or it is older than the retention."""


class Receipt(msgspec.Struct, frozen=True):
    """Of one outcome. ``arm``: the deployment that it was joined to; empty when unknown."""

    request_id: str
    status: Joined
    arm: str = ""


class Tally(msgspec.Struct):
    """Outcomes as count, mean and sum of squared deviations (Welford 1962): values can be taken out again, and large
    ones lose no digits."""

    outcomes: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """Sum of squared deviations from the mean."""
    others: int = 0
    """Outcomes that are neither 0 nor 1."""

    def add(self, value: float) -> None:
        self.outcomes += 1
        step = value - self.mean
        self.mean += step / self.outcomes
        self.squares += step * (value - self.mean)
        self.others += value not in (0.0, 1.0)

    def remove(self, value: float) -> None:
        """Take out a value that was added before."""
        self.outcomes -= 1
        self.others -= value not in (0.0, 1.0)
        if self.outcomes == 0:
            self.mean = self.squares = 0.0
            return
        step = value - self.mean
        self.mean -= step / self.outcomes
        self.squares = max(self.squares - step * (value - self.mean), 0.0)

    @property
    def variance(self) -> float:
        """Of the sample, unbiased; 0 for fewer than two."""
        return self.squares / (self.outcomes - 1) if self.outcomes > 1 else 0.0


class HourTally(Tally):
    """What one arm had among the requests that were answered in one hour (``hour``: its number since 1970)."""

    arm: str = ""
    hour: int = 0
    requests: int = 0
    """Answered, and assigned by chance."""
    expected: float = 0.0
    """How many these should be, by the shares that were in force at each request."""
    pinned: int = 0
    """Answered requests that named this deployment themselves."""
    repeated: int = 0
    """Answers under a request id that was there already; the first one counts."""
    fallbacks: int = 0
    """Of ``requests``, those that something else answered in its place: they count for this arm all the same, since
    that it failed is part of what it is worth (intention to treat)."""


def pooled(tallies: Iterable[Tally]) -> Tally:
    """All together (Chan, Golub and LeVeque 1979)."""
    total = Tally()
    for one in tallies:
        count = total.outcomes + one.outcomes
        if one.outcomes:
            step = one.mean - total.mean
            total.squares += one.squares + step * step * total.outcomes * one.outcomes / count
            total.mean += step * one.outcomes / count
        total.outcomes, total.others = count, total.others + one.others
    return total


class ArmTotal(msgspec.Struct, frozen=True):
    """An arm over all hours."""

    arm: str
    tally: Tally
    requests: int
    expected: float
    pinned: int
    repeated: int
    fallbacks: int


def totals(arms: Sequence[str], hours: Sequence[HourTally]) -> tuple[ArmTotal, ...]:
    """In the order of ``arms``."""
    found = []
    for arm in arms:
        mine = [hour for hour in hours if hour.arm == arm]
        found.append(
            ArmTotal(
                arm,
                pooled(mine),
                sum(hour.requests for hour in mine),
                math.fsum(hour.expected for hour in mine),
                sum(hour.pinned for hour in mine),
                sum(hour.repeated for hour in mine),
                sum(hour.fallbacks for hour in mine),
            )
        )
    return tuple(found)
