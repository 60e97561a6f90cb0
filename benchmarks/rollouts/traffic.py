"""Simulated traffic of a rollout: tallies of canary, stable and baseline per interval. Seeded.

Latency is log-normal with a level that wanders (AR(1) from interval to interval): one part is shared by both sides, as
the load is, one part each side has for itself, as its replicas have. Errors are independent or come in clumps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core import tallies
from headrace.core.slo import Slo
from headrace.core.tallies import BUCKETS_PER_OCTAVE, BatchTally, Observation, Outcome, Tally

INTERVAL_S = 10.0
CHUNK = 60
"""Intervals that are drawn at once."""
_BUCKETS = 40 * BUCKETS_PER_OCTAVE + 1

NO_SLO = Slo()

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Wander:
    """AR(1) in the logarithm of the latency: correlation of neighbours, standard deviation."""

    correlation: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Bursts:
    """Times in which one side, or both, are slow: a burst begins with this probability in an interval."""

    begin: float = 0.0
    intervals: float = 3.0
    """Mean length."""
    factor: float = 3.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated; the defaults are a healthy canary of an ordinary service."""

    name: str
    rate: float = 200.0
    """Requests per second of the endpoint."""
    errors: float = 0.002
    clump: float = 1.0
    """Mean number of errors that come together."""
    median_s: float = 0.020
    sigma: float = 0.5
    shared: Wander = Wander(0.9, 0.25)
    own: Wander = Wander(0.8, 0.05)
    successive: float = 0.0
    """Correlation of the latencies of successive requests of one side."""
    shared_bursts: Bursts = Bursts()
    own_bursts: Bursts = Bursts()
    cold: float = 1.1
    """The canary is slower by this factor in the first minute of a step: cold caches."""
    slower: float = 1.0
    """Harm: the canary's latency is this many times stable's."""
    slow_tail: float = 0.0
    """Harm: this share of the canary's requests takes five times as long."""
    slower_compute: float = 1.0
    more_errors: float = 0.0
    refused: float = 0.0
    slo: Slo = NO_SLO
    """What the endpoint promises."""
    harm_from: float = 0.0
    """Seconds after the first traffic at which the harm begins."""


class Traffic:
    """Endless observations of one rollout; ``share`` may change between any two."""

    def __init__(self, scenario: Scenario, rng: np.random.Generator) -> None:
        self._scenario = scenario
        self._rng = rng
        self._levels = {"shared": 0.0, "canary": 0.0, "stable": 0.0}
        self._now = 0.0

    def step(self, share: float) -> Iterator[Observation]:
        """Observations from the moment at which the canary gets this share of the traffic."""
        cold = True
        while True:
            yield from self._chunk(share, cold)
            cold = False

    def _chunk(self, share: float, cold: bool) -> Iterator[Observation]:
        s, rng = self._scenario, self._rng
        times = self._now + INTERVAL_S * np.arange(CHUNK)
        harmed = times >= s.harm_from
        shared = self._wander("shared", s.shared) + self._bursts(s.shared_bursts)
        stable = shared + self._wander("stable", s.own) + self._bursts(s.own_bursts)
        canary = shared + self._wander("canary", s.own) + self._bursts(s.own_bursts)
        canary += np.where(harmed, math.log(s.slower), 0.0)
        if cold:
            canary[: int(60 / INTERVAL_S)] += math.log(s.cold)
        requests = s.rate * INTERVAL_S
        slice_share = share if share < 0.5 else 1 - share
        n_canary = rng.poisson(requests * share, CHUNK)
        n_baseline = rng.poisson(requests * slice_share, CHUNK)
        n_rest = rng.poisson(requests * max(1 - share - slice_share, 0.0), CHUNK)
        refused = rng.binomial(n_canary, np.where(harmed, s.refused, 0.0))
        errors = (
            self._errors(n_canary - refused, s.errors + np.where(harmed, s.more_errors, 0.0)),
            self._errors(n_baseline, s.errors),
            self._errors(n_rest, s.errors),
        )
        # Nothing is compared any more when the canary has all traffic.
        tail = np.where(harmed, s.slow_tail, 0.0)
        ok_canary, ok_baseline = n_canary - refused - errors[0], n_baseline - errors[1]
        canary_latency = self._latency(ok_canary, canary, tail) if share < 1 else [{}] * CHUNK
        baseline_latency = self._latency(ok_baseline, stable, np.zeros(CHUNK))
        slower = np.where(harmed, s.slower_compute, 1.0)
        canary_compute = self._compute(n_canary - refused, share, slower)
        stable_compute = self._compute(n_baseline + n_rest, 1 - share, np.ones(CHUNK))
        for i in range(CHUNK):
            self._now += INTERVAL_S
            yield Observation(
                INTERVAL_S,
                canary=_tally(
                    int(ok_canary[i]), int(errors[0][i]), int(refused[i]), canary_latency[i], canary_compute[i]
                ),
                stable=_tally(
                    int(ok_baseline[i] + n_rest[i] - errors[2][i]),
                    int(errors[1][i] + errors[2][i]),
                    0,
                    {},
                    stable_compute[i],
                ),
                baseline=_tally(int(ok_baseline[i]), int(errors[1][i]), 0, baseline_latency[i], {}),
            )

    def _wander(self, name: str, wander: Wander) -> Array:
        """The next CHUNK values of the AR(1); stationary, but for its start at 0."""
        scale = wander.deviation * math.sqrt(1 - wander.correlation**2)
        level = self._levels[name]
        out = []
        for shock in self._rng.standard_normal(CHUNK).tolist():
            level = wander.correlation * level + scale * shock
            out.append(level)
        self._levels[name] = level
        return np.array(out)

    def _bursts(self, bursts: Bursts) -> Array:
        out = np.zeros(CHUNK)
        if not bursts.begin:
            return out
        for begin in np.flatnonzero(self._rng.random(CHUNK) < bursts.begin):
            out[begin : begin + self._rng.geometric(1 / bursts.intervals)] = math.log(bursts.factor)
        return out

    def _errors(self, n: Array, share: Array | float) -> Array:
        clump = self._scenario.clump
        if clump == 1:
            return self._rng.binomial(n, share)
        clumps = self._rng.poisson(n * share / clump)
        # A clump has 1 + geometric errors.
        more = self._rng.negative_binomial(np.maximum(clumps, 1), 1 / clump)
        return np.minimum(np.where(clumps > 0, clumps + more, 0), n)

    def _latency(self, n: Array, level: Array, tail: Array) -> list[dict[int, int]]:
        """Histograms of the latency of ``n[i]`` requests at this level (natural logarithm over the median)."""
        s, rng = self._scenario, self._rng
        rows = np.repeat(np.arange(CHUNK), n)
        shocks = rng.standard_normal(len(rows))
        if s.successive:
            shocks = _correlated(shocks, s.successive)
        logs = level[rows] + s.sigma * shocks
        if tail.any():
            logs += math.log(5) * (rng.random(len(rows)) < tail[rows])
        octaves = math.log2(s.median_s / tallies.bucket_start(0)) + logs / math.log(2)
        buckets = np.clip((octaves * BUCKETS_PER_OCTAVE).astype(np.int64), 0, _BUCKETS - 1)
        counts = np.bincount(rows * _BUCKETS + buckets, minlength=CHUNK * _BUCKETS).reshape(CHUNK, _BUCKETS)
        found = []
        for row in counts:
            at = np.flatnonzero(row)
            found.append(dict(zip(at.tolist(), row[at].tolist(), strict=True)))
        return found

    def _compute(self, requests: Array, share: float, slower: Array) -> list[dict[int, BatchTally]]:
        """Batches grow with the load: about one more row per 40 requests/s. A batch of n takes 2 ms + 0.3 ms · n."""
        rng = self._rng
        more = self._scenario.rate * share / 40
        sizes = 1 + np.minimum(rng.poisson(more, (CHUNK, 8)), 30)
        noise = slower * np.exp(0.1 * rng.standard_normal(CHUNK))
        found: list[dict[int, BatchTally]] = []
        for n, row, factor in zip(requests.tolist(), sizes.tolist(), noise.tolist(), strict=True):
            each = max(1, round(n / (8 * (1 + more)))) if n else 0
            batches: dict[int, BatchTally] = {}
            for size in row[: max(1, min(8, n))]:
                before = batches.get(size, BatchTally(0, 0.0))
                seconds = before.seconds + each * (0.002 + 0.0003 * size) * factor
                batches[size] = BatchTally(before.batches + each, seconds)
            found.append(batches if n else {})
        return found


def _correlated(shocks: Array, correlation: float) -> Array:
    """AR(1) with variance 1 from independent shocks with variance 1."""
    from scipy.signal import lfilter  # slow to import, and one scenario needs it

    scaled = shocks * math.sqrt(1 - correlation**2)
    scaled[:1] = shocks[:1]
    return np.asarray(lfilter([1.0], [1.0, -correlation], scaled))


def _tally(ok: int, failed: int, refused: int, latency: dict[int, int], compute: dict[int, BatchTally]) -> Tally:
    outcomes = {Outcome.OK: ok, Outcome.ERROR: failed, Outcome.REFUSED: refused}
    return Tally(outcomes, latency, compute)
