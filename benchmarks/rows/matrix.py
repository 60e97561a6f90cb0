"""1, 2, 4 gateways times 1, 2, 4 replicas of a batchable five-millisecond model.

More gateways must not split the batches. The model sleeps, so twelve processes on two cores are no unfairness to it.
"""

from __future__ import annotations

from typing import Any

from benchmarks import contenders, scrape
from benchmarks.bench import Bench

COUNTS = (1, 2, 4)
CONNECTIONS = 64


def run(bench: Bench) -> dict[str, Any]:
    """``{"2x4": [{"per_second", "mean_batch", "failed"}…]}``, gateways first."""
    cells = [(gateways, replicas) for replicas in COUNTS for gateways in COUNTS]
    servers = {
        f"{gateways}x{replicas}": contenders.headrace_slow(
            bench.assets, "Batchable", ("--gateways", str(gateways), "--replicas", str(replicas))
        )
        for gateways, replicas in cells
    }
    results: dict[str, list[Any]] = {}
    for round_number in range(bench.rounds):
        for cell, contender in servers.items():
            with contenders.serve(contender, bench.folder("matrix", cell)) as served:
                bench.warm_up(served)
                before = scrape.metrics(served)
                result = bench.wrk(served, CONNECTIONS)
                batch = scrape.mean_batch(before, scrape.metrics(served))
            results.setdefault(cell, []).append(
                {"per_second": result.per_second, "mean_batch": batch, "failed": result.failed}
            )
            bench.say(
                f"round {round_number + 1} gateways x replicas {cell}: {result.per_second:7.0f}/s,"
                f" mean batch {batch:.1f}, failed {result.failed}"
            )
    return results
