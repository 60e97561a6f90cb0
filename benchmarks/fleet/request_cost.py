"""What a request pays for keys, routing, shadow sampling and recording: throughput with all of it against none.

Both servers compute with one replica of one model. The plain one is ``headrace serve fraud.onnx --no-auth``. The full
one asks for an API key and has an endpoint with two weighted deployments, a sticky header and a shadow; its weights are
so uneven (1 in 10,000) that the second deployment takes part in every choice and computes next to nothing: otherwise
half of the requests would be batched apart, and the row would compare batches. The 1 % that is mirrored is computed
twice, by the shadow's own worker: that belongs to the price. Only requests to the full server carry two more headers.
"""

from __future__ import annotations

import os
from typing import Any

from benchmarks.bench import Bench
from benchmarks.dialects import oip
from benchmarks.fleet.server import Fleet, busy_seconds, serving
from benchmarks.load import wrk
from headrace.app.keys.key_state import open_issuer
from headrace.app.state.location import Location
from headrace.core.keys import Scope

CONNECTIONS = (16, 64)
PAIRS = 4
"""In each round: a difference of a tenth is less than what a minute changes on a machine that others use too."""
USER = "x-user-id"
_FULL = """\
endpoints:
  fraud:
    traffic: {{champion: 9999, challenger: 1}}
    sticky: header:{user}
    shadow: {{dark: 1}}
    deployments:
      champion: {{model: {model}}}
      challenger: {{model: {model}}}
      dark: {{model: {model}}}
"""


def run(bench: Bench) -> dict[str, Any]:
    """``{"plain" | "full": {"16": [{"per_second", "failed", "cpu_us"}…]}}``; the rounds of both sides are pairs,
    ``cpu_us`` is the processor time of all the server's processes for one request."""
    folder = bench.folder("fleet", "full")
    settings = folder / "headrace.yaml"
    settings.write_text(_FULL.format(user=USER, model=bench.assets.fraud_onnx))
    key = {"authorization": f"Bearer {_key(Location(folder / 'state', None, str(folder / 'artifacts')))}"}
    full_arguments = ["--config", str(settings), "--state", str(folder / "state")]
    plain_arguments = [f"fraud={bench.assets.fraud_onnx}", "--no-auth"]
    found: dict[str, dict[str, list[Any]]] = {"plain": {}, "full": {}}
    with (
        serving(bench.folder("fleet", "plain"), plain_arguments) as plain,
        serving(folder, full_arguments, {**key, USER: "user-{n}"}) as full,
    ):
        sides = [("plain", plain), ("full", full)]
        for _, fleet in sides:  # both have learned what their batches cost before either is measured
            _load(bench, fleet, CONNECTIONS[-1])
        for round_number in range(PAIRS * bench.rounds):
            for connections in CONNECTIONS:
                for name, fleet in sides if round_number % 2 == 0 else reversed(sides):
                    result = _load(bench, fleet, connections)
                    found[name].setdefault(str(connections), []).append(result)
                    bench.say(
                        f"round {round_number + 1} c={connections} {name}: {result['per_second']:.0f}/s,"
                        f" {result['cpu_us']:.0f} us of processor time a request"
                    )
    return found


def _key(location: Location) -> str:
    with open_issuer(location, os.environ) as issuer:
        return issuer.create("bench", [Scope.PREDICT], ["fraud"], None).token


def _load(bench: Bench, fleet: Fleet, connections: int) -> dict[str, float]:
    question, sample = oip("fraud"), bench.assets.fraud
    fleet.ask(question, sample)
    bodies = [question.encode(sample.rows[i : i + 1]) for i in range(64)]
    path = wrk.write_bodies(bench.folder("fleet") / "bodies.txt", bodies)
    headers = [*question.headers, *(f"{name}: {value}" for name, value in fleet.headers.items())]
    tree = fleet.server.tree()
    busy = busy_seconds(tree)
    result = wrk.run(fleet.url + question.path, path, headers, connections, bench.seconds)
    cpu_us = 1e6 * (busy_seconds(tree) - busy) / max(result.requests, 1)
    return {"per_second": result.per_second, "failed": result.failed, "cpu_us": cpu_us}
