"""A call: one request (or one piece of a large one) on its way through queue, replica and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headrace.core.binding import Bound
from headrace.core.errors import HeadraceError
from headrace.core.tensors import Tensor


class Waiter(Protocol):
    """Whoever waits for a call; an asyncio future fits."""

    def done(self) -> bool: ...

    def set_result(self, result: None, /) -> None: ...


class ChunkSink(Protocol):
    """Receives a stream from a replica, on the event loop, in order; ``ended`` exactly once, last."""

    @property
    def taken(self) -> int:
        """Chunks that its reader has got."""
        ...

    def chunk(self, outputs: list[Tensor]) -> None: ...

    def ended(self, error: HeadraceError | None, compute: float) -> None: ...


class Call:
    """Mutable on purpose: stages fill it in, and it is recycled by nobody. Times are monotonic seconds.

    Exactly one of ``outputs`` and ``error`` is set when ``waiter`` is resolved. A call with a ``sink`` is a stream: its
    waiter is resolved when a replica has taken it, ``stream`` is then its number there, and outputs go to the sink."""

    __slots__ = (
        "batch_rows",
        "bound",
        "compute",
        "deadline",
        "deaths",
        "enqueued",
        "error",
        "outputs",
        "replica",
        "rows",
        "sent",
        "sink",
        "stream",
        "taken",
        "wait",
        "waiter",
    )

    def __init__(
        self, bound: Bound, deadline: float, enqueued: float, waiter: Waiter, sink: ChunkSink | None = None
    ) -> None:
        self.bound = bound
        self.rows = bound.rows
        self.deadline = deadline
        self.enqueued = enqueued
        self.waiter = waiter
        self.sent = 0.0
        self.compute = 0.0
        self.wait = 0.0
        self.batch_rows: float = 0
        self.deaths = 0
        self.taken = False
        self.sink = sink
        self.stream = 0
        self.replica = ""
        self.outputs: list[Tensor] | None = None
        self.error: HeadraceError | None = None

    def fail(self, error: HeadraceError) -> None:
        """End the call with an error, unless it has ended."""
        if not self.waiter.done():
            self.error = error
            self.waiter.set_result(None)


class Batch:
    """Calls that were sent to a replica together."""

    __slots__ = ("calls", "id", "rows", "sent", "withdrawn")

    def __init__(self, id: int, calls: Sequence[Call], rows: int, sent: float) -> None:
        self.id = id
        self.calls = calls
        self.rows = rows
        self.sent = sent
        self.withdrawn = 0
        """How many of its calls the replica knows to be given up."""
