"""A codec process as the gateway sees it: started when first asked, one job at a time, ended with the gateway."""

from __future__ import annotations

import asyncio
import collections
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple, cast

import numpy as np

YIELDING = "--yield"
"""Compute only when nobody else wants a processor."""
_TURN = 128 << 10
"""Bytes that are written in one turn of the event loop."""


class Died(Exception):
    """The codec process ended before it answered."""


class CodecProcess:
    """One process, and the next one after it has died. Everything runs on the event loop."""

    def __init__(self, *flags: str) -> None:
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None
        self._link: _Link | None = None
        self._starting = asyncio.Lock()

    @property
    def warm(self) -> bool:
        """It runs and has answered before."""
        return self._link is not None and self._link.answered and not self._link.closed

    @property
    def pid(self) -> int | None:
        """Of the process that was started last."""
        return None if self._process is None else self._process.pid

    async def ask(self, job: list[memoryview]) -> memoryview:
        """The answer to a job, without its length. Raises Died."""
        return await (await self._living()).ask(job)

    async def _living(self) -> _Link:
        async with self._starting:
            link = self._link
            return await self._start() if link is None or link.closed else link

    async def _start(self) -> _Link:
        self.close()
        mine, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - a few ms, once; its pipe is a socket pair
                [sys.executable, "-m", "headrace.gateway.codec_process", str(theirs.fileno()), *self._flags],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        loop = asyncio.get_running_loop()
        _, self._link = await loop.create_unix_connection(_Link, sock=mine)
        return self._link

    def close(self) -> None:
        """End the process."""
        if self._link is not None:
            self._link.abort()
            self._link = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class _Waiting(NamedTuple):
    job: list[memoryview]
    answer: asyncio.Future[memoryview]


def _small(parts: list[memoryview]) -> Iterator[memoryview]:
    for part in parts:
        for at in range(0, len(part), _TURN):
            yield part[at : at + _TURN]


class _Link(asyncio.BufferedProtocol):
    """One job at a time is sent: those that wait here can still be given up, and are in memory once.

    Megabytes go out and come in by parts, each in a turn of the event loop of its own, and without a copy of the whole:
    answers are received into their final buffer."""

    def __init__(self) -> None:
        self.closed = False
        self.answered = False
        self._prefix = memoryview(bytearray(4))
        self._message: memoryview | None = None
        self._filled = 0
        self._waiting: collections.deque[_Waiting] = collections.deque()
        self._working: asyncio.Future[memoryview] | None = None
        self._unsent: Iterator[memoryview] = iter(())
        self._paused = False
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.set_write_buffer_limits(high=_TURN)

    async def ask(self, job: list[memoryview]) -> memoryview:
        """The answer to a job. When it is cancelled before its turn, the job is never sent."""
        if self.closed:
            raise Died
        future: asyncio.Future[memoryview] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(job, future))
        self._send_next()
        return await future

    def _send_next(self) -> None:
        while self._working is None and self._waiting:
            next_ = self._waiting.popleft()
            if not next_.answer.done():
                self._working = next_.answer
                self._unsent = _small(next_.job)
                self._write()

    def _write(self) -> None:
        assert self._transport is not None
        while not self._paused and (part := next(self._unsent, None)) is not None:
            self._transport.write(part)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._write()

    def get_buffer(self, sizehint: int) -> memoryview:
        return (self._prefix if self._message is None else self._message)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._message is None:
            if self._filled == len(self._prefix):
                # Not a bytearray: to fill one of megabytes with zeros takes a millisecond.
                self._message = np.empty(int.from_bytes(self._prefix, "little"), np.uint8).data
                self._filled = 0
        elif self._filled == len(self._message):
            self.answered = True
            future, self._working = self._working, None
            if future is not None and not future.done():
                future.set_result(self._message)
            self._message = None
            self._filled = 0
            self._send_next()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        for future in (self._working, *(waiting.answer for waiting in self._waiting)):
            if future is not None and not future.done():
                future.set_exception(Died())
        self._waiting.clear()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
