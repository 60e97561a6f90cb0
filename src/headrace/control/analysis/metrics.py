"""Check: a metric of the user, by declared conditions. No statistics: what the conditions say counts.

The counting follows the analysis runs of Argo Rollouts: bad measurements are borne up to a limit, a measurement that
is neither good nor bad decides nothing, and one that could not be had is no failure of the canary."""

from __future__ import annotations

import math

import msgspec

from headrace.control.analysis import conditions
from headrace.control.analysis.settings import MetricSettings
from headrace.control.analysis.verdict import CheckResult, Finding
from headrace.core.tallies import Measurement, Observation


class UserMetric(msgspec.Struct, tag=True):
    settings: MetricSettings
    error_limit: int
    good: int = 0
    """Measurements of this step; so is the next."""
    bad: int = 0
    errors: int = 0
    """In a row."""
    last: str = "no measurement yet"
    failure: str = ""

    @property
    def name(self) -> str:
        return f"metric {self.settings.name}"

    def begin_step(self) -> None:
        self.good = self.bad = 0

    def observe(self, observation: Observation) -> None:
        for measurement in observation.measurements:
            if measurement.metric == self.settings.name:
                self._measured(measurement)

    def _measured(self, measurement: Measurement) -> None:
        if measurement.value is None or math.isnan(measurement.value):
            self.errors += 1
            self.last = measurement.error or "the measurement is not a number"
            return
        self.errors = 0
        self.last = f"last value {measurement.value:.6g}"
        match self._judge(measurement.value):
            case Finding.PASS:
                self.good += 1
            case Finding.FAIL:
                self.bad += 1
            case Finding.INCONCLUSIVE:
                pass
        if self.bad > self.settings.failure_limit and not self.failure:
            self.failure = f"{self.bad} bad measurements in one step ({self._conditions()}), {self.last}"

    def _judge(self, value: float) -> Finding:
        success, failure = self.settings.success, self.settings.failure
        if failure and conditions.parse(failure).holds(value):
            return Finding.FAIL
        if success and conditions.parse(success).holds(value):
            return Finding.PASS
        if success and failure:
            return Finding.INCONCLUSIVE
        return Finding.FAIL if success else Finding.PASS

    def result(self) -> CheckResult:
        gate = self.settings.gate
        if self.failure:
            return CheckResult(self.name, Finding.FAIL, self.failure, gate)
        if self.errors >= self.error_limit:
            reason = f"could not be measured {self.errors} times in a row: {self.last}"
            return CheckResult(self.name, Finding.INCONCLUSIVE, reason, gate)
        reason = f"{self.good} good and {self.bad} bad measurements of {self.settings.minimum} needed, {self.last}"
        finding = Finding.PASS if self.good >= self.settings.minimum else Finding.INCONCLUSIVE
        return CheckResult(self.name, finding, reason, gate)

    def _conditions(self) -> str:
        parts = (("success", self.settings.success), ("failure", self.settings.failure))
        return ", ".join(f"{key}: {text}" for key, text in parts if text)
