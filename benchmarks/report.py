"""Writes the results as Markdown tables, into ``docs/benchmarks.md`` between its two marks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.judge import HEADRACE, Verdict, judge, middle, open_percentile
from benchmarks.markdown import table
from benchmarks.report_fleet import fleet
from benchmarks.results import Results

BEGIN = "<!-- figures: written by `python -m benchmarks`, do not edit -->"
END = "<!-- end of figures -->"
Row = Mapping[str, Any]


class NoMarks(ValueError):
    """The document has no place for the figures."""


def replace_figures(document: str, figures: str) -> str:
    """The document with everything between its marks replaced."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise NoMarks(f"the document needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{figures.strip()}\n\n{END}{after}"


def write(document: Path, results: Results, plot: str | None) -> None:
    document.write_text(replace_figures(document.read_text(), markdown(results, plot)))


def markdown(results: Results, plot: str | None = None) -> str:
    figures = results.figures()
    parts = [_machine(results)]
    if plot:
        parts.append(f"![Requests a second by server and number of connections]({plot})")
    if verdicts := judge(figures):
        parts.append("### Targets\n\n" + _verdicts(verdicts))
    parts += [
        f"### {title}\n\n{text}"
        for name, (title, section) in SECTIONS.items()
        if name in figures and (text := "\n".join(section(figures[name])))
    ]
    return "\n\n".join(parts)


def _machine(results: Results) -> str:
    if not results.rows:
        return "Nothing was measured yet."
    machines = [row.machine for row in results.rows.values()]
    last = max(machines, key=lambda machine: machine.at)
    versions: dict[str, str] = {}
    for machine in machines:
        versions |= machine.versions
    listed = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    lines = [
        f"Machine: {last.cpu}, {last.cores} cores, {last.memory_gib:.0f} GiB, {last.system}, Python {last.python}.",
        f"Versions: {listed}.",
    ]
    settings = []
    for name, row in results.rows.items():
        rounds = f"{row.settings['rounds']:.0f} × {row.settings['seconds']:.0f} s"
        if long := row.settings.get("long_seconds"):
            rounds += f", long part {long:.0f} s"
        settings.append([name, row.machine.at[:16].replace("T", " "), rounds, f"{row.machine.load_before:.1f}"])
    return "\n\n".join([*lines, table(["row", "measured (UTC)", "rounds", "load average before"], settings)])


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    lines = [[v.measure, v.target, v.value, "yes" if v.met else "**no**"] for v in verdicts]
    met = sum(verdict.met for verdict in verdicts)
    return f"{met} of {len(verdicts)} met.\n\n" + table(["measure", "target", "measured", "met"], lines)


def _rest(row: Row) -> Iterator[str]:
    counts = list(next(iter(row.values())))
    lines = []
    for name, by_connections in _by_speed(row, "64"):
        cells = [f"**{name}**" if name == HEADRACE else name]
        for count in counts:
            rounds = by_connections[count]
            cells.append(f"{middle(rounds, 'per_second'):,.0f}")
            cells.append(f"{middle(rounds, 'p50_us') / 1e3:.2f} / {middle(rounds, 'p99_us') / 1e3:.1f}")
        lines.append(cells)
    header = ["server", *[text for count in counts for text in (f"c={count}, req/s", "p50 / p99 ms")]]
    yield table(header, lines)


def _by_speed(row: Row, key: str) -> list[tuple[str, Row]]:
    return sorted(row.items(), key=lambda pair: -middle(pair[1][key], "per_second"))


def _grpc(row: Row) -> Iterator[str]:
    shapes = list(next(iter(row.values())))
    lines = [
        [f"**{name}**" if name == HEADRACE else name]
        + [text for shape in shapes for text in _rate_and_mean(by_shape[shape])]
        for name, by_shape in _by_speed(row, "64")
    ]
    yield table(["server", *[t for shape in shapes for t in (f"c={shape}, calls/s", "mean ms")]], lines)
    yield "\n`4x16`: four connections with sixteen calls in flight on each."


def _rate_and_mean(rounds: Sequence[Row]) -> list[str]:
    return [f"{middle(rounds, 'per_second'):,.0f}", f"{middle(rounds, 'mean_us') / 1e3:.2f}"]


def _latency(row: Row) -> Iterator[str]:
    lines = []
    for name, found in row.items():
        closed = [f"{middle(found['closed'], key) / 1e3:.3f}" for key in ("p50_us", "p99_us")]
        opened = [f"{open_percentile(found['open'], key) * 1e3:.3f}" for key in ("p50", "p99", "p999")]
        lines.append([name, *closed, *opened])
    header = ["server", "c=1 p50 ms", "c=1 p99 ms", "500/s p50 ms", "500/s p99 ms", "500/s p99.9 ms"]
    yield table(header, lines)


def _matrix(row: Row) -> Iterator[str]:
    counts = sorted({int(cell.split("x")[0]) for cell in row})
    for key, what, form in (("per_second", "requests/s", "{:,.0f}"), ("mean_batch", "mean batch", "{:.1f}")):
        lines = [
            [f"{gateways}", *[form.format(middle(row[f"{gateways}x{replicas}"], key)) for replicas in counts]]
            for gateways in counts
        ]
        yield table([f"{what}; gateways", *[f"{replicas} replicas" for replicas in counts]], lines) + "\n"


def _mixed(row: Row) -> Iterator[str]:
    lines = []
    for name, rounds in row.items():
        small = [f"{open_percentile(rounds, key) * 1e3:.2f}" for key in ("p50", "p99", "p999")]
        large = next((kind for kind in rounds[0]["kinds"] if kind != "small"), None)
        big = f"{open_percentile(rounds, 'p50', large) * 1e3:.0f}" if large else "–"
        lines.append([name, *small, big, str(sum(one["failed"] for one in rounds))])
    yield table(["large ones go to", "small p50 ms", "p99 ms", "p99.9 ms", "large p50 ms", "failed"], lines)


def _images(row: Row) -> Iterator[str]:
    ordered = sorted(row.items(), key=lambda pair: -middle(pair[1], "per_second"))
    lines = [[name, f"{middle(rounds, 'per_second'):,.0f}"] for name, rounds in ordered]
    yield table(["server", "images/s"], lines)


def _overload(row: Row) -> Iterator[str]:
    slow, impatient = row["slow"], row["impatient"]
    outcomes = slow["load"]["kinds"]["small"]["outcomes"]
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(outcomes.items()))
    accepted = slow["load"]["kinds"]["small"]["latency"].get("ok")
    yield f"A model that does {slow['peak']:.0f} requests/s was offered 2,000/s: {told};"
    yield f"goodput {slow['goodput']:.0f}/s, refusals p99 {_ms(slow['refusal_p99_s'])},"
    yield f"accepted p99 {_ms(accepted['p99']) if accepted else '–'}.\n"
    peak, goodput = (middle(impatient[key], "per_second") for key in ("peak", "goodput"))
    yield f"512 closed-loop clients with 100 ms deadlines: {goodput:,.0f} right answers/s, {goodput / peak:.0%} of"
    yield f"the {peak:,.0f}/s that 64 clients get; p99 {middle(impatient['goodput'], 'p99_us') / 1e3:.0f} ms."


def _kill(row: Row) -> Iterator[str]:
    load = row["load"]
    ok = load["kinds"]["small"]["latency"]["ok"]
    yield f"{len(row['kills'])} kills, {load['offered']:,} requests, {row['failed']} failed."
    yield f"Latency p50 {_ms(ok['p50'])}, p99 {_ms(ok['p99'])}, longest {_ms(ok['max'])}."


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


def _sigterm(row: Row) -> Iterator[str]:
    lines = []
    for name, rounds in row.items():
        rest = f"{sum(one['rest_lost'] for one in rounds)} of {sum(one['rest_accepted'] for one in rounds):,}"
        grpc = f"{sum(len(one['grpc_lost']) for one in rounds)} of {sum(one['grpc_ok'] for one in rounds):,}"
        times = [_seconds(rounds, key) for key in ("not_ready_after_s", "closed_after_s", "exit_after_s")]
        lines.append([name, rest, grpc, *times])
    yield table(["", "REST lost", "gRPC lost", "not ready after s", "closed after s", "exit after s"], lines)
    yield "\nWith `--drain-delay 1s`; the load goes on until nobody listens."


def _seconds(rounds: Sequence[Row], key: str) -> str:
    known = [one for one in rounds if one[key] is not None]
    return f"{middle(known, key):.2f}" if known else "never"


def _soak(row: Row) -> Iterator[str]:
    share = row["per_second"] / row["peak"]
    yield f"{row['seconds'] / 60:.0f} min at {row['per_second']:,.0f}/s, {share:.0%} of peak.\n"
    lines = []
    for trace in row["memory"]:
        resident = [size / 2**20 for size in trace["resident"]]
        places = (0, len(resident) // 4, len(resident) // 2, 3 * len(resident) // 4, len(resident) - 1)
        lines.append([f"`{trace['name']}`", *[f"{resident[i]:.1f}" for i in places]])
    yield table(["process, resident MiB at", "start", "25 %", "50 %", "75 %", "end"], lines)


SECTIONS = {
    "rest": ("REST JSON, one row a request, closed loop", _rest),
    "grpc": ("gRPC, one row a call, closed loop", _grpc),
    "latency": ("A lone request", _latency),
    "matrix": ("Gateways × replicas, 5 ms model, 64 connections", _matrix),
    "mixed": ("One request in a hundred is 5 MB of JSON", _mixed),
    "images": ("Images of 600 kB as raw tensors, 8 connections", _images),
    "overload": ("Overload", _overload),
    "kill": ("Replicas killed under load", _kill),
    "sigterm": ("SIGTERM under load", _sigterm),
    "fleet": ("Control plane: many models and endpoints", fleet),
    "soak": ("Soak", _soak),
}
