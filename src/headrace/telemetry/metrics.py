"""Every metric of Headrace, declared once: name, type, help, labels, buckets, and how processes are merged.

A series is stored as one block of a page (``telemetry/pages.py``) whose key is ``(name, *values of outer labels)``.
``inner`` lists the values of the last label when they are known beforehand; they lie side by side in that block.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from headrace.core.fallbacks import FallbackKind
from headrace.core.replicas import ReplicaState
from headrace.core.requests import Outcome
from headrace.core.shadows import Mirrored

PREFIX = "headrace_"


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Merge(StrEnum):
    """How the values that several processes have for one series become one. Counters and histograms are summed."""

    SUM = "sum"
    MAX = "max"


class Refusal(StrEnum):
    """Why a request was turned away before any work was done for it."""

    QUEUE_FULL = "queue_full"
    """The deployment's queue holds as many rows as it may."""
    PREDICTED_LATE = "predicted_late"
    """It would not be answered within its deadline or the queue's time limit."""
    BYTES = "bytes"
    """The deployment's queue holds as many bytes as it may."""
    BODY_TOO_LARGE = "body_too_large"
    """The body is larger than a body may be."""
    BODY_BUDGET = "body_budget"
    """The gateway already holds as many body bytes as it may."""
    QUOTA = "quota"
    """The caller's own limit is used up."""
    NOT_READY = "not_ready"
    """No replica is ready."""
    RETRY_BUDGET = "retry_budget"
    """The retry after a replica's death would pass the retry budget."""
    DRAINING = "draining"
    """The gateway is shutting down."""


class RestartReason(StrEnum):
    """Why a replica had to be started again."""

    EXIT = "exit"
    """The process ended by itself."""
    SIGNAL = "signal"
    """The process was killed by a signal (segfault, kill -9)."""
    OUT_OF_MEMORY = "out_of_memory"
    HANG = "hang"
    """A batch was older than the replica timeout."""
    LOAD_FAILED = "load_failed"
    UNREACHABLE = "unreachable"
    """The process lives but no gateway could reach it."""


@dataclass(frozen=True)
class Metric:
    """``name`` is without prefix; ``help`` is the text users see.

    fractions       it is no count: shown as it is, not rounded
    per_process     the label ``process`` says which one reported it; nothing is merged
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    inner: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    merge: Merge = Merge.SUM
    unit: str = ""
    per_process: bool = False
    fractions: bool = False

    @property
    def full_name(self) -> str:
        return PREFIX + self.name

    @property
    def live(self) -> bool:
        """Void once the process that reported it is gone."""
        return self.kind is Kind.GAUGE

    @property
    def outer_labels(self) -> tuple[str, ...]:
        """Labels whose values are in the key of a block."""
        if self.per_process:
            return ()
        return self.labels[:-1] if self.inner else self.labels

    @cached_property
    def width(self) -> int:
        """Cells of one series: a histogram has one per bucket, one for +Inf, one for the sum."""
        return len(self.buckets) + 2 if self.kind is Kind.HISTOGRAM else 1

    @cached_property
    def cells(self) -> int:
        """Cells of one block."""
        return self.width * max(1, len(self.inner))

    @cached_property
    def position(self) -> dict[str, int]:
        """Value of the inner label -> its first cell in the block."""
        return {value: index * self.width for index, value in enumerate(self.inner)}


SECONDS = (
    *(0.00005, 0.0001, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.003, 0.005),
    *(0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0),
)
"""Bounds of latency buckets, 50 µs to 60 s, a factor of 1.5 to 2 apart."""

ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0)

STAGES = ("decode", "queue", "batch_wait", "compute", "encode", "total")
"""In the order of the fields of ``RequestRecord``."""

MODEL_LABELS = ("model", "version")

REQUESTS = Metric(
    "requests_total",
    Kind.COUNTER,
    "Finished requests by outcome. Requests for an unknown endpoint have an empty model.",
    labels=(*MODEL_LABELS, "protocol", "outcome"),
    inner=Outcome.NAMES,
)
REQUEST_SECONDS = Metric(
    "request_seconds",
    Kind.HISTOGRAM,
    "Seconds of a request by stage: decode (body to tensors), queue (accepted to sent), batch_wait (sent to the start"
    " of the model call), compute (the call of the whole batch), encode, total (head read to response handed over)."
    " Requests that were refused or invalid are not in total, so that overload does not look fast.",
    labels=(*MODEL_LABELS, "stage"),
    inner=STAGES,
    buckets=SECONDS,
    unit="seconds",
)
BATCH_ROWS = Metric("batch_rows", Kind.HISTOGRAM, "Rows in each batch that was computed.", MODEL_LABELS, buckets=ROWS)
BATCHES = Metric("batches_total", Kind.COUNTER, "Batches computed.", MODEL_LABELS)
ROWS_ANSWERED = Metric("rows_total", Kind.COUNTER, "Rows of requests that were answered.", MODEL_LABELS)
BODY_BYTES = Metric(
    "body_bytes_total",
    Kind.COUNTER,
    "Bytes of request bodies (in) and response bodies (out).",
    labels=(*MODEL_LABELS, "direction"),
    inner=("in", "out"),
)
QUEUE_REQUESTS = Metric("queue_requests", Kind.GAUGE, "Requests that wait for a replica.", MODEL_LABELS)
QUEUE_ROWS = Metric("queue_rows", Kind.GAUGE, "Rows that wait for a replica.", MODEL_LABELS)
IN_FLIGHT = Metric("in_flight_requests", Kind.GAUGE, "Requests that a replica is working on.", MODEL_LABELS)
BATCH_LIMIT = Metric(
    "batch_limit_rows",
    Kind.GAUGE,
    "Rows that a batch may have now, as learned from latencies.",
    MODEL_LABELS,
    merge=Merge.MAX,
)
REFUSED = Metric(
    "refused_total",
    Kind.COUNTER,
    "Requests turned away before any work was done for them, by reason.",
    labels=(*MODEL_LABELS, "reason"),
    inner=tuple(Refusal),
)
RETRIES = Metric("retries_total", Kind.COUNTER, "Requests sent to a replica again after one died.", MODEL_LABELS)
FALLBACKS = Metric(
    "fallbacks_total",
    Kind.COUNTER,
    "Requests that something else answered, by the deployment that was asked first.",
    labels=(*MODEL_LABELS, "fallback"),
    inner=tuple(FallbackKind),
)
CIRCUIT_OPEN = Metric(
    "circuit_open",
    Kind.GAUGE,
    "Gateways whose circuit breaker keeps requests from the deployment; only of endpoints with fallbacks.",
    MODEL_LABELS,
)
SHADOW_REQUESTS = Metric(
    "shadow_requests_total",
    Kind.COUNTER,
    "Live requests that were to be computed by this shadow too, by what became of them.",
    labels=(*MODEL_LABELS, "outcome"),
    inner=tuple(Mirrored),
)
SHADOW_COMPUTE = Metric(
    "shadow_compute_seconds_total",
    Kind.COUNTER,
    "Seconds of the batches of compared requests, of the live deployment and of this shadow.",
    labels=(*MODEL_LABELS, "side"),
    inner=("live", "shadow"),
    fractions=True,
)
SHADOW_DIFFERENCE = Metric(
    "shadow_difference_max",
    Kind.GAUGE,
    "Greatest difference of a number between the outputs of this shadow and the live ones.",
    labels=(*MODEL_LABELS, "kind"),
    inner=("absolute", "relative"),
    merge=Merge.MAX,
    fractions=True,
)
OPEN_STREAMS = Metric("open_streams", Kind.GAUGE, "Streaming responses under way.", MODEL_LABELS)
REPLICA_STATE = Metric(
    "replica_state",
    Kind.GAUGE,
    "1 for the state the replica is in, 0 for the others.",
    labels=("replica", "state"),
    inner=tuple(ReplicaState),
    merge=Merge.MAX,
)
REPLICA_RESTARTS = Metric(
    "replica_restarts_total",
    Kind.COUNTER,
    "Replicas that were started again, by what ended them.",
    labels=(*MODEL_LABELS, "reason"),
    inner=tuple(RestartReason),
)
DRAINING = Metric(
    "draining", Kind.GAUGE, "1 while the process finishes its work to stop.", ("process",), per_process=True
)
RECORDS_DROPPED = Metric(
    "records_dropped_total",
    Kind.COUNTER,
    "Records of requests that were lost because the ring was full; their requests are in no other metric.",
    ("process",),
    per_process=True,
)
REQUEST_LOG_FAILURES = Metric(
    "request_log_failures_total",
    Kind.COUNTER,
    "Attempts to make room on the disk for the log of an experiment's requests that failed; requests wait in memory.",
    ("process",),
    per_process=True,
)
REQUEST_LOG_WAITING = Metric(
    "request_log_waiting_bytes",
    Kind.GAUGE,
    "Log entries of experiments that wait in memory for room on the disk.",
    ("process",),
    unit="bytes",
    per_process=True,
)
REQUEST_LOG_LOST = Metric(
    "request_log_lost_total",
    Kind.COUNTER,
    "Answered requests of experiments that are in no log, because the disk was full for too long.",
    ("process",),
    per_process=True,
)
ROUTE_VERSION = Metric(
    "route_table_version", Kind.GAUGE, "Version of the route table in use.", ("process",), per_process=True
)
SLO_LATENCY = Metric(
    "slo_latency_seconds",
    Kind.GAUGE,
    "Objective of the endpoint: 99 % of its requests take at most this long. Only of endpoints with such an objective.",
    ("model",),
    unit="seconds",
    merge=Merge.MAX,
    fractions=True,
)
SLO_ERROR_RATE = Metric(
    "slo_error_rate",
    Kind.GAUGE,
    "Objective of the endpoint: at most this share of its requests fails, 0 to 1. Only of endpoints with one.",
    ("model",),
    merge=Merge.MAX,
    fractions=True,
)
STATE_REACHABLE = Metric(
    "state_reachable",
    Kind.GAUGE,
    "1 while the controller can change its state, 0 while it cannot: what is served goes on, changes are refused.",
    ("process",),
    per_process=True,
)

STORED = (
    *(REQUESTS, REQUEST_SECONDS, BATCH_ROWS, BATCHES, ROWS_ANSWERED, BODY_BYTES),
    *(QUEUE_REQUESTS, QUEUE_ROWS, IN_FLIGHT, BATCH_LIMIT, REFUSED, RETRIES, FALLBACKS, CIRCUIT_OPEN, OPEN_STREAMS),
    *(SHADOW_REQUESTS, SHADOW_COMPUTE, SHADOW_DIFFERENCE),
    *(REPLICA_STATE, REPLICA_RESTARTS, DRAINING, RECORDS_DROPPED, ROUTE_VERSION),
    *(REQUEST_LOG_FAILURES, REQUEST_LOG_WAITING, REQUEST_LOG_LOST, STATE_REACHABLE, SLO_LATENCY, SLO_ERROR_RATE),
)
"""Metrics that processes keep in their pages, in the order they are shown."""

# Found out when the metrics are read; the processes do nothing for them.
PROCESS_UP = Metric(
    "process_up", Kind.GAUGE, "1 while the process of this slot lives, 0 when it is gone.", ("process",)
)
PROCESS_MEMORY = Metric("process_resident_memory_bytes", Kind.GAUGE, "Resident memory.", ("process",), unit="bytes")
PROCESS_CPU = Metric(
    "process_cpu_seconds_total",
    Kind.COUNTER,
    "User and system CPU time of the process since it started.",
    ("process",),
    unit="seconds",
)
PAGES_UNREADABLE = Metric(
    "metric_pages_unreadable", Kind.GAUGE, "Metric pages that were torn or of another release and were skipped."
)
SERIES_LOST = Metric(
    "metric_series_lost", Kind.GAUGE, "Series that found no room in the page of their process.", ("process",)
)
BUILD = Metric("build_info", Kind.GAUGE, "Always 1; the label says which release runs.", ("version",))

OBSERVED = (PROCESS_UP, PROCESS_MEMORY, PROCESS_CPU, PAGES_UNREADABLE, SERIES_LOST, BUILD)

BY_NAME = {metric.name: metric for metric in (*STORED, *OBSERVED)}
