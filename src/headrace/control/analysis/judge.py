"""The judge: every check, the share of false alarms that each may have, one verdict per look."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from headrace.control.analysis import verdict
from headrace.control.analysis.compute import ComputeTime
from headrace.control.analysis.error_rate import ErrorRate
from headrace.control.analysis.latency import LatencyQuantile
from headrace.control.analysis.metrics import UserMetric
from headrace.control.analysis.predictions import PredictionShift
from headrace.control.analysis.refusals import Refusals
from headrace.control.analysis.settings import AnalysisSettings
from headrace.control.analysis.shadow import ShadowAgreement
from headrace.control.analysis.slo import SloErrors, SloLatency
from headrace.control.analysis.verdict import Finding, Verdict
from headrace.core.slo import Slo
from headrace.core.tallies import Observation, Outcome

NONE_PROMISED = Slo()

Check = (
    ErrorRate
    | Refusals
    | LatencyQuantile
    | ComputeTime
    | PredictionShift
    | ShadowAgreement
    | SloErrors
    | SloLatency
    | UserMetric
)


class Judge(msgspec.Struct):
    """The whole state of a judgement; ``msgspec`` encodes it, so that a controller can go on after a restart."""

    settings: AnalysisSettings
    checks: list[Check]
    silent: int = 0
    """Looks in a row without tallies."""

    def begin_step(self) -> None:
        """The canary's share has changed: what passes must be shown again, what harms is watched on."""
        for check in self.checks:
            check.begin_step()

    def look(self, observation: Observation) -> Verdict:
        """Judge one more interval. A verdict of FAIL stays: the evidence is not taken back."""
        if observation.error:
            self.silent += 1
            self._measure(observation)
        else:
            self.silent = 0
            for check in self.checks:
                check.observe(observation)
        found = verdict.combine(tuple(check.result() for check in self.checks))
        if self.silent >= self.settings.error_limit and found.finding is not Finding.FAIL:
            reason = f"no numbers of the gateways for {self.silent} looks in a row: {observation.error}"
            return Verdict(Finding.INCONCLUSIVE, reason, found.checks)
        return found

    def _measure(self, observation: Observation) -> None:
        """Metrics of the user do not come from gateways."""
        for check in self.checks:
            if isinstance(check, UserMetric):
                check.observe(observation)


def judge(settings: AnalysisSettings, slo: Slo = NONE_PROMISED) -> Judge:
    """A judge that has seen nothing; call ``begin_step`` when the canary gets its first traffic. ``slo`` are the
    objectives of the endpoint.

    Every statistical gate gets an equal part of ``false_alarm``: by the union bound the whole family stays below it,
    over all looks and steps, however the checks depend on each other."""
    gates = [settings.errors.gate, settings.rejections.gate, settings.refusals.gate, settings.compute.gate]
    gates += [
        settings.predictions.gate,
        settings.shadow.gate,
        *[settings.latency.gate] * len(settings.latency.quantiles),
    ]
    gates += [settings.slo.gate for objective in (slo.error_rate, slo.p99_ms) if objective is not None]
    alarm = max(sum(gates), 1) / settings.false_alarm
    clear = 1 / settings.false_pass
    block_s, block_requests = settings.block_s, settings.block_requests
    checks: list[Check] = [
        ErrorRate("errors", Outcome.ERROR, settings.errors, alarm, clear),
        ErrorRate("rejections", Outcome.REJECTED, settings.rejections, alarm, clear),
        Refusals(settings.refusals, block_s, block_requests, alarm, clear),
        *(
            LatencyQuantile(q, settings.latency, block_s, block_requests, alarm, clear)
            for q in settings.latency.quantiles
        ),
        ComputeTime(settings.compute, block_s, block_requests, alarm, clear),
        PredictionShift(settings.predictions, alarm),
        ShadowAgreement(settings.shadow, alarm, clear),
        *_objectives(settings, slo, alarm, clear),
        *(UserMetric(metric, settings.error_limit) for metric in settings.metrics),
    ]
    return Judge(settings, checks)


def _objectives(settings: AnalysisSettings, slo: Slo, alarm: float, clear: float) -> Iterator[Check]:
    if slo.error_rate is not None:
        yield SloErrors(settings.slo, slo.error_rate, alarm, clear)
    if slo.p99_ms is not None:
        limit_s = slo.p99_ms / 1e3
        yield SloLatency(settings.slo, limit_s, settings.block_s, settings.block_requests, alarm, clear)
