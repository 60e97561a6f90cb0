"""Check: is a quantile of the canary's total latency higher than the baseline slice's?"""

from __future__ import annotations

import math

import msgspec

from headrace.control.analysis.evidence import proof
from headrace.control.analysis.settings import LatencySettings
from headrace.control.analysis.signs import SignTest
from headrace.control.analysis.verdict import CheckResult, Finding
from headrace.core import tallies
from headrace.core.tallies import Observation

_TAIL_REQUESTS = 2
"""Requests that a block has beyond its quantile, on average, at least."""


class LatencyQuantile(msgspec.Struct, tag=True):
    """Compares a quantile block by block; a block lasts until both sides have requests enough."""

    quantile: float
    settings: LatencySettings
    block_s: float
    block_requests: int
    alarm: float
    clear: float
    signs: SignTest = msgspec.field(default_factory=SignTest)
    seconds: float = 0.0
    canary: dict[int, int] = {}
    baseline: dict[int, int] = {}
    last: tuple[float, float] = (0.0, 0.0)
    """Quantile of the canary and of the baseline in the last block, seconds."""
    failure: str = ""

    @property
    def name(self) -> str:
        return f"latency p{self.quantile * 100:g}"

    @property
    def enough(self) -> int:
        """Requests per side and block."""
        return max(self.block_requests, math.ceil(_TAIL_REQUESTS / min(self.quantile, 1 - self.quantile)))

    def begin_step(self) -> None:
        self.signs.begin_step()
        self._next_block()

    def observe(self, observation: Observation) -> None:
        self.seconds += observation.seconds
        self.canary = tallies.add_counts((self.canary, observation.canary.latency))
        self.baseline = tallies.add_counts((self.baseline, observation.baseline.latency))
        smaller = min(sum(self.canary.values()), sum(self.baseline.values()))
        if self.seconds < self.block_s or smaller < self.enough:
            return
        canary, baseline = (tallies.quantile(side, self.quantile) for side in (self.canary, self.baseline))
        self.last = (canary, baseline)
        self.signs.observe(
            worse=canary > baseline * self.settings.margin, fine=canary < baseline * self.settings.tolerance
        )
        self._next_block()
        self.failure = self.failure or proof(self.signs.harm, self.alarm, self._blocks)

    def _next_block(self) -> None:
        self.seconds = 0.0
        self.canary, self.baseline = {}, {}

    def result(self) -> CheckResult:
        gate = self.settings.gate
        if self.failure:
            return CheckResult(self.name, Finding.FAIL, self.failure, gate)
        if self.signs.harmless.value >= self.clear:
            return CheckResult(self.name, Finding.PASS, self._blocks(), gate)
        if not self.signs.blocks:
            have = min(sum(self.canary.values()), sum(self.baseline.values()))
            reason = f"{have} of the {self.enough} requests that a block needs, on the smaller side"
        else:
            reason = f"{self._blocks()}; {self.settings.tolerance:g} times as slow is not ruled out yet"
        return CheckResult(self.name, Finding.INCONCLUSIVE, reason, gate)

    def _blocks(self) -> str:
        canary, baseline = self.last
        return (
            f"more than {self.settings.margin:g} times the baseline's in {self.signs.worse} of {self.signs.blocks}"
            f" blocks of this step, last {canary * 1e3:.3g} ms against {baseline * 1e3:.3g} ms"
        )
