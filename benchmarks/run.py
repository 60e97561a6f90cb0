"""``python -m benchmarks``: measures the rows one after the other and writes figures, tables and a plot."""

from __future__ import annotations

import argparse
import importlib
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from benchmarks import assets, environments, judge, machine, report, results
from benchmarks.bench import Bench

ROWS = ("rest", "grpc", "latency", "matrix", "mixed", "images", "overload", "kill", "sigterm", "fleet", "soak")
ONLY_WHEN_ASKED = frozenset({"soak"})
RESULTS = environments.HERE / "results"
DOCUMENT = environments.HERE.parent / "docs" / "benchmarks.md"
PLOT = DOCUMENT.with_name("benchmarks.png")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="Example: python -m benchmarks --only rest grpc --rounds 5",
    )
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW", help=f"rows to measure: {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, help="rounds of each row (default 3)")
    parser.add_argument("--seconds", type=float, help="length of one measurement (default 3)")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that everything works")
    parser.add_argument("--no-peers", action="store_true", help="Headrace and the prototype only")
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="folder of the results; docs are written for the default"
    )
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.seconds = options.seconds or (1.0 if options.quick else 3.0)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(sys.argv[1:] if arguments is None else arguments)
    names = options.only or [name for name in ROWS if name not in ONLY_WHEN_ASKED]
    # Servers run in folders of their own, so a relative path would not lead there.
    out: Path = options.out.resolve()
    print("Preparing", flush=True)
    environments.ensure_load_programs()
    bench = Bench(
        assets=assets.prepare(),
        raw=out / "raw" / time.strftime("%Y%m%d-%H%M%S"),
        rounds=options.rounds,
        seconds=options.seconds,
        long_seconds=10.0 if options.quick else 60.0,
        soak_seconds=30.0 if options.quick else 600.0,
        with_peers=not options.no_peers,
    )
    versions = _other_versions(bench)
    failed = [name for name in names if not _measure(name, bench, out, versions)]
    _publish(out)
    verdicts = judge.judge(results.read(out).figures())
    for verdict in verdicts:
        print(f"{'met  ' if verdict.met else 'SHORT'} {verdict.measure}: {verdict.value} (target {verdict.target})")
    print(f"{sum(v.met for v in verdicts)} of {len(verdicts)} targets met; figures in {out / results.FILE}")
    if failed:
        print(f"rows that could not be measured: {', '.join(failed)}")
    return 1 if failed else 0


def _measure(name: str, bench: Bench, out: Path, versions: dict[str, str]) -> bool:
    """One row; a row that breaks leaves the others and what was measured before."""
    print(f"{name}: {_first_line(name)}", flush=True)
    before = machine.describe(versions)
    try:
        figures = importlib.import_module(f"benchmarks.rows.{name}").run(bench)
    except Exception:  # a row is a boundary: the error is printed, counted and changes the exit code
        traceback.print_exc()
        return False
    settings = {"rounds": float(bench.rounds), "seconds": bench.seconds}
    if name in ("overload", "kill"):
        settings["long_seconds"] = bench.long_seconds
    results.record(out, name, results.RowResult(before, settings, figures))
    return True


def _first_line(name: str) -> str:
    return (importlib.import_module(f"benchmarks.rows.{name}").__doc__ or "").splitlines()[0]


def _other_versions(bench: Bench) -> dict[str, str]:
    tools = machine.installed(environments.python_of("tools"))
    versions = {"xgboost": tools["xgboost-cpu"], "onnxmltools": tools["onnxmltools"]}
    for contender in bench.peers():
        installed = machine.installed(contender.python())
        versions |= {name: installed[name] for name in contender.versions}
    return versions


def _publish(out: Path) -> None:
    """Tables beside the figures always; the document and the plot of the repository only for its own results."""
    found = results.read(out)
    if not found.rows:
        return
    (out / "figures.md").write_text(report.markdown(found) + "\n")
    plot: str | None = None
    if {"rest", "grpc"} & set(found.rows):
        target = out / PLOT.name
        command = [environments.python_of("tools"), environments.HERE / "plot.py", out / results.FILE, target]
        subprocess.run(command, check=True)
        plot = PLOT.name
    if out == RESULTS:
        if plot:
            shutil.move(out / plot, PLOT)
        report.write(DOCUMENT, found, plot)


if __name__ == "__main__":
    sys.exit(main())
