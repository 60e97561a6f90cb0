"""One replica that is asked golden requests: a call of the model, or a stream, and what can happen to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from time import monotonic
from typing import TypeVar

from headrace.core.binding import Bound
from headrace.core.calls import Batch, Call
from headrace.core.errors import ReplicaDied
from headrace.core.routes import ReplicaRoute
from headrace.core.tensors import Tensor
from headrace.pipeline.chunk_queue import GRANT_EVERY, ChunkQueue
from headrace.pipeline.deployment import STREAM_CREDIT
from headrace.replica.handle import ReplicaHandle
from headrace.replica.messages import ResultHead

T = TypeVar("T")


class ReplicaLostError(Exception):
    """The replica died while a call was with it. ``computing``: it may have been the cause."""

    def __init__(self, computing: bool) -> None:
        self.computing = computing


class NoAnswerError(Exception):
    """No answer in time. ``in_total``: it was the time for all requests that was over."""

    def __init__(self, in_total: bool) -> None:
        self.in_total = in_total


class GoldenReplica:
    """The replica behind ``route``, which has no traffic. Calls may run beside each other; ``ends``, in monotonic
    seconds, is when the time for all of them is over."""

    def __init__(self, route: ReplicaRoute, ends: float, *, idempotent: bool) -> None:
        self._handle = ReplicaHandle(route, self)
        self._ends = ends
        self._idempotent = idempotent
        self._computing: set[Call] = set()
        """Calls that it computed when it died."""

    @property
    def id(self) -> str:
        return self._handle.id

    @property
    def alive(self) -> bool:
        return self._handle.alive

    async def connect(self, timeout: float) -> None:  # noqa: ASYNC109 - it is the caller's to choose
        """Raises NotReady."""
        await self._handle.connect(timeout)

    def close(self) -> None:
        self._handle.close()

    async def answer(self, bound: Bound, ends: float) -> list[Tensor]:
        """Outputs of one call of the model; ``ends`` in monotonic seconds. Raises its error, NoAnswerError or
        ReplicaLostError."""
        call = self._call(bound, ends)
        batch = self._handle.submit([call], call.enqueued, 1, idempotent=self._idempotent, solo=True)
        try:
            await self._within(call.waiter, ends)  # type: ignore[arg-type]  # the future made below
        except NoAnswerError:
            self._handle.withdraw(batch.id, [0])
            raise
        if call in self._computing:
            raise ReplicaLostError(computing=True)
        if call.error is not None:
            raise call.error
        if call.outputs is None:
            raise ReplicaLostError(computing=False)
        return call.outputs

    async def stream(self, bound: Bound, most: int, patience: float) -> list[list[Tensor]]:
        """Responses of a stream until it ends, ``most`` of them: one that goes on is cancelled then. ``patience``:
        seconds for each. Raises as ``answer`` does."""
        call, queue = self._call(bound, self._ends), ChunkQueue()
        number = self._handle.start_stream(call, queue, STREAM_CREDIT, idempotent=self._idempotent)
        found: list[list[Tensor]] = []
        try:
            while len(found) < most and (outputs := await self._next(queue, patience)) is not None:
                found.append(outputs)
                if queue.taken % GRANT_EVERY == 0:
                    self._handle.grant(number, GRANT_EVERY)
        finally:
            self._handle.cancel(number)
        # The next request would wait for its slot, and would be blamed for it.
        await self._within(queue.end(), monotonic() + patience)
        return found

    async def _next(self, queue: ChunkQueue, patience: float) -> list[Tensor] | None:
        try:
            return await self._within(queue.get(None), monotonic() + patience)
        except ReplicaDied:
            if self._handle.alive:
                raise
            # Between two responses it computes too, as far as can be told.
            raise ReplicaLostError(computing=True) from None

    def _call(self, bound: Bound, ends: float) -> Call:
        if not self._handle.alive:
            raise ReplicaLostError(computing=False)
        return Call(bound, ends, monotonic(), asyncio.get_running_loop().create_future())

    async def _within(self, waiting: Awaitable[T], ends: float) -> T:
        try:
            async with asyncio.timeout(min(ends, self._ends) - monotonic()):
                return await waiting
        except TimeoutError:
            raise NoAnswerError(in_total=ends > self._ends) from None

    # --- Listener of the handle ---

    def finished(self, handle: ReplicaHandle, batch: Batch, head: ResultHead) -> None:
        self._wake(batch)

    def died(self, handle: ReplicaHandle, computing: list[Batch], waiting: list[Batch]) -> None:
        for batch in computing:
            self._computing.update(batch.calls)
        for batch in (*computing, *waiting):
            self._wake(batch)

    def stream_ended(self, handle: ReplicaHandle) -> None:
        """Its reader waits for the end itself."""

    @staticmethod
    def _wake(batch: Batch) -> None:
        for call in batch.calls:
            if not call.waiter.done():
                call.waiter.set_result(None)
