"""The fleet row as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.judge import middle, paired
from benchmarks.markdown import table

Row = Mapping[str, Any]


def fleet(row: Row) -> Iterator[str]:
    yield from _many(row["many"])
    yield from _packed(row["packed"])
    yield from _rollback(row["rollback"])
    yield from _request_cost(row["request_cost"])


def _many(many: Row) -> Iterator[str]:
    sizes = many["sizes"]
    yield f"{sizes['models']:,} registered models, {sizes['endpoints']} endpoints of which {sizes['running']} run, in a"
    yield f"worker process each, and the others are `lazy: true` (load average before: {many['load_before']:.1f}):"
    yield f"{many['bytes'] / 2**20:,.0f} MiB together (PSS), {many['idle_cores']:.2f} cores when nothing is asked."
    lazy = many["lazy_ms"]
    yield f"First request of a lazy endpoint: {median(lazy):.0f} ms, longest of {len(lazy)} {max(lazy):.0f} ms.\n"
    lines = [
        [words, f"{middle(many['starts'][how], 'seconds'):.1f}", f"{middle(many['starts'][how], 'cpu_seconds'):.1f}"]
        for how, words in (("file", "`headrace.yaml` and state"), ("restored", "restored from the state"))
    ]
    yield table(["start", "serving after s", "processor time s"], lines) + "\n"
    lines = [[name, f"{found['p50_ms']:.1f}", f"{found['p99_ms']:.1f}"] for name, found in many["lists"].items()]
    yield table(["list of all", "p50 ms", "p99 ms"], lines) + "\n"
    yield table(["one endpoint", "p50 ms alone", "among many", "p99 ms alone", "among many"], _latency(many["latency"]))


def _latency(latency: Row) -> Iterator[list[str]]:
    for connections in latency["alone"]:
        cells = [
            f"{middle(latency[side][connections], key) / 1e3:.2f}"
            for key in ("p50_us", "p99_us")
            for side in ("alone", "many")
        ]
        yield [f"c={connections}", *cells]


def _packed(packed: Row) -> Iterator[str]:
    yield f"\n{packed['endpoints']} endpoints with `isolation: packed` (load average before:"
    yield f"{packed['load_before']:.1f}): {packed['processes']} processes, {packed['bytes'] / 2**20:,.0f} MiB together"
    yield f"(PSS), serving after {packed['seconds']:.1f} s ({packed['cpu_seconds']:.1f} s of processor time)."


def _rollback(rollback: Row) -> Iterator[str]:
    visible, commands = rollback["visible_ms"], rollback["command_ms"]
    yield f"\n{len(visible)} times `rollout abort` with 99 % of the requests at the new version and"
    yield f"{rollback['gateways']} gateways (load average before: {rollback['load_before']:.1f}): the last gateway"
    yield f"answers by the old version {median(visible):.0f} ms after the command is sent (longest {max(visible):.0f});"
    yield f"the command itself returns after {median(commands):.0f} ms, when the state has it too.\n"


def _request_cost(cost: Row) -> Iterator[str]:
    yield "`headrace serve fraud.onnx --no-auth` against the same model with an API key, two weighted deployments, a"
    yield "sticky header and 1 % mirrored to a shadow. One replica computes in both: the second deployment's weight is"
    yield f"1 in 10,000 (load average before: {cost['load_before']:.1f}).\n"
    lines = [
        [f"c={connections}", *_sides(cost["plain"][connections], cost["full"][connections])]
        for connections in cost["plain"]
    ]
    header = ["", "plain req/s", "full req/s", "full of plain", "plain CPU µs/req", "full CPU µs/req"]
    yield table(header, lines)


def _sides(plain: Sequence[Row], full: Sequence[Row]) -> list[str]:
    rates = [f"{middle(side, 'per_second'):,.0f}" for side in (plain, full)]
    busy = [f"{middle(side, 'cpu_us'):.0f}" for side in (plain, full)]
    return [*rates, f"{100 * paired(full, plain, 'per_second'):.0f} %", *busy]
