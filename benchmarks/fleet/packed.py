"""Two hundred small ONNX endpoints that share worker processes: do all answer, and what do they weigh."""

from __future__ import annotations

from typing import Any

from benchmarks.bench import Bench
from benchmarks.dialects import WrongAnswer
from benchmarks.fleet import stock
from benchmarks.fleet.server import busy_seconds, proportional_bytes, serving

ENDPOINTS = 200


def run(bench: Bench) -> dict[str, Any]:
    """``{"endpoints", "seconds", "cpu_seconds", "processes", "bytes", "failed"}``; bytes are weighed after every
    endpoint has answered."""
    folder = bench.folder("fleet", "packed")
    files = stock.copies(bench.assets.fraud_onnx, folder / "files", ENDPOINTS)
    settings = folder / "headrace.yaml"
    settings.write_text(stock.packed_text(files))
    with serving(folder, ["--config", str(settings), "--no-auth"]) as fleet:
        busy, failed = busy_seconds(fleet.server.tree()), 0
        for number in range(ENDPOINTS):
            try:
                fleet.ask(stock.question(number), bench.assets.fraud, number)
            except WrongAnswer as error:
                bench.say(str(error))
                failed += 1
        tree = fleet.server.tree()
        weight = proportional_bytes(tree)
        bench.say(
            f"{ENDPOINTS} packed endpoints: serving after {fleet.start_seconds:.1f} s, {len(tree)} processes,"
            f" {weight / 2**20:.0f} MiB, {failed} wrong"
        )
        return {
            "endpoints": ENDPOINTS,
            "seconds": fleet.start_seconds,
            "cpu_seconds": busy,
            "processes": len(tree),
            "bytes": weight,
            "failed": failed,
        }
