"""The reader's side of a stream: order, the end, errors after what came before them, deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core import errors
from headrace.core.tensors import DType, Tensor
from headrace.pipeline.chunk_queue import ChunkQueue


def chunk(number: int) -> list[Tensor]:
    return [Tensor("n", DType.INT64, np.array([number]))]


def run(test: Callable[[ChunkQueue], Awaitable[None]]) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(20.0):
            await test(ChunkQueue())

    asyncio.run(scenario())


@given(st.lists(st.booleans(), max_size=30), st.booleans())
def test_every_chunk_is_read_in_order_before_the_end(comes_next: list[bool], fails: bool) -> None:
    """Whether a chunk comes before its reader asks or while it waits."""

    async def test(queue: ChunkQueue) -> None:
        loop = asyncio.get_running_loop()
        for number, waits in enumerate(comes_next):
            if waits:
                loop.call_soon(queue.chunk, chunk(number))
            else:
                queue.chunk(chunk(number))
            found = await queue.get(None)
            assert found is not None
            assert (found[0].array.item(), queue.taken) == (number, number + 1)
        loop.call_soon(queue.ended, errors.ModelRaised("no") if fails else None, 0.5)
        if fails:
            with pytest.raises(errors.ModelRaised):
                await queue.get(None)
        else:
            assert await queue.get(None) is None
        assert (queue.taken, queue.compute) == (len(comes_next), 0.5)

    run(test)


def test_what_came_before_an_error_is_read_first() -> None:
    async def test(queue: ChunkQueue) -> None:
        queue.chunk(chunk(0))
        queue.ended(errors.ReplicaDied("no"), 0.0)
        assert await queue.get(None) is not None
        with pytest.raises(errors.ReplicaDied):
            await queue.get(None)

    run(test)


def test_a_deadline_ends_the_wait_and_not_the_stream() -> None:
    async def test(queue: ChunkQueue) -> None:
        with pytest.raises(errors.DeadlineExceeded, match="before the model gave its next chunk"):
            await queue.get(monotonic() - 1.0)
        queue.chunk(chunk(0))
        assert await queue.get(monotonic() - 1.0) is not None, "what is there needs no time"

    run(test)


def test_the_end_of_a_cancelled_stream_drops_what_still_comes() -> None:
    async def test(queue: ChunkQueue) -> None:
        queue.chunk(chunk(0))
        ending = asyncio.create_task(queue.end())
        await asyncio.sleep(0)
        queue.chunk(chunk(1))
        queue.ended(errors.Cancelled(), 0.0)
        await ending
        assert queue.taken == 0
        assert queue.is_over

    run(test)
