"""Far more than the server can do: ten times the capacity of a slow model for a minute, then 512 impatient clients."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec

from benchmarks import contenders, dialects, payloads
from benchmarks.bench import Bench
from benchmarks.contenders import Served
from benchmarks.load import wrk
from benchmarks.load.plan import Arrivals
from benchmarks.load.probe import ValueProbe
from benchmarks.memory import MemorySampler

OFFERED = 2000.0
PEAK_CONNECTIONS = (8, 64)
IMPATIENT_CONNECTIONS = 512
DEADLINE_MS = 100


def run(bench: Bench) -> dict[str, Any]:
    return {"slow": _slow(bench), "impatient": _impatient(bench)}


def _slow(bench: Bench) -> dict[str, Any]:
    """The unbatchable five-millisecond model; refusals are what the generator sees as status 429 or 503."""
    contender = contenders.headrace_slow(bench.assets, "Unbatchable")
    with contenders.serve(contender, bench.folder("overload", "slow")) as served:
        bench.warm_up(served)
        peak = max(bench.wrk(served, connections).per_second for connections in PEAK_CONNECTIONS)
        with MemorySampler(served.tree, 1.0) as sampler:
            found = bench.open_loop(
                served,
                [payloads.single_rows(served)],
                Arrivals(OFFERED, bench.long_seconds),
                {"timeout_s": 70, "max_connections": 4096},
            )
    latency = found.kinds["small"].latency
    refused = {outcome: summary for outcome, summary in latency.items() if outcome in ("status 429", "status 503")}
    # The queue is still full when the offering ends; only what was answered during it counts.
    good = found.per_second.get("ok", [])[: int(bench.long_seconds)]
    goodput = sum(good) / len(good) if good else 0.0
    slowest = max((summary.p99 for summary in refused.values()), default=0.0)
    bench.say(
        f"5 ms model: peak {peak:.0f}/s, offered {OFFERED:.0f}/s: goodput {goodput:.0f}/s,"
        f" refusals p99 {slowest * 1e3:.1f} ms {found.kinds['small'].outcomes}"
    )
    return {
        "peak": peak,
        "goodput": goodput,
        "refusal_p99_s": slowest,
        "load": msgspec.to_builtins(found),
        "memory": msgspec.to_builtins(sampler.traces()),
    }


def _impatient(bench: Bench) -> dict[str, Any]:
    """``{"peak": […], "goodput": […]}``: right answers a second, with 64 and with 512 connections."""
    contender = contenders.headrace(bench.assets)
    deadline = f"X-Request-Timeout-Ms: {DEADLINE_MS}"
    results: dict[str, list[Any]] = {"peak": [], "goodput": []}
    with contenders.serve(contender, bench.folder("overload", "impatient")) as served:
        bench.warm_up(served)
        for round_number in range(bench.rounds):
            peak = _closed(bench, served, 64, deadline)
            many = _closed(bench, served, IMPATIENT_CONNECTIONS, deadline)
            results["peak"].append(peak)
            results["goodput"].append(many)
            bench.say(
                f"round {round_number + 1} fraud, {DEADLINE_MS} ms deadlines: c=64 {peak['per_second']:.0f}/s,"
                f" c={IMPATIENT_CONNECTIONS} {many['per_second']:.0f}/s p99 {many['p99_us'] / 1e3:.0f} ms,"
                f" refused {many['not_2xx']}, broken {many['socket_errors'] + many['timeouts']}"
            )
    return results


def _closed(bench: Bench, served: Served, connections: int, header: str) -> dict[str, Any]:
    dialect = served.contender.rest
    assert dialect is not None

    def check(index: int) -> None:
        # The probe itself may be refused now; what it must never get is a wrong answer.
        with contextlib.suppress(dialects.Refused):
            served.check_rest(index)

    with ValueProbe(check):
        result = wrk.run(
            served.url + dialect.path,
            bench.rest_bodies(served),
            (*dialect.headers, header),
            connections,
            max(2.0, bench.seconds),
        )
    return {**msgspec.to_builtins(result), "per_second": result.per_second}
