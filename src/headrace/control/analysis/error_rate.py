"""Check: does a larger share of the canary's requests fail than of stable's?"""

from __future__ import annotations

import math

import msgspec

from headrace.control.analysis import proportions
from headrace.control.analysis.counted_events import CountedEvents
from headrace.control.analysis.evidence import MOST_PER_INTERVAL, Capital, all_in, capital, proof
from headrace.control.analysis.settings import ErrorRateSettings
from headrace.control.analysis.verdict import CheckResult, Finding
from headrace.core.tallies import Observation, Outcome, Tally

_EFFECTS = (2.0, 4.0, 10.0, 50.0, 300.0)
"""Rises that are bet on, in margins above stable's rate."""
_HARMLESS_EFFECTS = (0.0, 0.25)
"""Rises that are bet on to rule harm out, in tolerances."""
_PRIOR_RATE = 0.002
"""What is believed of stable before it is seen."""
_KNOWN_REQUESTS = 1000.0
"""Stable's rate is taken for known after this many requests, when the canary has to be judged alone."""


class ErrorRate(CountedEvents, tag=True):
    """Compares a kind of outcome between canary and all of stable, request by request.

    E-values are raised to the power 1/clump (tempering, as for a quasi-likelihood): a clump counts as one event. A
    power of at most 1 keeps the expectation at most 1 (Jensen)."""

    name: str
    counted: Outcome
    """ERROR or REJECTED."""
    settings: ErrorRateSettings
    alarm: float
    """Evidence that proves harm."""
    clear: float
    """Evidence that rules harm out."""
    harm: Capital = msgspec.field(default_factory=lambda: capital(len(_EFFECTS)))
    harmless: Capital = msgspec.field(default_factory=lambda: all_in(len(_HARMLESS_EFFECTS)))
    failure: str = ""

    def begin_step(self) -> None:
        self.harm.renew()
        self.harmless = all_in(len(_HARMLESS_EFFECTS))
        self.seen = (0, 0, 0, 0)

    def observe(self, observation: Observation) -> None:
        stable, canary = self._counts(observation.stable), self._counts(observation.canary)
        self._see(stable, canary)
        # Everything that the bets depend on is of the past: the rate, the margins, the sizes of clumps.
        rate = self._rate()
        power = self._power()
        if stable[1]:
            self._bet_on_both(stable, canary, rate, power)
        elif self.known[1] >= _KNOWN_REQUESTS:
            self._bet_on_canary_alone(canary, rate, power)
        self._learn(stable, canary)
        self.failure = self.failure or proof(self.harm, self.alarm, lambda: f"{self._rates()} in this step")

    def _counts(self, tally: Tally) -> tuple[int, int]:
        events = tally.outcomes.get(self.counted, 0)
        judged = tally.judged
        return events, judged if self.counted is Outcome.ERROR else judged + events

    def _rate(self) -> float:
        return self._running_rate(_PRIOR_RATE)

    def _margins(self, rate: float) -> tuple[float, float]:
        s = self.settings
        return max(s.margin, s.relative_margin * rate, 1e-6), max(s.tolerance, s.relative_tolerance * rate)

    def _bet_on_both(self, stable: tuple[int, int], canary: tuple[int, int], rate: float, power: float) -> None:
        margin, tolerance = self._margins(rate)
        logs = [
            proportions.log_e_two(stable, canary, (rate, min(rate + margin * effect, 0.95)), margin, above=True)
            for effect in _EFFECTS
        ]
        self.harm.bet([math.exp(min(log * power, MOST_PER_INTERVAL)) for log in logs])
        logs = [
            proportions.log_e_two(stable, canary, (rate, rate + tolerance * effect), tolerance, above=False)
            for effect in _HARMLESS_EFFECTS
        ]
        self.harmless.bet([math.exp(log * power) for log in logs])

    def _bet_on_canary_alone(self, canary: tuple[int, int], rate: float, power: float) -> None:
        """Stable has no traffic any more. Its last rate is not concurrent, so harm begins at the tolerance."""
        tolerance = self._margins(rate)[1]
        bound = min(rate + tolerance, 0.9)
        guesses = [min(bound + tolerance * effect, 0.95) for effect in (1.0, 2.0, 5.0, 20.0, 80.0)]
        logs = [proportions.log_e_one(*canary, guess, bound) for guess in guesses]
        self.harm.bet([math.exp(min(log * power, MOST_PER_INTERVAL)) for log in logs])
        self.harmless.bet([math.exp(proportions.log_e_one(*canary, rate, bound) * power)] * len(_HARMLESS_EFFECTS))

    def result(self) -> CheckResult:
        gate = self.settings.gate
        if self.failure:
            return CheckResult(self.name, Finding.FAIL, self.failure, gate)
        if self.harmless.value >= self.clear:
            return CheckResult(self.name, Finding.PASS, self._rates(), gate)
        tolerance = self._margins(self._rate())[1]
        reason = f"{self._rates()}; a rise of {tolerance:.2%} is not ruled out yet"
        return CheckResult(self.name, Finding.INCONCLUSIVE, reason, gate)

    def _rates(self) -> str:
        events_s, n_s, events_c, n_c = self.seen
        stable = f"{events_s} of {n_s} at stable" if n_s else f"stable's last rate {self._rate():.2%}"
        return f"{events_c} of {n_c} requests against {stable}"
