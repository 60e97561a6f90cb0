"""REST, JSON, one row of 30 floats a request, closed loop: every contender at 1, 16 and 64 connections."""

from __future__ import annotations

from typing import Any

import msgspec

from benchmarks import contenders
from benchmarks.bench import Bench

CONNECTIONS = (1, 16, 64)


def run(bench: Bench) -> dict[str, Any]:
    """``{server: {connections: [one WrkResult a round]}}``."""
    servers = [contenders.prototype(bench.assets), contenders.headrace(bench.assets), *bench.peers()]
    results: dict[str, dict[str, list[Any]]] = {}
    for round_number, contender in bench.rotation(servers):
        with contenders.serve(contender, bench.folder("rest", contender.name)) as served:
            bench.warm_up(served)
            for connections in CONNECTIONS:
                result = bench.wrk(served, connections)
                results.setdefault(contender.name, {}).setdefault(str(connections), []).append(
                    {**msgspec.to_builtins(result), "per_second": result.per_second, "failed": result.failed}
                )
                bench.say(
                    f"round {round_number + 1} {contender.name:22} c={connections:<3} {result.per_second:8.0f}/s"
                    f"  p50 {result.p50_us / 1e3:.2f} ms  p99 {result.p99_us / 1e3:.2f} ms  failed {result.failed}"
                )
    return results
