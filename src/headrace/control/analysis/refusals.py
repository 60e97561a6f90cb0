"""Check: does the canary refuse more of its requests than the baseline slice?

Refusals come with full queues, in bursts of one side: blocks are compared, not requests."""

from __future__ import annotations

import msgspec

from headrace.control.analysis.evidence import proof
from headrace.control.analysis.settings import RefusalSettings
from headrace.control.analysis.signs import SignTest
from headrace.control.analysis.verdict import CheckResult, Finding
from headrace.core.tallies import Observation, Outcome, Tally


class Refusals(msgspec.Struct, tag=True):
    settings: RefusalSettings
    block_s: float
    block_requests: int
    alarm: float
    clear: float
    signs: SignTest = msgspec.field(default_factory=SignTest)
    seconds: float = 0.0
    canary: tuple[int, int] = (0, 0)
    """Refused, arrived in this block."""
    baseline: tuple[int, int] = (0, 0)
    last: tuple[float, float] = (0.0, 0.0)
    """Shares that were refused in the last block."""
    failure: str = ""
    name: str = "refusals"

    def begin_step(self) -> None:
        self.signs.begin_step()
        self._next_block()

    def observe(self, observation: Observation) -> None:
        self.seconds += observation.seconds
        self.canary = _add(self.canary, observation.canary)
        self.baseline = _add(self.baseline, observation.baseline)
        smaller = min(self.canary[1], self.baseline[1])
        if self.seconds < self.block_s or smaller < self.block_requests:
            return
        self.last = (self.canary[0] / self.canary[1], self.baseline[0] / self.baseline[1])
        rise = self.last[0] - self.last[1]
        self.signs.observe(worse=rise > self.settings.margin, fine=rise < self.settings.tolerance)
        self._next_block()
        self.failure = self.failure or proof(self.signs.harm, self.alarm, self._blocks)

    def _next_block(self) -> None:
        self.seconds = 0.0
        self.canary = self.baseline = (0, 0)

    def result(self) -> CheckResult:
        gate = self.settings.gate
        if self.failure:
            return CheckResult(self.name, Finding.FAIL, self.failure, gate)
        if self.signs.harmless.value >= self.clear:
            return CheckResult(self.name, Finding.PASS, self._blocks(), gate)
        reason = f"{self._blocks()}; a rise of {self.settings.tolerance:.1%} is not ruled out yet"
        return CheckResult(self.name, Finding.INCONCLUSIVE, reason, gate)

    def _blocks(self) -> str:
        canary, baseline = self.last
        return (
            f"refused {self.settings.margin:.1%} more than the baseline in {self.signs.worse} of {self.signs.blocks}"
            f" blocks of this step, last {canary:.1%} against {baseline:.1%}"
        )


def _add(so_far: tuple[int, int], tally: Tally) -> tuple[int, int]:
    return so_far[0] + tally.outcomes.get(Outcome.REFUSED, 0), so_far[1] + tally.arrived
