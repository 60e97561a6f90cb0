"""A lone request: closed loop with one connection, and an open loop of 500 requests a second."""

from __future__ import annotations

from typing import Any

import msgspec

from benchmarks import contenders, payloads
from benchmarks.bench import Bench
from benchmarks.load.plan import Arrivals, LoadResult

RATE = 500.0


def run(bench: Bench) -> dict[str, Any]:
    """``{server: {"closed": [WrkResult…], "open": [LoadResult…]}}``."""
    results: dict[str, dict[str, list[Any]]] = {}
    for round_number, contender in bench.rotation(
        [contenders.prototype(bench.assets), contenders.headrace(bench.assets)]
    ):
        with contenders.serve(contender, bench.folder("latency", contender.name)) as served:
            bench.warm_up(served)
            closed = bench.wrk(served, 1)
            arrivals = Arrivals(RATE, max(2.0, bench.seconds * 3), seed=round_number)
            found = bench.open_loop(served, [payloads.single_rows(served)], arrivals)
        measured = results.setdefault(contender.name, {"closed": [], "open": []})
        measured["closed"].append({**msgspec.to_builtins(closed), "failed": closed.failed})
        measured["open"].append({**msgspec.to_builtins(found), "failed": found.failed})
        bench.say(
            f"round {round_number + 1} {contender.name:10} c=1 p50 {closed.p50_us / 1e3:.3f} ms p99"
            f" {closed.p99_us / 1e3:.3f} ms; {describe(found)}"
        )
    return results


def describe(found: LoadResult) -> str:
    ok = found.kinds["small"].latency.get("ok")
    text = f"open loop {RATE:.0f}/s p50 {ok.p50 * 1e3:.3f} ms p99 {ok.p99 * 1e3:.3f} ms" if ok else "no right answer"
    return f"{text} (generator lag p99 {found.generator_lag.p99 * 1e3:.3f} ms), failed {found.failed}"
