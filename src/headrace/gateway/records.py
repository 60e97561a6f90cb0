"""Where finished requests go: a bounded list that never blocks, emptied in bulk by the coarse timer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headrace.core.errors import HeadraceError
from headrace.core.fallbacks import FallbackKind
from headrace.core.requests import RequestRecord
from headrace.core.shadows import Mirrored, ShadowLoad
from headrace.pipeline import chain
from headrace.pipeline.chain import Exchange
from headrace.telemetry.metrics import Refusal
from headrace.telemetry.recording import RequestRecorder

CAPACITY = 50_000
_BULK = 1024

Observer = Callable[[Sequence[RequestRecord]], None]


class Records:
    """The pipeline's Recorder. Observers (metrics, access log) get records in bulk on the event loop."""

    def __init__(self, recorder: RequestRecorder, observers: Sequence[Observer] = ()) -> None:
        self._recorder = recorder
        self._observers = (recorder.observe, *observers)
        self._ring: list[RequestRecord] = []
        self.cut: HeadraceError | None = None
        """The error that ends what is unanswered when the time to drain is over."""
        self.cut_requests = 0
        """Requests that ended with it."""

    def record(self, record: RequestRecord) -> None:
        """Keep one record until the next flush; full means dropped and counted."""
        ring = self._ring
        if len(ring) < CAPACITY:
            ring.append(record)
        else:
            self._recorder.dropped(1)

    def ended(
        self, exchange: Exchange | None, protocol: str, failure: HeadraceError | None, request_id: str, started: float
    ) -> None:
        """Record a request that has ended; ``exchange`` is None when it failed before it had a deployment."""
        if failure is not None and failure is self.cut:
            self.cut_requests += 1
        if exchange is not None:
            self.record(chain.record(exchange, failure))
            deployment = exchange.deployment
            # Whoever was asked has failed, although somebody else may have answered.
            counter = (exchange.asked or deployment).counter
            if counter is not None:
                chain.count(exchange, counter, failure)
            if deployment.offer is not None and failure is None:
                chain.mirror(exchange)
        elif failure is not None:
            self.record(chain.record_unrouted(protocol, failure, request_id, started))

    def flush(self) -> None:
        """Hand everything to the observers."""
        ring, self._ring = self._ring, []
        for at in range(0, len(ring), _BULK):
            for observe in self._observers:
                observe(ring[at : at + _BULK])

    def refused(self, model: str, version: str, reason: Refusal) -> None:
        self._recorder.refused(model, version, reason)

    def retried(self, model: str, version: str, count: int) -> None:
        self._recorder.retried(model, version, count)

    def fell_back(self, model: str, version: str, kind: FallbackKind) -> None:
        self._recorder.fell_back(model, version, kind)

    def mirrored(self, model: str, version: str, outcome: Mirrored) -> None:
        self._recorder.mirrored(model, version, outcome)

    def compared(self, model: str, version: str, live_s: float, shadow_s: float, seen: ShadowLoad) -> None:
        self._recorder.compared(model, version, live_s, shadow_s, seen)
