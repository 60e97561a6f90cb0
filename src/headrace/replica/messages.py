"""Frames between gateways and workers: kinds, heads and their packing. Version 1 of the protocol.

A frame is ``length u32 | kind u8 | flags u8 | replica u16 | head size u32 | head (msgpack) | padding | payload``,
little-endian, ``length`` counting what follows it; padding brings the payload to a multiple of 16 bytes from the
start, so that tensors are views with aligned memory. Heads are msgspec structs; the payload holds raw tensor bytes in
the order of the head's ``tensors``. Data frames (RUN, RESULT) and control frames (CANCEL, CREDIT, PING) travel on
separate connections so that a busy model never delays control. This module does no I/O.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.core.models import LoadedModel
from headrace.core.padding import Padding
from headrace.core.requests import Parameter

PROTOCOL = 1
MAX_FRAME = 1 << 31
MAX_PAYLOAD = MAX_FRAME - (1 << 20)
"""Tensor bytes of one frame; the rest is room for the head."""

HEADER = struct.Struct("<IBBHI")
_AFTER_LENGTH = HEADER.size - 4

HELLO, WELCOME, RUN, RESULT, CHUNK, END, CANCEL, CREDIT, PING, PONG, WITHDRAW = range(1, 12)
"""Kinds of frames on the connections of gateways."""

LOADING, WARMING, READY, LOAD_FAILED = range(32, 36)
"""Kinds of frames between a worker and its supervisor."""

SOLO = 1
"""Flag of RUN: compute these calls apart from all others (a suspect after a death)."""
STREAM = 2
"""Flag of RUN: one call, answered by CHUNK frames and END."""


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """First frame of a gateway. ``connection`` names it in the status page."""

    protocol: int
    role: str
    """``data`` or ``control``."""
    connection: int
    token: str


class Welcome(msgspec.Struct, frozen=True, array_like=True):
    protocol: int
    pid: int
    error: str = ""


class TensorHead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


class Ragged(msgspec.Struct, frozen=True, array_like=True):
    """The calls of a batch have sizes of their own (``replica/ragged.py``): those of ``padding.dims``, call by call."""

    padding: Padding
    sizes: list[tuple[int, ...]]


class RunHead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A batch of calls with equal keys. Tensors are joined along dimension 0 in the order of ``rows``; for a
    model without rows there is exactly one call.

    limit       rows up to which the worker may join this batch with waiting batches of other gateways
    idempotent  a failing batch may be re-run call by call
    credit      chunks the gateway takes before it must grant more (streams)
    ragged      None: the calls have equal inner shapes
    """

    batch: int
    rows: list[int]
    tensors: list[TensorHead]
    parameters: dict[str, Parameter]
    limit: int
    idempotent: bool
    credit: int = 0
    ragged: Ragged | None = None


class CallFailure(msgspec.Struct, frozen=True, array_like=True):
    """One call of a batch failed: ``index`` into ``RunHead.rows``."""

    index: int
    code: str
    message: str


class ResultHead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Outputs of a batch: rows of the calls that did not fail, in order. Times in nanoseconds.

    wait      frame read → model call began        compute     the model call, whole joined batch
    batch_rows  rows of the joined batch            busy        everything the worker did for the joined batch
    """

    batch: int
    tensors: list[TensorHead]
    failures: list[CallFailure]
    wait: int
    compute: int
    batch_rows: int
    busy: int


class ChunkHead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    batch: int
    tensors: list[TensorHead]


class EndHead(msgspec.Struct, frozen=True, array_like=True):
    """The stream is over; ``code`` is empty when it ended well. ``compute`` in nanoseconds."""

    batch: int
    code: str
    message: str
    compute: int


class CancelHead(msgspec.Struct, frozen=True, array_like=True):
    batch: int


class WithdrawHead(msgspec.Struct, frozen=True, array_like=True):
    """Nobody waits for these calls (indices into ``RunHead.rows``) any more. When the batch has not begun yet, they are
    not computed and count as failed; its RESULT comes in any case."""

    batch: int
    calls: list[int]


class CreditHead(msgspec.Struct, frozen=True, array_like=True):
    """The gateway takes ``chunks`` more chunks of a stream."""

    batch: int
    chunks: int


class Empty(msgspec.Struct, frozen=True, array_like=True):
    """Head of frames that say everything by their kind."""


class WarmupTiming(msgspec.Struct, frozen=True, array_like=True):
    """One warm-up call: ``rows`` took ``seconds``."""

    rows: int
    seconds: float


class ReadyHead(msgspec.Struct, frozen=True, array_like=True):
    """A replica loaded (``replica`` of the frame header tells which)."""

    model: LoadedModel
    timings: list[WarmupTiming]


class LoadFailedHead(msgspec.Struct, frozen=True, array_like=True):
    code: str
    message: str
    trace: str


_encode = msgspec.msgpack.Encoder().encode
_PADDING = [bytes(n) for n in range(16)]

decode_hello = msgspec.msgpack.Decoder(Hello).decode
decode_welcome = msgspec.msgpack.Decoder(Welcome).decode
decode_run = msgspec.msgpack.Decoder(RunHead).decode
decode_result = msgspec.msgpack.Decoder(ResultHead).decode
decode_chunk = msgspec.msgpack.Decoder(ChunkHead).decode
decode_end = msgspec.msgpack.Decoder(EndHead).decode
decode_cancel = msgspec.msgpack.Decoder(CancelHead).decode
decode_withdraw = msgspec.msgpack.Decoder(WithdrawHead).decode
decode_credit = msgspec.msgpack.Decoder(CreditHead).decode
decode_ready = msgspec.msgpack.Decoder(ReadyHead).decode
decode_load_failed = msgspec.msgpack.Decoder(LoadFailedHead).decode


def frame(kind: int, head: msgspec.Struct, payload_size: int = 0, *, flags: int = 0, replica: int = 0) -> bytes:
    """Header and head of a frame; the caller sends ``payload_size`` payload bytes behind it."""
    packed = _encode(head)
    size = len(packed)
    padding = -(HEADER.size + size) & 15
    length = _AFTER_LENGTH + size + padding + payload_size
    return HEADER.pack(length, kind, flags, replica, size) + packed + _PADDING[padding]


class Frame(msgspec.Struct, gc=False):
    """A received frame; ``head`` and ``payload`` are views on one buffer that the frame owns."""

    kind: int
    flags: int
    replica: int
    head: Any
    payload: Any
    received: int = 0
    """Monotonic nanoseconds, set by readers that need it."""
    unread: int = 0
    """Bytes of a frame that there was no memory for: its payload is empty. 0: the frame is whole."""


class BadFrame(Exception):
    """The peer does not speak this protocol; the connection must be closed."""


def parse(buffer: memoryview) -> Frame:
    """A frame from exactly one frame's bytes, length field included."""
    _, kind, flags, replica, head_size = HEADER.unpack_from(buffer)
    head_end = HEADER.size + head_size
    payload = (head_end + 15) & ~15
    if payload > len(buffer):
        raise BadFrame(f"head of {head_size} bytes in a frame of {len(buffer)}")
    return Frame(kind, flags, replica, buffer[HEADER.size : head_end], buffer[payload:])


def parse_head(buffer: memoryview, length: int) -> Frame:
    """The head of a frame of ``length`` bytes, from its first bytes, when nobody has kept its payload."""
    _, kind, flags, replica, head_size = HEADER.unpack_from(buffer)
    head_end = HEADER.size + head_size
    if head_end > len(buffer):
        raise BadFrame(f"head of {head_size} bytes in a frame of {length}")
    return Frame(kind, flags, replica, buffer[HEADER.size : head_end], b"", unread=length)


def frame_length(buffer: bytes | bytearray | memoryview, at: int = 0) -> int:
    """Whole length of the frame that starts at ``at`` (at least 4 bytes must be there)."""
    length = int.from_bytes(buffer[at : at + 4], "little")
    if not _AFTER_LENGTH <= length <= MAX_FRAME:
        raise BadFrame(f"frame length {length} is out of range")
    return length + 4


def total_bytes(tensors: Sequence[TensorHead]) -> int:
    return sum(t.nbytes for t in tensors)
