"""Images of 3x224x224 floats as raw bytes, 600 kB a request: how tensors travel.

Headrace over REST (binary tensor extension) and gRPC; MLServer and KServe over gRPC, the form they do offer.
"""

from __future__ import annotations

from typing import Any

import msgspec

from benchmarks import contenders, dialects
from benchmarks.bench import Bench
from benchmarks.contenders import Served
from benchmarks.load import h2load, wrk
from benchmarks.load.probe import ValueProbe

CONNECTIONS = 8


def run(bench: Bench) -> dict[str, Any]:
    """``{"server REST" | "server gRPC": [{"per_second", "failed"}…]}``; images a second."""
    servers = [contenders.headrace(bench.assets, model="cnn"), *(p for p in bench.peers("cnn") if p.grpc)]
    results: dict[str, list[Any]] = {}
    for round_number, contender in bench.rotation(servers):
        with (
            contenders.serve(contender, bench.folder("images", contender.name)) as served,
            served.grpc_client() as client,
            ValueProbe(lambda i, s=served, c=client: s.probe_grpc(c, i), interval=0.2),  # type: ignore[misc]
        ):
            found = {f"{contender.name} gRPC": _grpc(bench, served)}
            if contender.environment is None:
                found[f"{contender.name} REST"] = _rest(bench, served)
        for name, result in found.items():
            results.setdefault(name, []).append(result)
            bench.say(f"round {round_number + 1} {name:28} {result['per_second']:7.0f}/s  failed {result['failed']}")
    return results


def _grpc(bench: Bench, served: Served) -> dict[str, Any]:
    message = dialects.grpc_message(served.contender.endpoint, served.contender.sample.rows[:1])
    body = bench.grpc_body(served.launch.folder, message)
    h2load.run(served.launch.grpc, dialects.INFER_METHOD, body, CONNECTIONS, 1, 1)
    return msgspec.to_builtins(  # type: ignore[no-any-return]
        h2load.run(served.launch.grpc, dialects.INFER_METHOD, body, CONNECTIONS, 1, bench.seconds)
    )


def _rest(bench: Bench, served: Served) -> dict[str, Any]:
    rows = served.contender.sample.rows
    requests = [dialects.oip_binary(served.contender.endpoint, rows[i : i + 1]) for i in range(len(rows))]
    path, headers, first = requests[0]
    _check_binary(served, path, headers, first)
    bodies = wrk.write_bodies(served.launch.folder / "images.bin", [body for _, _, body in requests])
    wrk.run(served.url + path, bodies, headers, CONNECTIONS, 1)
    result = wrk.run(served.url + path, bodies, headers, CONNECTIONS, bench.seconds)
    return {**msgspec.to_builtins(result), "per_second": result.per_second, "failed": result.failed}


def _check_binary(served: Served, path: str, headers: tuple[str, ...], body: bytes) -> None:
    answer = served.client.post(
        served.url + path, content=body, headers=dict(header.split(": ", 1) for header in headers)
    )
    answer.raise_for_status()
    scores = dialects.oip_outputs(answer.content)[served.contender.output]
    dialects.check(scores, served.contender.sample.outputs[:1], f"{served.contender.name} binary")
