"""Large JSON is decoded and encoded in a process of its own, so that it does not delay small requests.

One codec process per gateway, started when first needed; requests to it are answered in order. When it dies (a body
may be what kills it) the requests in it are tried once more in a new one, then fail with a typed error.
"""

from __future__ import annotations

import asyncio
import collections
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import msgspec
import numpy as np

from headrace.core import errors
from headrace.core.models import Signature
from headrace.core.requests import InferenceRequest, InferenceResponse
from headrace.core.tensors import Tensor
from headrace.protocols.protocol import Rendering, Reply
from headrace.replica import messages, tensors_on_wire


class ParseJob(msgspec.Struct, tag="parse", array_like=True):
    """Followed by the body. The signature is packed by itself, so that the codec process can keep what it knows."""

    codec: str
    json_size: int | None
    signature: bytes


class RenderJob(msgspec.Struct, tag="render", array_like=True):
    """Followed by the tensors' payload."""

    codec: str
    model_name: str
    model_version: str
    id: str | None
    tensors: list[messages.TensorHead]
    rendering: Rendering
    signature: bytes


class Parsed(msgspec.Struct, tag="parsed", array_like=True):
    """Followed by the tensors' payload."""

    tensors: list[messages.TensorHead]
    id: str | None
    parameters: dict[str, str | int | float | bool]
    outputs: tuple[str, ...] | None
    rendering: Rendering


class Rendered(msgspec.Struct, tag="rendered", array_like=True):
    """Followed by the body."""

    status: int
    headers: list[tuple[bytes, bytes]]


class Failed(msgspec.Struct, tag="failed", array_like=True):
    code: str
    message: str


Buffer = bytes | bytearray | memoryview
Job = ParseJob | RenderJob
Answer = Parsed | Rendered | Failed

MAX_MESSAGE = 1 << 31
_TURN = 128 << 10
"""Bytes that are written in one turn of the event loop."""
"""A body or an answer, and what is said about it."""

_encode = msgspec.msgpack.Encoder().encode
_decode_answer = msgspec.msgpack.Decoder(Answer).decode


def envelope(head: msgspec.Struct, *payload: Buffer) -> list[memoryview]:
    """A head and what follows it as the parts of one envelope (``core/envelope.py``); large parts are not copied."""
    packed = _encode(head)
    views = [memoryview(part).cast("B") for part in payload]
    size = 4 + len(packed) + sum(map(len, views))
    if size > MAX_MESSAGE:
        raise errors.PayloadTooLarge(f"{size} bytes of tensors are too many to be encoded or decoded as JSON")
    return [memoryview(size.to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed), *views]


def cut(message: bytes | memoryview) -> tuple[memoryview, memoryview]:
    """The packed head and the payload of an envelope's message."""
    size = int.from_bytes(message[:4], "little")
    view = memoryview(message)
    return view[4 : 4 + size], view[4 + size :]


class Offload:
    """The gateway's end. Everything runs on the event loop; at most one process lives."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._link: _Link | None = None
        self._starting = asyncio.Lock()
        self._second_tries = asyncio.Lock()

    async def parse(
        self, codec: str, body: Sequence[Buffer], json_size: int | None, signature: Signature
    ) -> tuple[InferenceRequest, Rendering]:
        """``codec.parse_request`` in the codec process, of a body in pieces; raises what it raises."""
        answer, payload = await self._ask(envelope(ParseJob(codec, json_size, _encode(signature)), *body))
        if not isinstance(answer, Parsed):
            raise errors.Bug(f"the codec process answered {type(answer).__name__} to a parse job")
        tensors = tensors_on_wire.unpack_tensors(answer.tensors, payload)
        return InferenceRequest(tensors, answer.id, answer.parameters, answer.outputs), answer.rendering

    async def render(
        self, codec: str, response: InferenceResponse, rendering: Rendering, signature: Signature
    ) -> Reply:
        """``codec.render_response`` in the codec process; raises what it raises."""
        heads, parts = pack(response.outputs)
        job = RenderJob(
            codec, response.model_name, response.model_version, response.id, heads, rendering, _encode(signature)
        )
        answer, payload = await self._ask(envelope(job, *parts))
        if not isinstance(answer, Rendered):
            raise errors.Bug(f"the codec process answered {type(answer).__name__} to a render job")
        return Reply(answer.status, answer.headers, bytes(payload))

    async def _ask(self, job: list[memoryview]) -> tuple[Answer, memoryview]:
        try:
            answered = await (await self._living()).ask(job)
        except _Died:
            # Perhaps on another body: each is tried once more, one by one, so that a deadly one goes alone.
            async with self._second_tries:
                try:
                    answered = await (await self._living()).ask(job)
                except _Died:
                    raise errors.RuntimeFailed("the process that decodes large bodies died twice on this one") from None
        head, payload = cut(answered)
        answer = _decode_answer(head)
        if isinstance(answer, Failed):
            raise errors.from_code(answer.code, answer.message)
        return answer, payload

    async def _living(self) -> _Link:
        async with self._starting:
            link = self._link
            return await self._start() if link is None or link.closed else link

    async def _start(self) -> _Link:
        self.close()
        mine, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - a few ms, once; its pipe is a socket pair
                [sys.executable, "-m", "headrace.gateway.codec_process", str(theirs.fileno())],
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


def pack(tensors: list[Tensor]) -> tuple[list[messages.TensorHead], list[bytes | memoryview]]:
    """Tensors as heads and payload parts."""
    return tensors_on_wire.pack_all((t.name, t.dtype, [t.array]) for t in tensors)


class _Waiting(NamedTuple):
    job: list[memoryview]
    answer: asyncio.Future[memoryview]


def _small(parts: list[memoryview]) -> Iterator[memoryview]:
    for part in parts:
        for at in range(0, len(part), _TURN):
            yield part[at : at + _TURN]


class _Died(Exception):
    """The codec process ended before it answered."""


class _Link(asyncio.BufferedProtocol):
    """One job at a time is sent: those that wait here can still be given up, and are in memory once.

    Megabytes go out and come in by parts, each in a turn of the event loop of its own, and without a copy of the whole:
    answers are received into their final buffer."""

    def __init__(self) -> None:
        self.closed = False
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
            raise _Died
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
                future.set_exception(_Died())
        self._waiting.clear()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
