"""Fakes that stand in for time, the event loop, replicas and recorders in tests of the data plane.

``FakeReplica`` keeps the contract of ``pipeline/ports.py``: it holds what it was given until the test says ``answer``,
``die``, ``chunk`` or ``end``. ``ComputingReplica`` answers by itself, on an event loop, with a function of the test's.
Both check what a worker would check, so that a broken pipeline fails loudly.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from headrace.core import errors
from headrace.core.binding import Bound
from headrace.core.calls import Batch, Call, ChunkSink
from headrace.core.endpoints import AdmissionSettings, BatchingSettings
from headrace.core.fallbacks import FallbackKind
from headrace.core.models import Signature, Slots, TensorSpec
from headrace.core.replicas import ReplicaState
from headrace.core.requests import RequestRecord
from headrace.core.routes import DeploymentRoute, EndpointRoute, ReplicaRoute, RouteTable
from headrace.core.shadows import Mirrored, ShadowLoad
from headrace.core.tensors import DType, Tensor
from headrace.pipeline.deployment import Deployment
from headrace.pipeline.router import Router
from headrace.telemetry.metrics import Refusal

ROWS = Signature(
    inputs=(TensorSpec("x", DType.FP32, (-1, 2)),),
    outputs=(TensorSpec("y", DType.FP32, (-1, 2)),),
    parameters=("mode",),
)
"""A batchable model: rows of two numbers in and out, and one parameter that it reads."""


class FakeClock:
    """Seconds that pass when the test says so."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakeLoop:
    """``call_soon`` and ``call_later`` of an event loop, run by hand."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._ready: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._ready.append(callback)

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (self._clock() + delay, next(self._order), callback))

    def run(self) -> None:
        """Everything that is due now, and what that makes due."""
        while self._ready or (self._timers and self._timers[0][0] <= self._clock()):
            while self._timers and self._timers[0][0] <= self._clock():
                self._ready.append(heapq.heappop(self._timers)[2])
            self._ready.popleft()()


class FakeWaiter:
    """Counts how often it was resolved."""

    def __init__(self) -> None:
        self.resolved = 0
        self.cancelled = False

    def done(self) -> bool:
        return self.cancelled or self.resolved > 0

    def set_result(self, result: None, /) -> None:
        assert not self.done(), "a waiter was resolved twice"
        self.resolved += 1

    def cancel(self) -> None:
        """What cancelling the task that awaits a future does to it."""
        if not self.resolved:
            self.cancelled = True


class FakeRecorder:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.records: list[RequestRecord] = []
        self.refusals: list[tuple[str, str, Refusal]] = []
        self.retries = 0
        self.fallbacks: list[tuple[str, FallbackKind]] = []
        self.shadows: list[tuple[str, Mirrored]] = []
        self.compared_seconds: list[tuple[float, float]] = []

    def record(self, record: RequestRecord) -> None:
        self.records.append(record)

    def refused(self, model: str, version: str, reason: Refusal) -> None:
        self.refusals.append((model, version, reason))

    def retried(self, model: str, version: str, count: int) -> None:
        self.retries += count

    def fell_back(self, model: str, version: str, kind: FallbackKind) -> None:
        self.fallbacks.append((version, kind))

    def mirrored(self, model: str, version: str, outcome: Mirrored) -> None:
        self.shadows.append((version, outcome))

    def compared(self, model: str, version: str, live_s: float, shadow_s: float, seen: ShadowLoad) -> None:
        self.compared_seconds.append((live_s, shadow_s))


class FakeReplica:
    """A connected replica that computes nothing by itself.

    ``sent`` holds every batch ever sent: (calls, limit, idempotent, solo)."""

    def __init__(self, deployment: Deployment, id: str = "r#1") -> None:
        self.id = id
        self.alive = True
        self.draining = False
        self.batches: dict[int, Batch] = {}
        self.streams: dict[int, ChunkSink] = {}
        self.sent: list[tuple[list[Call], int, bool, bool]] = []
        self.granted: list[tuple[int, int]] = []
        self.cancelled: list[int] = []
        self.withdrawn: dict[int, list[int]] = {}
        self.closed = False
        self.shared: tuple[float, int] | None = None
        """What ``computing`` tells: (since, rows)."""
        self.fail_next_submit: Exception | None = None
        self._deployment = deployment
        self._numbers = itertools.count(1)

    @property
    def outstanding(self) -> int:
        return len(self.batches) + len(self.streams)

    @property
    def rows_in_flight(self) -> int:
        return sum(batch.rows for batch in self.batches.values())

    def computing(self) -> tuple[float, int] | None:
        return self.shared

    def withdraw(self, number: int, calls: list[int]) -> None:
        assert number in self.batches, "calls of a batch that is not in flight were withdrawn"
        self.withdrawn[number] = calls

    def submit(self, calls: Sequence[Call], now: float, limit: int, *, idempotent: bool, solo: bool = False) -> Batch:
        assert self.alive, "a batch was sent to a dead replica"
        assert calls, "an empty batch was sent"
        if self.fail_next_submit is not None:
            error, self.fail_next_submit = self.fail_next_submit, None
            raise error
        for call in calls:
            assert not call.waiter.done(), "a call that has ended was sent to a replica"
            assert call.bound.key == calls[0].bound.key, "calls of different keys share a batch"
        batch = Batch(next(self._numbers), calls, sum(c.rows for c in calls), now)
        self.batches[batch.id] = batch
        self.sent.append((list(calls), limit, idempotent, solo))
        for call in calls:
            call.sent = now
            call.replica = self.id
        return batch

    def start_stream(self, call: Call, sink: ChunkSink, credit: int, *, idempotent: bool) -> int:
        assert self.alive, "a stream was sent to a dead replica"
        number = next(self._numbers)
        self.streams[number] = sink
        call.replica = self.id
        return number

    def grant(self, number: int, chunks: int) -> None:
        self.granted.append((number, chunks))

    def cancel(self, number: int) -> None:
        self.cancelled.append(number)

    def fail_all(self, error: errors.HeadraceError) -> None:
        batches, self.batches = list(self.batches.values()), {}
        sinks, self.streams = list(self.streams.values()), {}
        for call in (call for batch in batches for call in batch.calls):
            call.fail(error)
        for sink in sinks:
            sink.ended(error, 0.0)

    def close(self) -> None:
        self.alive = False
        self.closed = True

    # --- what the test makes it do ---

    def oldest(self) -> Batch:
        return next(iter(self.batches.values()))

    def answer(
        self, batch: Batch | None = None, *, busy: float = 0.001, error: errors.HeadraceError | None = None
    ) -> None:
        """Finish a batch (the oldest by default): outputs are the inputs, or all calls fail with ``error``."""
        batch = self.oldest() if batch is None else batch
        del self.batches[batch.id]
        for call in batch.calls:
            call.batch_rows = batch.rows
            if error is None:
                call.outputs = [Tensor("y", DType.FP32, a) for a in call.bound.arrays]
            else:
                call.error = error
        self._deployment.finished(self, batch, busy, batch.rows)

    def die(self, computing: int = 1) -> None:
        """The process is gone; the first ``computing`` batches were being computed, the others only waited."""
        self.alive = False
        batches, self.batches = list(self.batches.values()), {}
        sinks, self.streams = list(self.streams.values()), {}
        for sink in sinks:
            sink.ended(errors.ReplicaDied(), 0.0)
        self._deployment.died(self, batches[:computing], batches[computing:])

    def chunk(self, number: int, *outputs: Tensor) -> None:
        self.streams[number].chunk(list(outputs))

    def end(self, number: int, error: errors.HeadraceError | None = None) -> None:
        self.streams.pop(number).ended(error, 0.0)
        self._deployment.stream_ended()


Compute = Callable[[list[Any]], list[Tensor]]


async def until(condition: Callable[[], object], seconds: float = 20.0, pause: float = 0.0) -> None:
    """Let the loop run until something has become true."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what the code under test does has no event of its own
            await asyncio.sleep(pause)


class ComputingReplica(FakeReplica):
    """Answers by itself: each call of a batch with ``compute(arrays)``; what that raises is the call's error.

    A stream call is answered with ``chunks(arrays)``, one item at a time, within the credit it was given."""

    def __init__(
        self,
        deployment: Deployment,
        compute: Compute,
        *,
        chunks: Callable[[list[Any]], Any] | None = None,
        id: str = "r#1",
    ) -> None:
        super().__init__(deployment, id)
        self._compute = compute
        self._chunks = chunks
        self._credit: dict[int, int] = {}
        self._wake: dict[int, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.paused = False
        self.produced = 0

    def submit(self, calls: Sequence[Call], now: float, limit: int, *, idempotent: bool, solo: bool = False) -> Batch:
        batch = super().submit(calls, now, limit, idempotent=idempotent, solo=solo)
        if not self.paused:
            asyncio.get_running_loop().call_soon(self.compute, batch)
        return batch

    def compute(self, batch: Batch) -> None:
        """Answer one batch now."""
        if batch.id not in self.batches:
            return
        del self.batches[batch.id]
        for call in batch.calls:
            call.batch_rows = batch.rows
            try:
                call.outputs = self._compute(call.bound.arrays)
            except errors.HeadraceError as error:
                call.error = error
        self._deployment.finished(self, batch, 0.0001, batch.rows)

    def resume(self) -> None:
        """Answer what was held back and stop holding back."""
        self.paused = False
        for batch in list(self.batches.values()):
            self.compute(batch)

    def start_stream(self, call: Call, sink: ChunkSink, credit: int, *, idempotent: bool) -> int:
        number = super().start_stream(call, sink, credit, idempotent=idempotent)
        self._credit[number], self._wake[number] = credit, asyncio.Event()
        task = asyncio.create_task(self._produce(number, call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return number

    async def _produce(self, number: int, call: Call) -> None:
        assert self._chunks is not None
        error: errors.HeadraceError | None = None
        try:
            for outputs in self._chunks(call.bound.arrays):
                while self._credit[number] <= 0 and number not in self.cancelled:
                    self._wake[number].clear()
                    await self._wake[number].wait()
                if number in self.cancelled:
                    raise errors.Cancelled()
                self._credit[number] -= 1
                self.produced += 1
                self.chunk(number, *outputs)
                await asyncio.sleep(0)
        except errors.HeadraceError as raised:
            error = raised
        if number in self.streams:
            self.end(number, error)

    def grant(self, number: int, chunks: int) -> None:
        super().grant(number, chunks)
        self._credit[number] += chunks
        self._wake[number].set()

    def cancel(self, number: int) -> None:
        super().cancel(number)
        self._wake[number].set()


# --- values ---


def deployment_route(**changes: Any) -> DeploymentRoute:
    """A ready deployment ``m@1`` with the default settings, and ``changes``."""
    fields: dict[str, Any] = {
        "id": "m@1",
        "version": "1",
        "platform": "fake",
        "signature": ROWS,
        "slots": Slots(),
        "batching": BatchingSettings(),
        "admission": AdmissionSettings(),
        "idempotent": True,
        "timeout_s": 60.0,
        "replica_timeout_s": 60.0,
        "stream_stall_s": 30.0,
        "replicas": (replica_route(),),
    }
    return DeploymentRoute(**{**fields, **changes})


def replica_route(id: str = "m@1#1", state: ReplicaState = ReplicaState.READY) -> ReplicaRoute:
    return ReplicaRoute(id, "unix:/nowhere", 0, state, "token")


def route_table(
    version: int = 1, epoch: int = 1, gateways: int = 1, **endpoints: Sequence[DeploymentRoute]
) -> RouteTable:
    """A table with these endpoints; the first deployment of each gets its traffic."""
    return RouteTable(
        version,
        epoch,
        tuple(EndpointRoute(name, tuple(routes), {routes[0].id: 1.0}) for name, routes in endpoints.items()),
        gateways,
    )


def bound(rows: int = 1, *, mode: str = "", width: int = 2, nbytes: int | None = None) -> Bound:
    """What ``binding.bind`` makes of a request with these rows; ``mode`` and ``width`` keep batches apart."""
    array = np.arange(rows * width, dtype=np.float32).reshape(rows, width)
    return Bound(("x",), ("FP32",), [array], rows, array.nbytes if nbytes is None else nbytes, (width, mode), {})


class World:
    """A deployment with fake time, loop and recorder around it."""

    def __init__(self, *, gateways: int = 1, **route: Any) -> None:
        self.clock = FakeClock()
        self.loop = FakeLoop(self.clock)
        self.recorder = FakeRecorder()
        self.make_future: Callable[[], asyncio.Future[None]] = asyncio.Future
        self.deployment = self.make("m", deployment_route(**route), gateways)
        self._ids = itertools.count(1)

    def make(self, endpoint: str, route: DeploymentRoute, gateways: int) -> Deployment:
        return Deployment(
            endpoint,
            route,
            gateways,
            clock=self.clock,
            call_soon=self.loop.call_soon,
            call_later=self.loop.call_later,
            make_future=self.make_future,
            recorder=self.recorder,
        )

    def router(self) -> Router:
        return Router(self.make, draw=lambda: 0.0)

    def replica(self) -> FakeReplica:
        """One more replica, connected."""
        replica = FakeReplica(self.deployment, f"r#{next(self._ids)}")
        self.deployment.add_replica(replica)
        return replica

    def call(self, rows: int = 1, *, timeout: float = 60.0, mode: str = "", sink: ChunkSink | None = None) -> Call:
        """A call in the queue. ``run`` lets the scheduled flush happen."""
        now = self.clock()
        call = Call(bound(rows, mode=mode), now + timeout, now, FakeWaiter(), sink)
        self.deployment.enqueue(call)
        return call

    def run(self, seconds: float = 0.0) -> None:
        """Let time pass and callbacks run; then the coarse timer."""
        self.clock.now += seconds
        self.loop.run()
        if seconds:
            self.deployment.sweep(self.clock())
            self.loop.run()
