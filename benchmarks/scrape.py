"""Reads Headrace's own metrics and finds its worker processes."""

from __future__ import annotations

import re

import psutil

from benchmarks.contenders import Served

_SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{[^}]*\})? (?P<value>\S+)", re.MULTILINE)


def totals(text: str) -> dict[str, float]:
    """Prometheus text: the sum of each metric over its labels."""
    sums: dict[str, float] = {}
    for sample in _SAMPLE.finditer(text):
        sums[sample["name"]] = sums.get(sample["name"], 0.0) + float(sample["value"])
    return sums


def metrics(served: Served) -> dict[str, float]:
    answer = served.client.get(f"{served.management_url}/metrics")
    answer.raise_for_status()
    return totals(answer.text)


def mean_batch(before: dict[str, float], after: dict[str, float]) -> float:
    """Rows a batch between two scrapes."""
    rows = after["headrace_batch_rows_sum"] - before.get("headrace_batch_rows_sum", 0.0)
    batches = after["headrace_batch_rows_count"] - before.get("headrace_batch_rows_count", 0.0)
    return rows / batches if batches else 0.0


def workers(served: Served) -> list[psutil.Process]:
    """Living worker processes, found by the module they run."""
    return [process for process in served.tree() if is_worker(process)]


def is_worker(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and any(
            "headrace.replica" in part for part in process.cmdline()
        )
    except psutil.NoSuchProcess:
        return False
