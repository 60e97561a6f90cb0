"""Why a request is refused before it waits: pure checks against bounds and the predicted wait."""

from __future__ import annotations

import msgspec

from headrace.core import errors
from headrace.core.endpoints import AdmissionSettings
from headrace.core.models import SlotKind, Slots
from headrace.pipeline.latency import LatencyModel
from headrace.telemetry.metrics import Refusal


class Bounds(msgspec.Struct):
    """What may wait at this gateway for one deployment, derived from settings and measured capacity.

    rows_per_second  measured capacity share of this gateway; 0: not known yet
    """

    rows: int
    bytes: int
    rows_per_second: float


def derive(
    settings: AdmissionSettings, slots: Slots, latency: LatencyModel, batch_limit: int, replicas: int, gateways: int
) -> Bounds:
    """Bounds of one gateway: its share of what all replicas can work off in ``max_queue_time_s``."""
    workers = max(replicas, 1)
    share = max(gateways, 1)
    capacity = 0.0
    if latency.known and replicas:
        per_replica = latency.capacity(batch_limit)
        capacity = per_replica * workers * (slots.count if slots.kind is SlotKind.CONCURRENT else 1) / share
    floor = settings.min_queue_rows * workers / share
    wanted = max(capacity * settings.max_queue_time_s, floor) if capacity else settings.max_queue_rows / share
    rows = max(int(min(wanted, settings.max_queue_rows / share)), 1)
    return Bounds(rows, max(settings.max_queue_bytes // share, 1), capacity)


def check(
    bounds: Bounds,
    queued_rows: int,
    queued_bytes: int,
    rows: int,
    nbytes: int,
    remaining: float,
    service: float,
) -> tuple[Refusal, errors.HeadraceError] | None:
    """None when the request may wait; otherwise why not, for metrics and for the caller.

    remaining  seconds until the request's deadline
    service    predicted seconds of the batch it will be in
    """
    if remaining <= 0:
        return Refusal.PREDICTED_LATE, errors.DeadlineExceeded(
            "the request's deadline had passed before it could be queued"
        )
    wait = queued_rows / bounds.rows_per_second if bounds.rows_per_second else 0.0
    if queued_rows and queued_rows + rows > bounds.rows:
        return Refusal.QUEUE_FULL, errors.Overloaded(
            f"queue full: {queued_rows} rows wait, {bounds.rows} may wait; try again in {_soon(wait):.3g} s",
            retry_after=_soon(wait),
        )
    if queued_bytes and queued_bytes + nbytes > bounds.bytes:
        return Refusal.BYTES, errors.Overloaded(
            f"queue full: {queued_bytes} bytes wait, {bounds.bytes} may wait", retry_after=_soon(wait)
        )
    if wait + service > remaining:
        return Refusal.PREDICTED_LATE, errors.Overloaded(
            f"predicted to take {(wait + service) * 1e3:.0f} ms, the deadline is in {remaining * 1e3:.0f} ms",
            retry_after=_soon(wait),
        )
    return None


def _soon(wait: float) -> float:
    return max(wait, 0.1)


class RetryBudget:
    """Re-runs after deaths are bounded by a share of traffic, so that a dying model cannot double its own load."""

    __slots__ = ("_ceiling", "_share", "tokens")

    def __init__(self, share: float = 0.1, floor: float = 256.0) -> None:
        self._share = share
        self._ceiling = floor * 4
        self.tokens = floor

    def earn(self, requests: int) -> None:
        """Finished requests earn re-runs."""
        self.tokens = min(self.tokens + self._share * requests, self._ceiling)

    def spend(self) -> bool:
        """True when one more re-run is allowed."""
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True
