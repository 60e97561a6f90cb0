"""From measured rows to verdicts: pure functions on the results file. Targets are those that the project set itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.memory import is_flat

Row = Mapping[str, Any]

HEADRACE = "headrace"
PROTOTYPE = "prototype"
REST_TARGETS = {
    PROTOTYPE: 0.6,
    "MLServer": 8.0,
    "MLServer, in process": 8.0,
    "KServe": 8.0,
    "LitServe": 8.0,
    "BentoML": 8.0,
    "FastAPI, 1 worker": 5.0,
    "FastAPI, 2 workers": 2.5,
}
"""Headrace's requests a second as a multiple of theirs, at 16 and at 64 connections."""
GRPC_TARGETS = {"16": 4.0, "64": 5.0}
"""Multiples of the best peer, by connections."""


@dataclass(frozen=True)
class Verdict:
    measure: str
    target: str
    value: str
    met: bool


def judge(rows: Mapping[str, Row]) -> list[Verdict]:
    """One verdict for each target whose row was measured, in the order of the table of targets."""
    return [verdict for name, judged in JUDGES.items() if name in rows for verdict in judged(rows[name])]


def middle(rounds: Iterable[Mapping[str, Any]], key: str) -> float:
    """Median over the rounds."""
    return median(float(one[key]) for one in rounds)


def _at_least(measure: str, value: float, target: float, form: str = "{:.2f}×") -> Verdict:
    return Verdict(measure, "≥ " + form.format(target), form.format(value), value >= target)


def _at_most(measure: str, value: float, target: float, form: str) -> Verdict:
    return Verdict(measure, "≤ " + form.format(target), form.format(value), value <= target)


def _none(measure: str, count: int) -> Verdict:
    return Verdict(measure, "0", str(count), count == 0)


def _rest(row: Row) -> Iterator[Verdict]:
    if HEADRACE not in row:
        return
    for connections in ("16", "64"):
        ours = middle(row[HEADRACE][connections], "per_second")
        targets = REST_TARGETS | ({"mosec": 1.0} if connections == "64" else {})
        for name, target in targets.items():
            if name in row:
                theirs = middle(row[name][connections], "per_second")
                yield _at_least(f"REST c={connections}, against {name}", ours / theirs, target)
    failed = sum(one["failed"] for rounds in row[HEADRACE].values() for one in rounds)
    yield _none("REST, requests that failed", failed)


def _grpc(row: Row) -> Iterator[Verdict]:
    peers = [name for name in row if name != HEADRACE]
    if HEADRACE not in row:
        return
    for connections, target in GRPC_TARGETS.items():
        if peers:
            best = max(peers, key=lambda name: middle(row[name][connections], "per_second"))
            ours, theirs = (middle(row[name][connections], "per_second") for name in (HEADRACE, best))
            yield _at_least(f"gRPC c={connections}, against the best peer ({best})", ours / theirs, target)
    failed = sum(one["failed"] for rounds in row[HEADRACE].values() for one in rounds)
    yield _none("gRPC, calls that failed", failed)


def _latency(row: Row) -> Iterator[Verdict]:
    if HEADRACE not in row:
        return
    p50 = middle(row[HEADRACE]["closed"], "p50_us") / 1e3
    yield _at_most("c=1, p50", p50, 0.5, "{:.3f} ms")
    if PROTOTYPE in row:
        theirs = middle(row[PROTOTYPE]["closed"], "p50_us") / 1e3
        yield _at_most("c=1, p50 against the prototype", p50 / theirs, 1.4, "{:.2f}×")
    yield _at_most("open loop 500/s, p99", 1e3 * open_percentile(row[HEADRACE]["open"], "p99"), 2.0, "{:.2f} ms")


def open_percentile(rounds: Sequence[Row], percentile: str, kind: str = "small") -> float:
    """Seconds, median over the rounds, of the answers that were right."""
    return median(float(one["kinds"][kind]["latency"]["ok"][percentile]) for one in rounds)


def _matrix(row: Row) -> Iterator[Verdict]:
    for key, what in (("per_second", "throughput"), ("mean_batch", "mean batch")):
        shares = {
            cell: middle(rounds, key) / middle(row[f"1x{cell.split('x')[1]}"], key)
            for cell, rounds in row.items()
            if not cell.startswith("1x")
        }
        worst = min(shares, key=lambda cell: shares[cell])
        measure = f"2 and 4 gateways, {what} against 1 gateway, worst of the matrix ({worst})"
        yield _at_least(measure, shares[worst] * 100, 90, "{:.0f} %")


def _mixed(row: Row) -> Iterator[Verdict]:
    alone = open_percentile(row["alone"], "p99")
    for name in ("other endpoint", "same endpoint"):
        if name in row:
            ratio = open_percentile(row[name], "p99") / alone
            yield _at_most(f"1 % of 5 MB JSON to the {name}, p99 of the small ones", ratio, 2.0, "{:.2f}×")
            yield _none(f"1 % of 5 MB JSON to the {name}, failed", sum(one["failed"] for one in row[name]))


def _images(row: Row) -> Iterator[Verdict]:
    theirs = {name: rounds for name, rounds in row.items() if name.startswith("MLServer")}
    if not theirs:
        return
    best = max(theirs, key=lambda name: middle(theirs[name], "per_second"))
    for protocol in ("REST", "gRPC"):
        if rounds := row.get(f"{HEADRACE} {protocol}"):
            ratio = middle(rounds, "per_second") / middle(theirs[best], "per_second")
            yield _at_least(f"600 kB images over {protocol}, against {best}", ratio, 2.0)


def _overload(row: Row) -> Iterator[Verdict]:
    slow, impatient = row["slow"], row["impatient"]
    yield _at_least("10× overload, goodput of peak", 100 * slow["goodput"] / slow["peak"], 90, "{:.0f} %")
    yield _at_most("10× overload, refusals p99", 1e3 * slow["refusal_p99_s"], 20, "{:.1f} ms")
    yield _memory("10× overload", slow["memory"])
    share = middle(impatient["goodput"], "per_second") / middle(impatient["peak"], "per_second")
    yield _at_least("512 clients with 100 ms deadlines, goodput of peak", 100 * share, 80, "{:.0f} %")


def _memory(measure: str, traces: Sequence[Row]) -> Verdict:
    growing = [trace["name"] for trace in traces if not is_flat(trace["resident"])]
    value = "flat" if not growing else f"{len(growing)} of {len(traces)} processes grow"
    return Verdict(f"{measure}, memory of every process", "flat", value, not growing)


def _kill(row: Row) -> Iterator[Verdict]:
    yield _none(f"{len(row['kills'])} × kill -9 of a replica, requests that failed", row["failed"])


def _sigterm(row: Row) -> Iterator[Verdict]:
    for name, rounds in row.items():
        yield _none(f"SIGTERM, {name}, REST requests lost", sum(one["rest_lost"] for one in rounds))
        yield _none(f"SIGTERM, {name}, gRPC calls lost", sum(len(one["grpc_lost"]) for one in rounds))
        orderly = all(_orderly(one) for one in rounds)
        value = "in order" if orderly else "not in order"
        yield Verdict(f"SIGTERM, {name}, not ready, then closed, exit 0", "in order", value, orderly)


def _orderly(one: Row) -> bool:
    not_ready, closed = one["not_ready_after_s"], one["closed_after_s"]
    return one["exit_code"] == 0 and not_ready is not None and closed is not None and not_ready < closed


def _soak(row: Row) -> Iterator[Verdict]:
    yield _memory(
        f"soak, {row['seconds'] / 60:.0f} min at {row['per_second'] / row['peak']:.0%} of peak", row["memory"]
    )
    yield _none("soak, requests that failed", row["failed"])


def _fleet(row: Row) -> Iterator[Verdict]:
    yield from _many(row["many"])
    packed, rollback, cost = row["packed"], row["rollback"], row["request_cost"]
    what = f"{packed['endpoints']} packed endpoints"
    yield _at_most(f"{what}, memory of all processes", packed["bytes"] / 1e9, 4.0, "{:.2f} GB")
    yield _none(f"{what}, requests that failed", packed["failed"])
    count = len(rollback["visible_ms"])
    yield _at_most(
        f"{count} rollbacks, visible at the last gateway, longest", max(rollback["visible_ms"]), 100, "{:.0f} ms"
    )
    yield _none(f"{count} rollbacks, requests that failed", rollback["failed"])
    for connections in cost["plain"]:
        share = paired(cost["full"][connections], cost["plain"][connections], "per_second")
        measure = f"keys, routing, 1 % shadow and records, c={connections}, throughput kept"
        yield _at_least(measure, 100 * share, 85, "{:.0f} %")
    failed = sum(one["failed"] for name in ("plain", "full") for rounds in cost[name].values() for one in rounds)
    yield _none("keys, routing, 1 % shadow and records, requests that failed", failed)


def _many(many: Row) -> Iterator[Verdict]:
    sizes = many["sizes"]
    what = f"{sizes['models']:,} models, {sizes['endpoints']} endpoints, {sizes['running']} running"
    for how, words in (("file", "from its file"), ("restored", "restored from the state")):
        yield _at_most(f"{what}: start {words}", middle(many["starts"][how], "seconds"), 5.0, "{:.1f} s")
    for name, found in many["lists"].items():
        yield _at_most(f"{what}: list of {name}, p99", found["p99_ms"], 100, "{:.0f} ms")
    latency = many["latency"]
    for connections in latency["alone"]:
        for key in ("p50_us", "p99_us"):
            ratio = paired(latency["many"][connections], latency["alone"][connections], key)
            yield _at_most(f"{what}: c={connections}, {key[:3]} against a lone endpoint", ratio, 1.1, "{:.2f}×")


def paired(ours: Sequence[Row], theirs: Sequence[Row], key: str) -> float:
    """Median over the rounds of the ratio within each: both sides of one round had the same minute of the machine."""
    return median(float(one[key]) / float(other[key]) for one, other in zip(ours, theirs, strict=True))


JUDGES: dict[str, Callable[[Row], Iterator[Verdict]]] = {
    "rest": _rest,
    "grpc": _grpc,
    "latency": _latency,
    "matrix": _matrix,
    "mixed": _mixed,
    "images": _images,
    "overload": _overload,
    "kill": _kill,
    "sigterm": _sigterm,
    "fleet": _fleet,
    "soak": _soak,
}
