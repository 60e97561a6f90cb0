"""From what gateways have counted since they began to what one interval brought: the judge's observation. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from headrace.core.load import LoadReport
from headrace.core.shadows import ShadowLoad
from headrace.core.tallies import Agreement, BatchTally, Observation, Outcome, Tally, add_counts
from headrace.core.trials import TrialTally

K = TypeVar("K")


class TrialSums:
    """Remembers the last sums of each gateway. A gateway that was started again counts from nothing."""

    def __init__(self, endpoint: str, new_id: str) -> None:
        self._endpoint = endpoint
        self._new_id = new_id
        self._last: dict[tuple[int, float], TrialTally] = {}
        self._mirrored: dict[tuple[int, float], ShadowLoad] = {}
        self._looked = False

    def observe(self, reports: Iterable[LoadReport], seconds: float, *, mirrored: bool) -> Observation | None:
        """What came since the last look, ``seconds`` ago; None at the first one, which only remembers.

        mirrored  the new version has mirrored requests only: what became of them stands for its requests"""
        new, old, baseline = [], [], []
        agreement, outcomes = Agreement(), dict[Outcome, int]()
        heard = False
        for report in reports:
            key = report.gateway, report.began
            agreement, outcomes = self._shadow(key, report, agreement, outcomes)
            for tally in report.trials:
                if tally.endpoint != self._endpoint or tally.new_id != self._new_id:
                    continue
                heard = True
                last = self._last.get(key, TrialTally(self._endpoint, self._new_id, Tally(), Tally(), Tally()))
                new.append(since(tally.new, last.new))
                old.append(since(tally.old, last.old))
                baseline.append(since(tally.baseline, last.baseline))
                self._last[key] = tally
        first, self._looked = not self._looked, True
        if first:
            return None
        if not heard:
            return Observation(seconds, error="no gateway has reported")
        canary = total(new)
        if mirrored:
            canary = Tally(outcomes, {}, canary.compute, canary.predictions)
        return Observation(seconds, canary, total(old), total(baseline), agreement)

    def _shadow(
        self, key: tuple[int, float], report: LoadReport, agreement: Agreement, outcomes: dict[Outcome, int]
    ) -> tuple[Agreement, dict[Outcome, int]]:
        for load in report.deployments:
            if load.deployment != self._new_id or load.shadow is None:
                continue
            last = self._mirrored.get(key, ShadowLoad())
            agreed = max(load.shadow.agreed - last.agreed, 0)
            compared = agreed + max(load.shadow.disagreed - last.disagreed, 0)
            failed = max(load.shadow.failed - last.failed, 0)
            self._mirrored[key] = load.shadow
            agreement = Agreement(agreement.pairs + compared, agreement.agreed + agreed)
            outcomes = add_counts([outcomes, {Outcome.OK: compared, Outcome.ERROR: failed}])
        return agreement, outcomes


def since(now: Tally, last: Tally) -> Tally:
    """What was counted after ``last``."""
    compute = {
        rows: BatchTally(batch.batches - before.batches, batch.seconds - before.seconds)
        for rows, batch in now.compute.items()
        if batch.batches > (before := last.compute.get(rows, BatchTally(0, 0.0))).batches
    }
    predictions = {
        output: fresh
        for output, labels in now.predictions.items()
        if (fresh := _less(labels, last.predictions.get(output, {})))
    }
    return Tally(_less(now.outcomes, last.outcomes), _less(now.latency, last.latency), compute, predictions)


def _less(now: Mapping[K, int], last: Mapping[K, int]) -> dict[K, int]:
    return {key: count - last.get(key, 0) for key, count in now.items() if count > last.get(key, 0)}


def total(tallies: list[Tally]) -> Tally:
    """The sum of several gateways' tallies."""
    compute: dict[int, BatchTally] = {}
    for tally in tallies:
        for rows, batch in tally.compute.items():
            before = compute.get(rows, BatchTally(0, 0.0))
            compute[rows] = BatchTally(before.batches + batch.batches, before.seconds + batch.seconds)
    outputs = {output for tally in tallies for output in tally.predictions}
    return Tally(
        add_counts(tally.outcomes for tally in tallies),
        add_counts(tally.latency for tally in tallies),
        compute,
        {output: add_counts(tally.predictions.get(output, {}) for tally in tallies) for output in outputs},
    )
