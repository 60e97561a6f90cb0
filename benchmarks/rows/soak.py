"""Ten minutes at 70 % of peak: the memory of every process must stay flat after warm-up. Only with ``--only soak``."""

from __future__ import annotations

from typing import Any

import msgspec

from benchmarks import contenders
from benchmarks.bench import Bench
from benchmarks.contenders import Served
from benchmarks.load import wrk
from benchmarks.load.probe import ValueProbe
from benchmarks.memory import MemorySampler, growth, is_flat

SHARE = 0.7
THINK_MS = 5
"""Each connection pauses this long after an answer, so their number sets the rate."""


def run(bench: Bench) -> dict[str, Any]:
    with contenders.serve(contenders.headrace(bench.assets), bench.folder("soak")) as served:
        bench.warm_up(served)
        peak = bench.wrk(served, 64).per_second
        connections = _connections_for(bench, served, peak * SHARE)
        with (
            MemorySampler(served.tree, max(0.5, bench.soak_seconds / 300)) as sampler,
            ValueProbe(served.check_rest, 0.2),
        ):
            result = _paced(bench, served, connections, bench.soak_seconds)
    traces = sampler.traces()
    bench.say(
        f"peak {peak:.0f}/s, soak {result.per_second:.0f}/s ({result.per_second / peak:.0%}), failed {result.failed}"
    )
    for trace in traces:
        flat = "flat" if is_flat(trace.resident) else "GROWS"
        bench.say(f"  {trace.pid} {flat}: {growth(trace.resident) / 2**20:+.1f} MiB  {trace.name}")
    return {
        "peak": peak,
        "per_second": result.per_second,
        "failed": result.failed,
        "seconds": bench.soak_seconds,
        "memory": msgspec.to_builtins(traces),
    }


def _connections_for(bench: Bench, served: Served, rate: float) -> int:
    """How many pausing connections give this rate: a first guess, then one correction by measurement."""
    guess = max(1, round(rate * THINK_MS / 1000))
    measured = _paced(bench, served, guess, 3).per_second
    return max(1, round(guess * rate / measured))


def _paced(bench: Bench, served: Served, connections: int, seconds: float) -> wrk.WrkResult:
    dialect = served.contender.rest
    assert dialect is not None
    return wrk.run(
        served.url + dialect.path, bench.rest_bodies(served), dialect.headers, connections, seconds, THINK_MS
    )
