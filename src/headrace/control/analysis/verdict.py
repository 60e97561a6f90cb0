"""Verdicts: of one check, and of all together."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Finding(StrEnum):
    PASS = "pass"
    """The harm that would matter is ruled out."""
    FAIL = "fail"
    """Harm is proven."""
    INCONCLUSIVE = "inconclusive"
    """Neither, yet."""


class CheckResult(msgspec.Struct, frozen=True):
    """What one check says after a look."""

    check: str
    finding: Finding
    reason: str
    """In words and numbers."""
    gate: bool = True
    """False: it can warn, not decide."""
    needed: bool = True
    """The step does not pass before this check passes."""


class Verdict(msgspec.Struct, frozen=True):
    finding: Finding
    reason: str
    checks: tuple[CheckResult, ...]

    @property
    def warnings(self) -> tuple[CheckResult, ...]:
        """Checks that found something and are no gates."""
        return tuple(c for c in self.checks if not c.gate and c.finding is Finding.FAIL)


def combine(checks: tuple[CheckResult, ...]) -> Verdict:
    """One gate that fails fails the canary; it passes when every gate that is needed passes."""
    failed = [c for c in checks if c.gate and c.finding is Finding.FAIL]
    if failed:
        return Verdict(Finding.FAIL, "; ".join(f"{c.check}: {c.reason}" for c in failed), checks)
    gates = [c for c in checks if c.gate and c.needed]
    waiting = [c for c in gates if c.finding is not Finding.PASS]
    if waiting or not gates:
        reason = "; ".join(f"{c.check}: {c.reason}" for c in waiting) or "no check is a gate: a person must decide"
        return Verdict(Finding.INCONCLUSIVE, reason, checks)
    return Verdict(Finding.PASS, f"{len(gates)} checks passed: " + ", ".join(c.check for c in gates), checks)
