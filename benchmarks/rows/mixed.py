"""One request in a hundred is 5 MB of JSON: what that does to the small ones.

``other endpoint``: four images for a second model of the same server, so only the gateway is shared.
``same endpoint``: 18,000 rows for the model that the small requests want too, so the replica is shared as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from benchmarks import contenders, payloads
from benchmarks.bench import Bench
from benchmarks.contenders import Served
from benchmarks.load.plan import Arrivals, RequestKind

RATE = 500.0
LARGE_SHARE = 0.01
IMAGES = 4
TABLE_ROWS = 18_000


def run(bench: Bench) -> dict[str, Any]:
    """``{"alone" | "other endpoint" | "same endpoint": [LoadResult…]}``."""
    results: dict[str, list[Any]] = {}
    with contenders.serve(contenders.headrace_both(bench.assets), bench.folder("mixed")) as served:
        bench.warm_up(served)
        for round_number in range(bench.rounds):
            arrivals = Arrivals(RATE, max(4.0, bench.seconds * 4), seed=round_number)
            for name, kinds in _mixtures(bench, served).items():
                found = bench.open_loop(served, kinds, arrivals, {"timeout_s": 30})
                results.setdefault(name, []).append({**msgspec.to_builtins(found), "failed": found.failed})
                small = found.kinds["small"].latency["ok"]
                bench.say(
                    f"round {round_number + 1} {name:15} small p50 {small.p50 * 1e3:.2f} ms p99 {small.p99 * 1e3:.2f}"
                    f" ms, failed {found.failed}, generator lag p99 {found.generator_lag.p99 * 1e3:.2f} ms"
                )
    return results


def _mixtures(bench: Bench, served: Served) -> dict[str, Sequence[RequestKind]]:
    assets = bench.assets
    small = payloads.single_rows(served, share=1 - LARGE_SHARE)
    images = payloads.large_json(served, "cnn", assets.cnn, "scores", IMAGES, LARGE_SHARE)
    table = payloads.large_json(served, "fraud", assets.fraud, "probabilities", TABLE_ROWS, LARGE_SHARE)
    return {"alone": [small], "other endpoint": [small, images], "same endpoint": [small, table]}
