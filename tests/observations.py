"""Observations of a rollout, made by hand."""

from __future__ import annotations

from headrace.core import tallies
from headrace.core.tallies import Agreement, BatchTally, Measurement, Observation, Outcome, Tally

INTERVAL_S = 10.0


def tally(ok: int = 0, errors: int = 0, refused: int = 0, rejected: int = 0, ms: float | None = None) -> Tally:
    """``ms``: the latency of every successful request."""
    outcomes = {Outcome.OK: ok, Outcome.ERROR: errors, Outcome.REFUSED: refused, Outcome.REJECTED: rejected}
    return Tally(outcomes, {tallies.latency_bucket(ms / 1e3): ok} if ms is not None else {})


def batches(**sizes: tuple[int, float]) -> dict[int, BatchTally]:
    """``b8=(10, 0.002)``: ten batches of 8 rows that took 2 ms each."""
    return {int(name[1:]): BatchTally(count, count * each) for name, (count, each) in sizes.items()}


def observe(canary: Tally, stable: Tally, baseline: Tally | None = None) -> Observation:
    return Observation(INTERVAL_S, canary, stable, baseline if baseline is not None else stable)


def shadowed(pairs: int, agreed: int) -> Observation:
    return Observation(INTERVAL_S, shadow=Agreement(pairs, agreed))


def measured(metric: str, value: float | None, error: str = "") -> Observation:
    return Observation(INTERVAL_S, measurements=(Measurement(metric, value, error),))
