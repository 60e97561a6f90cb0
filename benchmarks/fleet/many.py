"""A thousand registered models, two hundred endpoints of which twenty run: starts, lists, latency, first requests."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench import Bench
from benchmarks.fleet import stock
from benchmarks.fleet.server import Fleet, busy_seconds, proportional_bytes, serving
from benchmarks.load import wrk

MODELS = 1000
SERVED = 200
AWAKE = 20
NEIGHBOUR = AWAKE // 2
"""The endpoint whose latency is measured, here and alone in a server."""
LISTS = {"models": "/api/v1/models?limit=1000", "endpoints": "/api/v1/endpoints"}
LISTED = 50
LAZY = 10
CONNECTIONS = (1, 16)
IDLE_S = 3.0


def run(bench: Bench) -> dict[str, Any]:
    """``{"sizes", "starts": {"file" | "restored": [{"seconds", "cpu_seconds"}…]}, "idle_cores", "bytes",
    "lazy_ms": […], "lists": {"models" | "endpoints": {"p50_ms", "p99_ms"}},
    "latency": {"many" | "alone": {"16": [WrkResult…]}}}``"""
    folder = bench.folder("fleet", "many")
    state, scratch = folder / "state", folder / "files"
    began = time.monotonic()
    stock.fill_registry(state, bench.assets.fraud_onnx, scratch, models=MODELS, served=SERVED)
    bench.say(f"{MODELS} models registered in {time.monotonic() - began:.1f} s")
    settings = folder / "headrace.yaml"
    settings.write_text(stock.settings_text(SERVED, AWAKE))
    kept = ["--state", str(state), "--no-auth"]
    starts: dict[str, list[Any]] = {"file": [], "restored": []}
    for _ in range(bench.rounds):
        starts["file"].append(_start(bench, "from its file", folder, ["--config", str(settings), *kept]))
        starts["restored"].append(_start(bench, "restored", folder, kept))
    sizes = {"models": MODELS, "endpoints": SERVED, "running": AWAKE}
    with serving(folder, kept) as many:
        return {"sizes": sizes, "starts": starts, **_served(bench, many, scratch)}


def _start(bench: Bench, how: str, folder: Path, arguments: Sequence[str]) -> dict[str, float]:
    with serving(folder, arguments) as fleet:
        found = {"seconds": fleet.start_seconds, "cpu_seconds": busy_seconds(fleet.server.tree())}
    bench.say(f"start {how}: {found['seconds']:.2f} s, {found['cpu_seconds']:.1f} s of processor time")
    return found


def _served(bench: Bench, many: Fleet, files: Path) -> dict[str, Any]:
    lists = {name: _listed(many, path) for name, path in LISTS.items()}
    for name, found in lists.items():
        bench.say(f"list of {name}: p50 {found['p50_ms']:.1f} ms, p99 {found['p99_ms']:.1f} ms")
    tree = many.server.tree()
    weight, busy = proportional_bytes(tree), busy_seconds(tree)
    time.sleep(IDLE_S)
    idle = (busy_seconds(tree) - busy) / IDLE_S
    bench.say(f"{len(tree)} processes: {weight / 2**20:.0f} MiB, {idle:.3f} cores when nothing is asked")
    latency = _latency(bench, many, files / f"{stock.name_of(NEIGHBOUR)}.onnx")
    # Last: each of them starts a worker that stays.
    lazy = [1e3 * many.ask(stock.question(AWAKE + n), bench.assets.fraud) for n in range(LAZY)]
    bench.say(f"first requests of lazy ones: {', '.join(f'{ms:.0f}' for ms in lazy)} ms")
    return {"lists": lists, "bytes": weight, "idle_cores": idle, "latency": latency, "lazy_ms": lazy}


def _listed(many: Fleet, path: str) -> dict[str, float]:
    """The first one is left out: it opens the connection and imports what only lists need."""
    many.timed_get(path)
    return percentiles([many.timed_get(path) for _ in range(LISTED)])


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds; p99 is an observed value, not one between two."""
    ordered = 1e3 * np.sort(np.asarray(seconds))
    p99 = np.percentile(ordered, 99, method="higher")
    return {"p50_ms": float(np.median(ordered)), "p99_ms": float(p99)}


def _latency(bench: Bench, many: Fleet, file: Path) -> dict[str, dict[str, list[Any]]]:
    """One endpoint among many and the same one alone, both up, in turns; every other round backwards."""
    found: dict[str, dict[str, list[Any]]] = {"many": {}, "alone": {}}
    with ExitStack() as stack:
        alone = stack.enter_context(serving(bench.folder("fleet", "alone"), [str(file), "--no-auth"]))
        sides = [("many", many), ("alone", alone)]
        for round_number in range(2 * bench.rounds):
            for connections in CONNECTIONS:
                for name, fleet in sides if round_number % 2 == 0 else reversed(sides):
                    result = load(bench, fleet, NEIGHBOUR, connections)
                    found[name].setdefault(str(connections), []).append(result)
                    seen = f"p50 {result.p50_us} us, p99 {result.p99_us} us"
                    bench.say(f"round {round_number + 1} c={connections} {name}: {seen}")
    return found


def load(bench: Bench, fleet: Fleet, number: int, connections: int) -> wrk.WrkResult:
    """Closed loop of single rows of one endpoint, after an answer that is right."""
    question, sample = stock.question(number), bench.assets.fraud
    fleet.ask(question, sample)
    bodies = [question.encode(sample.rows[i : i + 1]) for i in range(64)]
    path = wrk.write_bodies(bench.folder("fleet") / "bodies.txt", bodies)
    return wrk.run(fleet.url + question.path, path, question.headers, connections, bench.seconds)
