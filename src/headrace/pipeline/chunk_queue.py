"""The reader's side of one stream: chunks as a replica sends them, held until they are taken."""

from __future__ import annotations

import asyncio
import collections
from time import monotonic

from headrace.core import errors
from headrace.core.errors import HeadraceError
from headrace.core.tensors import Tensor
from headrace.pipeline.deployment import STREAM_CREDIT

GRANT_EVERY = STREAM_CREDIT // 2
"""After so many chunks that were taken the replica is allowed so many more: it sends on while they travel."""


class ChunkQueue:
    """The sink of one stream. Holds at most the credit's chunks, because the replica sends no more."""

    def __init__(self) -> None:
        self._chunks: collections.deque[list[Tensor]] = collections.deque()
        self._waiter: asyncio.Future[None] | None = None
        self.taken = 0
        """Chunks that the reader has got."""
        self.is_over = False
        self.error: HeadraceError | None = None
        self.compute = 0.0

    def chunk(self, outputs: list[Tensor]) -> None:
        self._chunks.append(outputs)
        self._wake()

    def ended(self, error: HeadraceError | None, compute: float) -> None:
        self.is_over, self.error, self.compute = True, error, compute
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self, deadline: float | None) -> list[Tensor] | None:
        """The next chunk, None at the end; ``deadline`` in monotonic seconds. Raises the stream's error, or
        DeadlineExceeded."""
        while not self._chunks:
            if self.is_over:
                if self.error is not None:
                    raise self.error
                return None
            try:
                await self._change(deadline)
            except TimeoutError:
                raise errors.DeadlineExceeded("the deadline passed before the model gave its next chunk") from None
        self.taken += 1
        return self._chunks.popleft()

    async def end(self) -> None:
        """Wait for the end of a stream that was cancelled, however it ends; what comes meanwhile is dropped."""
        while not self.is_over:
            self._chunks.clear()
            await self._change(None)

    async def _change(self, deadline: float | None) -> None:
        """Wait until something has come. Raises TimeoutError."""
        self._waiter = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(None if deadline is None else max(deadline - monotonic(), 0.0)):
            await self._waiter
