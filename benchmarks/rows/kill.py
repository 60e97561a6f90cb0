"""``kill -9`` of a replica every two seconds under load, two replicas: no request may fail."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import msgspec
import psutil

from benchmarks import contenders, payloads, scrape
from benchmarks.bench import Bench
from benchmarks.contenders import Served
from benchmarks.load.plan import Arrivals

RATE = 1000.0
EVERY_SECONDS = 2.0


def run(bench: Bench) -> dict[str, Any]:
    contender = contenders.headrace(bench.assets, ("--replicas", "2"))
    with contenders.serve(contender, bench.folder("kill")) as served:
        bench.warm_up(served)
        load = bench.start_open_loop(
            served, [payloads.single_rows(served)], Arrivals(RATE, bench.long_seconds), {"timeout_s": 30}
        )
        kills = _kill_on(served, load_runs=lambda: load.running)
        found = load.result()
        metrics = {name: value for name, value in scrape.metrics(served).items() if "restart" in name}
    ok = found.kinds["small"].latency.get("ok")
    told = f"p99 {ok.p99 * 1e3:.1f} ms, longest {ok.max * 1e3:.0f} ms" if ok else "no right answer"
    bench.say(f"{len(kills)} kills in {bench.long_seconds:.0f} s at {RATE:.0f}/s: {told}")
    bench.say(f"failed {found.failed} of {found.offered} {found.kinds['small'].outcomes}")
    return {
        "kills": kills,
        "failed": found.failed,
        "load": msgspec.to_builtins(found),
        "metrics": metrics,
    }


def _kill_on(served: Served, load_runs: Any) -> list[float]:
    """Kill a worker every two seconds while the load runs; the times of the kills."""
    choose = random.Random(0)
    began, pause = time.time(), threading.Event()
    kills: list[float] = []
    while load_runs():
        pause.wait(max(0.0, EVERY_SECONDS * (len(kills) + 1) - (time.time() - began)))
        workers = scrape.workers(served)
        if not workers or not load_runs():
            continue
        victim: psutil.Process = choose.choice(workers)
        victim.kill()
        kills.append(time.time() - began)
    return kills
