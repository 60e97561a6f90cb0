"""Counts outcomes while a load runs and turns them into a LoadResult."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict

from benchmarks.load import answers, timing
from benchmarks.load.plan import Check, KindResult, LoadPlan, LoadResult, Outcome, Trouble

MAX_TROUBLES = 25
"""Kept of each outcome: thousands of refusals must not crowd out the one answer that was cut."""
MAX_KEPT_BODIES = 100


class Tally:
    """All times are seconds since the start of the run."""

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._latencies: list[defaultdict[str, array[float]]] = [defaultdict(_doubles) for _ in plan.kinds]
        self._per_second: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self._kept: list[tuple[int, int, float, float, bytes]] = []
        self._lag = _doubles()
        self._told: Counter[str] = Counter()
        self._last = 0.0
        self.troubles: list[Trouble] = []
        self.checked = 0
        self.resent = 0
        self.connections_opened = 0

    def sent(self, late_by: float) -> None:
        self._lag.append(late_by)

    def answer(self, kind: int, sample: int, scheduled: float, now: float, status: int, body: bytes) -> None:
        """A whole HTTP response came; its values are compared here."""
        if status != 200:
            self.end(kind, scheduled, now, f"status {status}", body[:200].decode("utf-8", "replace"))
            return
        requests = self._plan.kinds[kind]
        if requests.check is Check.JSON:
            self._judge(kind, sample, scheduled, now, body)
            return
        if requests.check is Check.JSON_LATER and len(self._kept) < MAX_KEPT_BODIES:
            self._kept.append((kind, sample, scheduled, now, body))
            return
        self.end(kind, scheduled, now, Outcome.OK)

    def _judge(self, kind: int, sample: int, scheduled: float, now: float, body: bytes) -> None:
        self.checked += 1
        wrong = answers.mismatch(body, self._plan.kinds[kind].expected[sample], self._plan.rtol, self._plan.atol)
        self.end(kind, scheduled, now, Outcome.WRONG if wrong else Outcome.OK, wrong or "")

    def end(self, kind: int, scheduled: float, now: float, outcome: str, detail: str = "") -> None:
        self._latencies[kind][str(outcome)].append(now - scheduled)
        self._per_second[str(outcome)][int(now)] += 1
        self._last = max(self._last, now)
        if outcome != Outcome.OK and self._told[outcome] < MAX_TROUBLES:
            self._told[outcome] += 1
            self.troubles.append(Trouble(now, self._plan.kinds[kind].name, str(outcome), detail))

    def result(self, offered: int, started_at: float) -> LoadResult:
        for kind, sample, scheduled, now, body in self._kept:
            self._judge(kind, sample, scheduled, now, body)
        self._kept.clear()
        seconds = range(int(self._last) + 1)
        return LoadResult(
            offered=offered,
            seconds=self._last,
            started_at=started_at,
            kinds={
                kind.name: KindResult(
                    outcomes={outcome: len(values) for outcome, values in latencies.items()},
                    latency={outcome: timing.summarise(values) for outcome, values in latencies.items()},
                    histogram=timing.histogram(latencies.get(str(Outcome.OK), ())),
                )
                for kind, latencies in zip(self._plan.kinds, self._latencies, strict=True)
            },
            per_second={outcome: [counts[s] for s in seconds] for outcome, counts in self._per_second.items()},
            resent=self.resent,
            connections_opened=self.connections_opened,
            checked=self.checked,
            generator_lag=timing.summarise(self._lag),
            troubles=self.troubles,
        )


def _doubles() -> array[float]:
    return array("d")
