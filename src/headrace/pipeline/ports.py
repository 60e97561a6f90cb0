"""What the pipeline needs from outside, as small protocols; adapters do not import them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from headrace.core.calls import Batch, Call, ChunkSink
from headrace.core.errors import HeadraceError
from headrace.core.fallbacks import FallbackKind
from headrace.core.models import Signature
from headrace.core.requests import InferenceRequest, InferenceResponse, RequestRecord
from headrace.core.routes import DeploymentRoute
from headrace.core.shadows import Mirrored, ShadowLoad
from headrace.telemetry.metrics import Refusal


class Replica(Protocol):
    """A connected replica. All calls on the event loop; ``submit`` never blocks."""

    id: str
    alive: bool
    draining: bool

    @property
    def batches(self) -> dict[int, Batch]: ...

    @property
    def outstanding(self) -> int: ...

    def computing(self) -> tuple[float, int] | None:
        """Since when (monotonic seconds) a batch is being computed, whoever sent it, and its rows; None: none, or not
        known."""
        ...

    def submit(
        self, calls: Sequence[Call], now: float, limit: int, *, idempotent: bool, solo: bool = False
    ) -> Batch: ...

    def start_stream(self, call: Call, sink: ChunkSink, credit: int, *, idempotent: bool) -> int: ...

    def grant(self, number: int, chunks: int) -> None: ...

    def cancel(self, number: int) -> None: ...

    def withdraw(self, number: int, calls: list[int]) -> None:
        """Nobody waits for these calls (indices) of a batch any more; they need not be computed. It is answered."""
        ...

    def fail_all(self, error: HeadraceError) -> None:
        """End every call and stream that it computes or holds; what it still answers is dropped."""
        ...

    def close(self) -> None: ...


class Recorder(Protocol):
    """Takes what happened; never blocks, never raises."""

    def record(self, record: RequestRecord) -> None:
        """One finished request."""
        ...

    def refused(self, model: str, version: str, reason: Refusal) -> None: ...

    def retried(self, model: str, version: str, count: int) -> None: ...

    def fell_back(self, model: str, version: str, kind: FallbackKind) -> None:
        """A fallback answered a request of this deployment."""
        ...

    def mirrored(self, model: str, version: str, outcome: Mirrored) -> None:
        """What became of a request for this shadow."""
        ...

    def compared(self, model: str, version: str, live_s: float, shadow_s: float, seen: ShadowLoad) -> None:
        """An answer of this shadow was compared; seconds that the batches of both took."""
        ...


class Codec(Protocol):
    """A wire format as the chain uses it; ``rendering`` and replies are the codec's own."""

    def parse_request(self, body: Any, json_size: int | None, signature: Signature) -> tuple[InferenceRequest, Any]: ...

    def render_response(self, response: InferenceResponse, rendering: Any, signature: Signature) -> Any: ...


Clock = Callable[[], float]
"""Monotonic seconds."""
CallSoon = Callable[[Callable[[], None]], object]
CallLater = Callable[[float, Callable[[], None]], object]
MakeFuture = Callable[[], "asyncio.Future[None]"]
Note = Callable[[str, DeploymentRoute, bool, bool], None]
"""Writes an answered request down: its id, the deployment that was chosen for it, whether the request named that
deployment itself, and whether a fallback answered. Never blocks for long, never raises."""
