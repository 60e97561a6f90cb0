"""Checks: does the canary break an objective of its endpoint, while the stable beside it does not?

The objectives are absolute, but what hits both sides at once is not the canary's doing: each check demands that the
canary breaks the objective *and* is worse than what runs beside it. They can fail a canary and are not needed to pass:
what the relative checks have not found harmful may go on where too few requests show whether a rare event is rarer
than promised."""

from __future__ import annotations

import math

import msgspec

from headrace.control.analysis import proportions
from headrace.control.analysis.counted_events import CountedEvents
from headrace.control.analysis.evidence import MOST_PER_INTERVAL, Capital, all_in, capital, proof
from headrace.control.analysis.settings import SloSettings
from headrace.control.analysis.signs import SignTest
from headrace.control.analysis.verdict import CheckResult, Finding
from headrace.core import tallies
from headrace.core.slo import SLOW_ONE_IN
from headrace.core.tallies import Observation, Outcome, Tally

_TAIL_REQUESTS = 2
"""Requests of a block that may be slow, at least: with fewer its sign would say little."""
_ODDS = (1.5, 3.0, 10.0, 50.0, 300.0)
"""Rates that are bet on, by their odds over those of the objective."""
_KEPT = (0.1, 0.5)
"""Rates that are bet on to show that the objective is kept, in parts of it."""


class Slow(msgspec.Struct, frozen=True):
    """Requests of one side in a block. The bucket that the limit lies in is counted in ``perhaps`` only."""

    requests: int = 0
    surely: int = 0
    perhaps: int = 0

    def plus(self, latency: dict[int, int], limit: int) -> Slow:
        """``limit``: bucket of the objective."""
        return Slow(
            self.requests + sum(latency.values()),
            self.surely + sum(count for bucket, count in latency.items() if bucket > limit),
            self.perhaps + sum(count for bucket, count in latency.items() if bucket >= limit),
        )

    @property
    def allowed(self) -> int:
        """Slow ones that keep the objective."""
        return self.requests // SLOW_ONE_IN

    @property
    def breaks(self) -> bool:
        """By one request more than a whole one in a hundred."""
        return self.surely > -(-self.requests // SLOW_ONE_IN)


class SloLatency(msgspec.Struct, tag=True):
    """One sign per block: more of the canary's requests than 1 % (and one) are slower than promised, and of the
    baseline slice no more than 1 %.

    "Worse" has probability at most 1/2 in both of the cases that are no fault of the canary: it keeps the objective
    (the median of a binomial count lies at most at its mean, rounded up), or it is no slower than its equal."""

    settings: SloSettings
    limit_s: float
    block_s: float
    block_requests: int
    alarm: float
    clear: float
    signs: SignTest = msgspec.field(default_factory=SignTest)
    seconds: float = 0.0
    canary: Slow = Slow()
    """Of this block; so is the next."""
    baseline: Slow = Slow()
    last: tuple[float, float] = (0.0, 0.0)
    """Shares of slow requests in the last block."""
    failure: str = ""
    name: str = "slo latency"

    @property
    def enough(self) -> int:
        """Requests per side and block."""
        return max(self.block_requests, _TAIL_REQUESTS * SLOW_ONE_IN)

    def begin_step(self) -> None:
        self.signs.begin_step()
        self._next_block()

    def observe(self, observation: Observation) -> None:
        limit = tallies.latency_bucket(self.limit_s)
        self.seconds += observation.seconds
        self.canary = self.canary.plus(observation.canary.latency, limit)
        self.baseline = self.baseline.plus(observation.baseline.latency, limit)
        canary, baseline = self.canary, self.baseline
        if self.seconds < self.block_s or min(canary.requests, baseline.requests) < self.enough:
            return
        self.last = (canary.surely / canary.requests, baseline.surely / baseline.requests)
        self.signs.observe(
            worse=canary.breaks and baseline.perhaps <= baseline.allowed, fine=canary.perhaps < canary.allowed
        )
        self._next_block()
        self.failure = self.failure or proof(self.signs.harm, self.alarm, self._blocks)

    def _next_block(self) -> None:
        self.seconds = 0.0
        self.canary = self.baseline = Slow()

    def result(self) -> CheckResult:
        gate = self.settings.gate
        if self.failure:
            return CheckResult(self.name, Finding.FAIL, self.failure, gate, needed=False)
        if self.signs.harmless.value >= self.clear:
            return CheckResult(self.name, Finding.PASS, self._blocks(), gate, needed=False)
        have = min(self.canary.requests, self.baseline.requests)
        waiting = f"{have} of the {self.enough} requests that a block needs, on the smaller side"
        reason = self._blocks() if self.signs.blocks else waiting
        return CheckResult(self.name, Finding.INCONCLUSIVE, reason, gate, needed=False)

    def _blocks(self) -> str:
        canary, baseline = self.last
        return (
            f"more than {1 / SLOW_ONE_IN:.0%} slower than {self.limit_s * 1e3:g} ms, and not of the baseline, in"
            f" {self.signs.worse} of {self.signs.blocks} blocks of this step, last {canary:.2%} against {baseline:.2%}"
        )


class SloErrors(CountedEvents, tag=True):
    """Counts requests, as ``ErrorRate`` does. An interval multiplies the stake by the smaller of two e-values: against
    "the canary keeps the objective", and against "it fails no more often than stable". Where either is true the smaller
    one has an expectation of at most 1, and which of them is true may change from interval to interval.

    Nothing is staked while stable's rate, as far as it is known, is above the objective."""

    settings: SloSettings
    bound: float
    """The objective."""
    alarm: float
    clear: float
    harm: Capital = msgspec.field(default_factory=lambda: capital(len(_ODDS)))
    harmless: Capital = msgspec.field(default_factory=lambda: all_in(len(_KEPT)))
    failure: str = ""
    name: str = "slo errors"

    def begin_step(self) -> None:
        self.harm.renew()
        self.harmless = all_in(len(_KEPT))
        self.seen = (0, 0, 0, 0)

    def observe(self, observation: Observation) -> None:
        stable, canary = _counts(observation.stable), _counts(observation.canary)
        self._see(stable, canary)
        # Everything that the bets depend on is of the past.
        power = self._power()
        rate = self._running_rate(self.bound / 2)
        if stable[1] and rate <= self.bound:
            self.harm.bet([math.exp(min(log * power, MOST_PER_INTERVAL)) for log in self._logs(stable, canary, rate)])
        kept = [proportions.log_e_one(*canary, self.bound * part, self.bound) for part in _KEPT]
        self.harmless.bet([math.exp(log * power) for log in kept])
        self._learn(stable, canary)
        self.failure = self.failure or proof(self.harm, self.alarm, lambda: f"{self._rates()} in this step")

    def _logs(self, stable: tuple[int, int], canary: tuple[int, int], rate: float) -> list[float]:
        odds = self.bound / (1 - self.bound)
        guesses = [odds * more / (1 + odds * more) for more in _ODDS]
        return [
            min(
                proportions.log_e_one(*canary, guess, self.bound),
                proportions.log_e_two(stable, canary, (rate, guess), 0.0, above=True),
            )
            for guess in guesses
        ]

    def result(self) -> CheckResult:
        gate = self.settings.gate
        if self.failure:
            return CheckResult(self.name, Finding.FAIL, self.failure, gate, needed=False)
        kept = self.harmless.value >= self.clear
        finding = Finding.PASS if kept else Finding.INCONCLUSIVE
        return CheckResult(self.name, finding, self._rates(), gate, needed=False)

    def _rates(self) -> str:
        events_s, n_s, events_c, n_c = self.seen
        return f"{events_c} of {n_c} requests, {self.bound:.3%} are allowed; {events_s} of {n_s} at stable"


def _counts(tally: Tally) -> tuple[int, int]:
    return tally.outcomes.get(Outcome.ERROR, 0), tally.judged
