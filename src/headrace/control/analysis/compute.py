"""Check: does a batch take the canary longer than a batch of the same size takes stable?

A canary with 1 % of the traffic has smaller batches than its stable, so its mean compute time says nothing. Each of
its batches is held against what stable's batches of that size take: measured where stable has had enough of them, by
the fit a + b·n between the smallest and the largest size that stable has had, not compared beyond."""

from __future__ import annotations

import msgspec

from headrace.control.analysis.evidence import proof
from headrace.control.analysis.settings import ComputeSettings
from headrace.control.analysis.signs import SignTest
from headrace.control.analysis.verdict import CheckResult, Finding
from headrace.core.tallies import BatchTally, Observation

_MEMORY = 0.9
"""Weight of the interval before, in what is known of stable: a minute or two."""
_MEASURED = 20.0
"""Batches of one size after which their mean is used instead of the fit."""
_FORGOTTEN = 0.05


class BatchTimes(msgspec.Struct):
    """What stable's batches take, by size: decayed (batches, seconds)."""

    sizes: dict[int, tuple[float, float]] = {}

    def learn(self, compute: dict[int, BatchTally]) -> None:
        if not compute:
            return
        kept = {n: (count * _MEMORY, seconds * _MEMORY) for n, (count, seconds) in self.sizes.items()}
        for n, tally in compute.items():
            count, seconds = kept.get(n, (0.0, 0.0))
            kept[n] = (count + tally.batches, seconds + tally.seconds)
        self.sizes = {n: entry for n, entry in kept.items() if entry[0] > _FORGOTTEN}

    def expected(self, size: int) -> float | None:
        """Seconds that a batch of ``size`` rows takes stable; None when that is not known."""
        count, seconds = self.sizes.get(size, (0.0, 0.0))
        if count >= _MEASURED:
            return seconds / count
        if not self.sizes or not min(self.sizes) <= size <= max(self.sizes):
            return None
        return self._fitted(size)

    def _fitted(self, size: int) -> float | None:
        """The line a + b·n through all batches, by least squares."""
        w = sum(count for count, _ in self.sizes.values())
        n = sum(count * size for size, (count, _) in self.sizes.items()) / w
        t = sum(seconds for _, seconds in self.sizes.values()) / w
        spread = sum(count * (size - n) ** 2 for size, (count, _) in self.sizes.items())
        if w < _MEASURED or spread <= 0:
            return None
        b = sum((seconds - count * t) * (size - n) for size, (count, seconds) in self.sizes.items()) / spread
        found = t + b * (size - n)
        return found if found > 0 else None


class ComputeTime(msgspec.Struct, tag=True):
    """One sign per block: its batches took longer, summed, than stable's of these sizes.

    It can fail a canary but is not needed to pass: with 1 % of the traffic the sizes may never meet."""

    settings: ComputeSettings
    block_s: float
    block_batches: int
    alarm: float
    clear: float
    stable: BatchTimes = msgspec.field(default_factory=BatchTimes)
    signs: SignTest = msgspec.field(default_factory=SignTest)
    seconds: float = 0.0
    batches: int = 0
    """That could be compared in this block; so are the next two."""
    took: float = 0.0
    expected: float = 0.0
    last: float = 0.0
    """Took ÷ expected in the last block."""
    failure: str = ""
    name: str = "compute"

    def begin_step(self) -> None:
        self.signs.begin_step()
        self._next_block()

    def observe(self, observation: Observation) -> None:
        self.seconds += observation.seconds
        self.stable.learn(observation.stable.compute)
        for size, tally in observation.canary.compute.items():
            expected = self.stable.expected(size)
            if expected is not None and tally.batches:
                self.batches += tally.batches
                self.took += tally.seconds
                self.expected += tally.batches * expected
        if self.seconds < self.block_s or self.batches < self.block_batches or self.expected <= 0:
            return
        self.last = self.took / self.expected
        self.signs.observe(worse=self.last > self.settings.margin, fine=self.last < self.settings.tolerance)
        self._next_block()
        self.failure = self.failure or proof(self.signs.harm, self.alarm, self._blocks)

    def _next_block(self) -> None:
        self.seconds = self.took = self.expected = 0.0
        self.batches = 0

    def result(self) -> CheckResult:
        gate = self.settings.gate
        if self.failure:
            return CheckResult(self.name, Finding.FAIL, self.failure, gate, needed=False)
        if self.signs.harmless.value >= self.clear:
            return CheckResult(self.name, Finding.PASS, self._blocks(), gate, needed=False)
        reason = self._blocks() if self.signs.blocks else "too few batches of sizes that stable has too"
        return CheckResult(self.name, Finding.INCONCLUSIVE, reason, gate, needed=False)

    def _blocks(self) -> str:
        return (
            f"more than {self.settings.margin:g} times stable's at equal batch size in {self.signs.worse} of"
            f" {self.signs.blocks} blocks of this step, last {self.last:.3g} times"
        )
