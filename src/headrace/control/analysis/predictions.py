"""Check: does the canary predict other things than the baseline slice is told?

Both sides' counts by class (or bucket) are two samples of a multinomial. The e-value of an interval is the likelihood
of each side's own past distribution against that of their pool (Turner, Ly, Grünwald 2024, the equality hypothesis), so
it grows with any difference. A new model always differs a little: a shift is called one when it is proven *and* as
large as the limit on the population stability index."""

from __future__ import annotations

import functools
import math

import msgspec

from headrace.control.analysis.evidence import MOST_PER_INTERVAL, Capital, capital, proof
from headrace.control.analysis.settings import PredictionSettings
from headrace.control.analysis.verdict import CheckResult, Finding
from headrace.core import tallies
from headrace.core.tallies import Observation

_MOST_CLASSES = 64
OTHER = "(other)"
"""Classes that were not seen before, or came after the most that are kept apart."""
_SMOOTHING = 0.5


class Shift(msgspec.Struct):
    """One output: counts of this step and the evidence of a difference."""

    canary: dict[str, int] = {}
    baseline: dict[str, int] = {}
    harm: Capital = msgspec.field(default_factory=lambda: capital(1))

    def observe(self, canary: dict[str, int], baseline: dict[str, int]) -> None:
        # The classes, like the guesses, are of the past: what is new in this interval counts as other.
        known = {*self.canary, *self.baseline, OTHER}
        self.harm.bet([math.exp(min(self._log_e(_fold(canary, known), _fold(baseline, known)), MOST_PER_INTERVAL))])
        self.canary = self._keep(self.canary, canary, known)
        self.baseline = self._keep(self.baseline, baseline, known)

    def _keep(self, so_far: dict[str, int], new: dict[str, int], known: set[str]) -> dict[str, int]:
        room = _MOST_CLASSES - len(known)
        fresh = sorted(set(new) - known)[: max(room, 0)]
        known.update(fresh)
        return tallies.add_counts((so_far, _fold(new, known)))

    def _log_e(self, canary: dict[str, int], baseline: dict[str, int]) -> float:
        n_c, n_b = sum(canary.values()), sum(baseline.values())
        if not n_c or not n_b:
            return 0.0
        past_c, past_b = _distributions(self.canary, self.baseline)
        found = 0.0
        for key in past_c:
            pool = (n_c * past_c[key] + n_b * past_b[key]) / (n_c + n_b)
            found += canary.get(key, 0) * math.log(past_c[key] / pool)
            found += baseline.get(key, 0) * math.log(past_b[key] / pool)
        return found

    @property
    def samples(self) -> int:
        return min(sum(self.canary.values()), sum(self.baseline.values()))

    @property
    def stability_index(self) -> float:
        """Population stability index, less what sampling alone gives on average."""
        if not self.samples:
            return 0.0
        canary, baseline = _distributions(self.canary, self.baseline)
        found = sum((canary[k] - baseline[k]) * math.log(canary[k] / baseline[k]) for k in canary)
        chance = (len(canary) - 1) * (1 / sum(self.canary.values()) + 1 / sum(self.baseline.values()))
        return max(0.0, found - chance)


def _fold(counts: dict[str, int], known: set[str]) -> dict[str, int]:
    """Counts with classes that are not known added to OTHER."""
    folded: dict[str, int] = {}
    for key, count in counts.items():
        kept = key if key in known else OTHER
        folded[kept] = folded.get(kept, 0) + count
    return folded


def _distributions(one: dict[str, int], two: dict[str, int]) -> tuple[dict[str, float], dict[str, float]]:
    keys = sorted({*one, *two, OTHER})
    totals = [sum(counts.values()) + _SMOOTHING * len(keys) for counts in (one, two)]
    first = {k: (one.get(k, 0) + _SMOOTHING) / totals[0] for k in keys}
    return first, {k: (two.get(k, 0) + _SMOOTHING) / totals[1] for k in keys}


class PredictionShift(msgspec.Struct, tag=True):
    """All outputs together: the one that shifted most speaks."""

    settings: PredictionSettings
    alarm: float
    outputs: dict[str, Shift] = {}
    failure: str = ""
    name: str = "predictions"

    def begin_step(self) -> None:
        for shift in self.outputs.values():
            shift.harm.renew()
            shift.canary, shift.baseline = {}, {}

    def observe(self, observation: Observation) -> None:
        canary, baseline = observation.canary.predictions, observation.baseline.predictions
        for output in {*canary, *baseline}:
            if output not in self.outputs:
                self.outputs[output] = Shift()
                self.outputs[output].harm.renew()
            self.outputs[output].observe(canary.get(output, {}), baseline.get(output, {}))
        alarm = self.alarm * len(self.outputs)
        for output, shift in self.outputs.items():
            proven = shift.harm.value >= alarm and shift.samples >= self.settings.minimum
            if proven and shift.stability_index >= self.settings.limit and not self.failure:
                self.failure = proof(shift.harm, alarm, functools.partial(self._shift, output))

    def result(self) -> CheckResult:
        gate = self.settings.gate
        if self.failure:
            return CheckResult(self.name, Finding.FAIL, self.failure, gate)
        if not self.outputs:
            return CheckResult(self.name, Finding.INCONCLUSIVE, "no predictions were counted", gate)
        worst = max(self.outputs, key=lambda output: self.outputs[output].stability_index)
        fewest = min(shift.samples for shift in self.outputs.values())
        small = self.outputs[worst].stability_index < self.settings.limit
        finding = Finding.PASS if small and fewest >= self.settings.minimum else Finding.INCONCLUSIVE
        return CheckResult(self.name, finding, f"{self._shift(worst)}, {fewest} predictions a side", gate)

    def _shift(self, output: str) -> str:
        index = self.outputs[output].stability_index
        return f"output {output!r} has stability index {index:.3g} (limit {self.settings.limit:g})"
