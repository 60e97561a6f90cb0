"""1,000 models, 200 endpoints, packed workers, rollbacks, and what a request pays for being routed."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.bench import Bench
from benchmarks.fleet import many, packed, request_cost, rollback

PARTS = {"many": many, "packed": packed, "rollback": rollback, "request_cost": request_cost}


def run(bench: Bench) -> dict[str, Any]:
    """The figures of each part under its name, with the load average before it: each takes a minute or more."""
    found: dict[str, Any] = {}
    for name, part in PARTS.items():
        load = round(os.getloadavg()[0], 2)
        bench.say(f"{name}: load average {load:.1f}")
        found[name] = {"load_before": load, **part.run(bench)}
    return found
