"""gRPC, one row of 30 floats a call, closed loop, with the servers that speak the Open Inference Protocol."""

from __future__ import annotations

from typing import Any

import msgspec

from benchmarks import contenders, dialects
from benchmarks.bench import Bench
from benchmarks.load import h2load
from benchmarks.load.probe import ValueProbe

SHAPES = {"16": (16, 1), "64": (64, 1), "4x16": (4, 16)}
"""Connections and calls in flight on each: one call a connection, and four clients that multiplex."""


def run(bench: Bench) -> dict[str, Any]:
    """``{server: {shape: [one H2loadResult a round]}}``."""
    servers = [contenders.headrace(bench.assets), *(peer for peer in bench.peers() if peer.grpc)]
    results: dict[str, dict[str, list[Any]]] = {}
    for round_number, contender in bench.rotation(servers):
        with (
            contenders.serve(contender, bench.folder("grpc", contender.name)) as served,
            served.grpc_client() as client,
            ValueProbe(lambda i, served=served, client=client: served.probe_grpc(client, i)),  # type: ignore[misc]
        ):
            message = dialects.grpc_message(contender.endpoint, contender.sample.rows[:1])
            body = bench.grpc_body(served.launch.folder, message)
            h2load.run(served.launch.grpc, dialects.INFER_METHOD, body, 16, 1, 1)
            for shape, (connections, streams) in SHAPES.items():
                result = h2load.run(
                    served.launch.grpc, dialects.INFER_METHOD, body, connections, streams, bench.seconds
                )
                results.setdefault(contender.name, {}).setdefault(shape, []).append(msgspec.to_builtins(result))
                bench.say(
                    f"round {round_number + 1} {contender.name:22} {shape:5} {result.per_second:8.0f}/s"
                    f"  mean {result.mean_us / 1e3:.2f} ms  failed {result.failed}"
                    + (f"  calls of the probe without an answer {served.unanswered}" if served.unanswered else "")
                )
    return results
