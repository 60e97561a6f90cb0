"""A rollout as the management API tells it.

Times are seconds since 1970 (UTC), durations seconds, shares 0..1; steps count from 1."""

from __future__ import annotations

from typing import Any

import msgspec


class RolloutStep(msgspec.Struct, frozen=True):
    traffic: float
    shadow: float
    """Part of the other requests that is mirrored."""
    bake_s: float


class RolloutCheck(msgspec.Struct, frozen=True):
    """``finding``: ``pass``, ``fail`` or ``inconclusive``; ``reason`` in words and numbers."""

    check: str
    finding: str
    reason: str
    gate: bool
    needed: bool


class RolloutVerdict(msgspec.Struct, frozen=True):
    finding: str
    reason: str
    checks: tuple[RolloutCheck, ...]


class GoldenAnswers(msgspec.Struct, frozen=True):
    """How the golden requests were answered."""

    finding: str
    reason: str
    differences: tuple[str, ...]


class RolloutLine(msgspec.Struct, frozen=True):
    """One move of a rollout; ``share`` is what the new version has from then on."""

    at: float
    phase: str
    step: int
    share: float
    reason: str


class RolloutNext(msgspec.Struct, frozen=True):
    """``what`` follows once ``when`` is so, not before ``earliest``; at ``latest``, ``otherwise``."""

    what: str
    when: str
    earliest: float | None
    otherwise: str
    latest: float | None


class RolloutStatus(msgspec.Struct, frozen=True):
    """A rollout: where it is, why, what comes next, and its story, oldest line first.

    ``phase``: starting, warming, golden, step, paused, promoted; done, rolled_back or aborted when it has ended.
    ``old`` and ``new`` are versions under their endpoint (``fraud@8``). ``step``: that is, or was last, in force."""

    id: str
    endpoint: str
    deployment: str
    old: str
    new: str
    phase: str
    paused_in: str | None
    ended: bool
    step: int
    steps: tuple[RolloutStep, ...]
    share: float
    shadow: float
    since: float
    reason: str
    next: RolloutNext
    verdict: RolloutVerdict | None
    golden: GoldenAnswers | None
    story: tuple[RolloutLine, ...]
    final_bake_s: float
    max_step_s: float
    analysis: dict[str, Any]
    who: str
    started_at: float

    @property
    def paused(self) -> bool:
        """It waits for a person."""
        return self.phase == "paused"
