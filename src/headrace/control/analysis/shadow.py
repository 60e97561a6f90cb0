"""Check: do the answers to mirrored requests agree as often as they should?"""

from __future__ import annotations

import math

import msgspec

from headrace.control.analysis import proportions
from headrace.control.analysis.evidence import MOST_PER_INTERVAL, Capital, all_in, capital, proof
from headrace.control.analysis.settings import ShadowSettings
from headrace.control.analysis.verdict import CheckResult, Finding
from headrace.core.tallies import Observation

_EFFECTS = (1.5, 3.0, 10.0)
"""Shares of disagreement that are bet on, in multiples of the largest that is allowed."""
_TOLERANCE = 2.0
"""To pass, this multiple must be ruled out."""


class ShadowAgreement(msgspec.Struct, tag=True):
    settings: ShadowSettings
    alarm: float
    clear: float
    harm: Capital = msgspec.field(default_factory=lambda: capital(len(_EFFECTS)))
    harmless: Capital = msgspec.field(default_factory=lambda: all_in(1))
    seen: tuple[int, int] = (0, 0)
    """Pairs that agreed and all pairs of this step."""
    failure: str = ""
    name: str = "shadow agreement"

    def begin_step(self) -> None:
        self.harm.renew()
        self.harmless = all_in(1)
        self.seen = (0, 0)

    def observe(self, observation: Observation) -> None:
        pairs, agreed = observation.shadow.pairs, observation.shadow.agreed
        self.seen = (self.seen[0] + agreed, self.seen[1] + pairs)
        allowed = 1 - self.settings.agreement
        logs = [
            proportions.log_e_one(pairs - agreed, pairs, min(allowed * e, (1 + allowed) / 2), allowed) for e in _EFFECTS
        ]
        self.harm.bet([math.exp(min(log, MOST_PER_INTERVAL)) for log in logs])
        bound = min(allowed * _TOLERANCE, (1 + allowed) / 2)
        self.harmless.bet([math.exp(proportions.log_e_one(pairs - agreed, pairs, allowed / 2, bound))])
        self.failure = self.failure or proof(self.harm, self.alarm, self._share)

    def result(self) -> CheckResult:
        gate = self.settings.gate
        if self.failure:
            return CheckResult(self.name, Finding.FAIL, self.failure, gate)
        if self.harmless.value >= self.clear and self.seen[1] >= self.settings.minimum:
            return CheckResult(self.name, Finding.PASS, self._share(), gate)
        return CheckResult(self.name, Finding.INCONCLUSIVE, self._share(), gate)

    def _share(self) -> str:
        agreed, pairs = self.seen
        if not pairs:
            return "no mirrored requests in this step"
        return f"{agreed} of {pairs} answers agree, {self.settings.agreement:.1%} should"
