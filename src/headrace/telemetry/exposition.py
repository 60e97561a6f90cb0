"""Exposition: the pages of all processes merged into Prometheus metrics.

Counters and histograms are summed over processes, dead ones included, so that nothing that was counted is lost when a
process dies; gauges are summed or the largest is taken, over living processes only (``telemetry/pages.py`` leaves the
others out). Memory and CPU time of processes are read when somebody asks, so that they cost the processes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from headrace.core import release
from headrace.core.tensors import Array
from headrace.telemetry import metrics, pages, processes
from headrace.telemetry.metrics import Kind, Merge, Metric
from headrace.telemetry.pages import Key, PageSnapshot

Blocks = dict[Key, Array]
"""Label values of the outer labels -> merged cells."""


def render(
    directory: Path, accept: str | None = None, *, workers: Callable[[], Mapping[str, int]] | None = None
) -> tuple[bytes, str]:
    """Body and content type of ``/metrics``: the text format, or OpenMetrics when ``accept`` asks for it.

    ``workers`` gives further processes, name to pid, whose memory and CPU time are shown too. Reads files: not
    for an event loop."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(PageCollector(directory, workers=workers))
    encode, content_type = choose_encoder(accept or "")
    return encode(registry), content_type


class PageCollector(Collector):
    """Collects every declared metric from the pages in a directory; stateless, safe to use from any thread."""

    def __init__(self, directory: Path, *, workers: Callable[[], Mapping[str, int]] | None = None) -> None:
        self._directory = directory
        self._workers = workers

    def collect(self) -> Iterator[Family]:
        snapshots = pages.read_directory(self._directory)
        merged = merge(snapshots)
        for metric in metrics.STORED:
            family = _family(metric)
            for labels, cells in sorted(merged.get(metric.name, {}).items()):
                _add_block(family, metric, labels, cells)
            if family.samples:
                yield family
        yield from self._about_processes(snapshots)
        build = _family(metrics.BUILD)
        _add(build, (release.VERSION,), 1)
        yield build

    def _about_processes(self, snapshots: list[PageSnapshot]) -> Iterator[Family]:
        unreadable, lost, up = (
            _family(metrics.PAGES_UNREADABLE),
            _family(metrics.SERIES_LOST),
            _family(metrics.PROCESS_UP),
        )
        _add(unreadable, (), sum(bool(s.fault) for s in snapshots))
        pids = dict(self._workers()) if self._workers else {}
        for snapshot in snapshots:
            if not snapshot.fault:
                _add(up, (snapshot.process,), snapshot.alive)
                _add(lost, (snapshot.process,), snapshot.lost)
            if snapshot.alive:
                pids[snapshot.process] = snapshot.pid
        memory, cpu = _family(metrics.PROCESS_MEMORY), _family(metrics.PROCESS_CPU)
        for process, pid in sorted(pids.items()):
            used = processes.usage(pid)
            if used is not None:
                _add(memory, (process,), used[0])
                _add(cpu, (process,), used[1])
        yield from (up, memory, cpu, lost, unreadable)


def merge(snapshots: Iterable[PageSnapshot]) -> dict[str, Blocks]:
    """Metric name -> merged blocks. Blocks of unknown metrics or sizes (another release) are left out."""
    merged: dict[str, Blocks] = {}
    for snapshot in snapshots:
        for (name, *labels), values in snapshot.blocks:
            metric = metrics.BY_NAME.get(name)
            if metric is None or len(values) != metric.cells or len(labels) != len(metric.outer_labels):
                continue
            key = (snapshot.process,) if metric.per_process else tuple(labels)
            blocks = merged.setdefault(name, {})
            cells = np.array(values)
            before = blocks.get(key)
            if before is None:
                blocks[key] = cells
            else:
                blocks[key] = np.maximum(before, cells) if metric.merge is Merge.MAX else before + cells
    return merged


def _family(metric: Metric) -> Family:
    match metric.kind:
        case Kind.COUNTER:
            return CounterMetricFamily(metric.full_name, metric.help, labels=metric.labels, unit=metric.unit)
        case Kind.GAUGE:
            return GaugeMetricFamily(metric.full_name, metric.help, labels=metric.labels, unit=metric.unit)
        case Kind.HISTOGRAM:
            return HistogramMetricFamily(metric.full_name, metric.help, labels=metric.labels, unit=metric.unit)


def _add(family: Family, labels: Key, value: float) -> None:
    assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
    family.add_metric(labels, value)


def _add_block(family: Family, metric: Metric, labels: Key, cells: Array) -> None:
    for index, series in enumerate(cells.reshape(-1, metric.width)):
        values = (*labels, metric.inner[index]) if metric.inner else labels
        if not isinstance(family, HistogramMetricFamily):
            # Shares of batches leave fractions for a moment; a rounded running sum still is a count that only grows.
            _add(family, values, float(series[0]) if metric.fractions else round(series[0]))
            continue
        counts = np.rint(np.cumsum(series[:-1])).tolist()
        if counts[-1]:
            bounds = (*map(floatToGoString, metric.buckets), "+Inf")
            family.add_metric(values, list(zip(bounds, counts, strict=True)), float(series[-1]))
