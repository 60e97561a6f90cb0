"""Recorders: what a process calls to put numbers into its page.

``RequestRecorder`` is for gateways: finished requests come in bulk, off the path of any request
(``telemetry/folding.py``); everything else is one or two plain stores. ``ControlRecorder`` is for the controller and
the supervisor. Both belong to the thread that owns the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from headrace.core import errors
from headrace.core.fallbacks import FallbackKind
from headrace.core.replicas import ReplicaState
from headrace.core.requests import RequestRecord
from headrace.core.shadows import Mirrored, ShadowLoad
from headrace.core.slo import Slo
from headrace.core.tensors import Array
from headrace.telemetry import folding, metrics, statistics
from headrace.telemetry.metrics import Metric, Refusal, RestartReason
from headrace.telemetry.pages import Key, SeriesPage

MODEL_LIMIT = 4096
"""Distinct models and versions that get series of their own; a guard, as gateways name only known models."""
OTHER = "(other)"
"""Model label of all beyond that limit."""

_REFUSAL_CELL = metrics.REFUSED.position


class RequestRecorder:
    """Everything a gateway counts."""

    def __init__(self, page: SeriesPage) -> None:
        self._page = page
        self._requests: dict[tuple[str, str, str], memoryview[float]] = {}
        self._models: dict[folding.Model, _ModelCells] = {}
        self._cells: dict[Key, memoryview[float]] = {}
        self._dropped = cells_of(page, metrics.RECORDS_DROPPED)
        self._draining = cells_of(page, metrics.DRAINING)
        self._route_version = cells_of(page, metrics.ROUTE_VERSION)

    def observe(self, records: Sequence[RequestRecord]) -> None:
        """Count finished requests. The records are not kept."""
        if not records:
            return
        folded = folding.fold(records)
        for group, count in folded.requests:
            self._request_cells(group)[group[3]] += count
        for index, model in enumerate(folded.models):
            self._model_cells(model).add(folded, index)

    def dropped(self, count: int) -> None:
        """``count`` records were lost before they could be observed."""
        self._dropped[0] += count

    def log_failed(self) -> None:
        """There was no room for the log of an experiment's requests."""
        cells_of(self._page, metrics.REQUEST_LOG_FAILURES)[0] += 1

    def log_lost(self) -> None:
        """An answered request of an experiment is in no log."""
        cells_of(self._page, metrics.REQUEST_LOG_LOST)[0] += 1

    def set_log_waiting(self, nbytes: int) -> None:
        """Bytes of log entries that wait for room on the disk."""
        cells_of(self._page, metrics.REQUEST_LOG_WAITING)[0] = nbytes

    def refused(self, model: str, version: str, reason: Refusal, count: int = 1) -> None:
        """A request was turned away before any work was done for it; the model is empty when not known yet."""
        self._of(metrics.REFUSED, model, version)[_REFUSAL_CELL[reason]] += count

    def retried(self, model: str, version: str, count: int = 1) -> None:
        """``count`` requests were sent to a replica again after one died."""
        self._of(metrics.RETRIES, model, version)[0] += count

    def fell_back(self, model: str, version: str, kind: FallbackKind) -> None:
        """A fallback answered a request of this deployment."""
        self._of(metrics.FALLBACKS, model, version)[metrics.FALLBACKS.position[kind]] += 1

    def set_queue(self, model: str, version: str, requests: int, rows: int) -> None:
        self._of(metrics.QUEUE_REQUESTS, model, version)[0] = requests
        self._of(metrics.QUEUE_ROWS, model, version)[0] = rows

    def set_in_flight(self, model: str, version: str, requests: int) -> None:
        self._of(metrics.IN_FLIGHT, model, version)[0] = requests

    def set_open_streams(self, model: str, version: str, streams: int) -> None:
        self._of(metrics.OPEN_STREAMS, model, version)[0] = streams

    def mirrored(self, model: str, version: str, outcome: Mirrored) -> None:
        """What became of a request for this shadow."""
        self._of(metrics.SHADOW_REQUESTS, model, version)[metrics.SHADOW_REQUESTS.position[outcome]] += 1

    def compared(self, model: str, version: str, live_s: float, shadow_s: float, seen: ShadowLoad) -> None:
        """An answer of this shadow was compared; seconds that the batches of both took."""
        seconds = self._of(metrics.SHADOW_COMPUTE, model, version)
        seconds[metrics.SHADOW_COMPUTE.position["live"]] += live_s
        seconds[metrics.SHADOW_COMPUTE.position["shadow"]] += shadow_s
        difference = self._of(metrics.SHADOW_DIFFERENCE, model, version)
        difference[metrics.SHADOW_DIFFERENCE.position["absolute"]] = seen.max_absolute
        difference[metrics.SHADOW_DIFFERENCE.position["relative"]] = seen.max_relative

    def set_circuit_open(self, model: str, version: str, is_open: bool) -> None:
        self._of(metrics.CIRCUIT_OPEN, model, version)[0] = is_open

    def set_batch_limit(self, model: str, version: str, rows: int) -> None:
        self._of(metrics.BATCH_LIMIT, model, version)[0] = rows

    def set_draining(self, draining: bool) -> None:
        self._draining[0] = draining

    def set_route_version(self, version: int) -> None:
        self._route_version[0] = version

    def forget(self, model: str, version: str) -> None:
        """The deployment is gone: its gauges vanish, its counters stay."""
        for metric in metrics.STORED:
            if metric.live and metric.labels == metrics.MODEL_LABELS:
                key = (metric.name, model, version)
                self._cells.pop(key, None)
                self._page.retire(key)

    def _of(self, metric: Metric, model: str, version: str) -> memoryview[float]:
        key = (metric.name, model, version)
        cells = self._cells.get(key)
        if cells is None:
            cells = self._cells[key] = cells_of(self._page, metric, model, version)
        return cells

    def _request_cells(self, group: folding.Group) -> memoryview[float]:
        labels = group[:3]
        cells = self._requests.get(labels)
        if cells is None:
            if len(self._requests) >= MODEL_LIMIT:
                return cells_of(self._page, metrics.REQUESTS, OTHER, "", "")
            cells = self._requests[labels] = cells_of(self._page, metrics.REQUESTS, *labels)
        return cells

    def _model_cells(self, model: folding.Model) -> _ModelCells:
        cells = self._models.get(model)
        if cells is None:
            if len(self._models) >= MODEL_LIMIT:
                model = (OTHER, "")
            cells = self._models.get(model) or _ModelCells(self._page, model)
            self._models[model] = cells
        return cells


class ControlRecorder:
    """What the controller and the supervisor count."""

    def __init__(self, page: SeriesPage) -> None:
        self._page = page
        self._objectives: set[tuple[str, str]] = set()

    def replica_state(self, replica: str, state: ReplicaState) -> None:
        """The replica is in ``state``. A stopped replica will not come back under this id: its series vanishes."""
        if state is ReplicaState.STOPPED:
            self.forget_replica(replica)
            return
        cells = cells_of(self._page, metrics.REPLICA_STATE, replica)
        now = metrics.REPLICA_STATE.position[state]
        for cell in range(len(cells)):
            cells[cell] = cell == now

    def forget_replica(self, replica: str) -> None:
        self._page.retire((metrics.REPLICA_STATE.name, replica))

    def set_state_reachable(self, reachable: bool) -> None:
        cells_of(self._page, metrics.STATE_REACHABLE)[0] = reachable

    def restarted(self, model: str, version: str, reason: RestartReason) -> None:
        """A replica of this deployment is started again."""
        cells = cells_of(self._page, metrics.REPLICA_RESTARTS, model, version)
        cells[metrics.REPLICA_RESTARTS.position[reason]] += 1

    def set_route_version(self, version: int) -> None:
        cells_of(self._page, metrics.ROUTE_VERSION)[0] = version

    def set_draining(self, draining: bool) -> None:
        cells_of(self._page, metrics.DRAINING)[0] = draining

    def set_objectives(self, slos: Mapping[str, Slo]) -> None:
        """By endpoint; those of others vanish."""
        wanted: dict[tuple[str, str], float] = {}
        for endpoint, slo in slos.items():
            if slo.p99_ms is not None:
                wanted[metrics.SLO_LATENCY.name, endpoint] = slo.p99_ms / 1e3
            if slo.error_rate is not None:
                wanted[metrics.SLO_ERROR_RATE.name, endpoint] = slo.error_rate
        for gone in self._objectives - wanted.keys():
            self._page.retire(gone)
        for (name, endpoint), value in wanted.items():
            cells_of(self._page, metrics.BY_NAME[name], endpoint)[0] = value
        self._objectives = set(wanted)


def cells_of(page: SeriesPage, metric: Metric, *labels: str) -> memoryview[float]:
    """The block of a metric for these values of its outer labels."""
    if len(labels) != len(metric.outer_labels):
        raise errors.Bug(f"metric {metric.name} has the labels {metric.outer_labels}, got the values {labels}")
    return page.cells((metric.name, *labels), metric.cells, live=metric.live)


class _ModelCells:
    """Cells of one model and version. Those of batches are made when the first batch was computed, so that a model
    that only ever refuses takes little room."""

    __slots__ = ("_batch_rows", "_batch_sizes", "_batches", "_body", "_model", "_page", "_rows", "_seconds", "_totals")

    def __init__(self, page: SeriesPage, model: folding.Model) -> None:
        self._page = page
        self._model = model
        self._seconds = np.asarray(cells_of(page, metrics.REQUEST_SECONDS, *model))
        self._body = np.asarray(cells_of(page, metrics.BODY_BYTES, *model))
        self._totals = np.asarray(page.cells((statistics.TOTALS, *model), statistics.TOTALS_CELLS))
        self._rows = cells_of(page, metrics.ROWS_ANSWERED, *model)
        self._batches = cells_of(page, metrics.BATCHES, *model)
        self._batch_rows: Array | None = None
        self._batch_sizes: Array | None = None

    def add(self, folded: folding.Folded, index: int) -> None:
        """Add row ``index`` of the sums."""
        self._seconds += folded.seconds[index]
        self._body += folded.body_bytes[index]
        totals = folded.totals[index]
        self._rows[0] += totals[statistics.ROWS]
        batches = totals[statistics.BATCHES]
        # The time of the last inference is a maximum: turned into a step, so that readers see one plain addition.
        totals[statistics.LAST_S] = max(0.0, totals[statistics.LAST_S] - self._totals[statistics.LAST_S])
        self._totals += totals
        if batches > 0:
            self._batches[0] += batches
            self._add_batches(folded.batch_rows[index], folded.batch_sizes[index])

    def _add_batches(self, batch_rows: Array, batch_sizes: Array) -> None:
        if self._batch_rows is None or self._batch_sizes is None:
            self._batch_rows = np.asarray(cells_of(self._page, metrics.BATCH_ROWS, *self._model))
            key = (statistics.BATCH_SIZES, *self._model)
            self._batch_sizes = np.asarray(self._page.cells(key, statistics.BATCH_CELLS))
        self._batch_rows += batch_rows
        self._batch_sizes += batch_sizes
