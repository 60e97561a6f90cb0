"""Large JSON is decoded and encoded in processes of their own, so that it does not delay small requests.

One codec process per gateway, started when first needed, and a second one on a machine that has no time for the first.
When one dies (a body may be what kills it) the requests in it are tried once more, then fail with a typed error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from headrace.core import errors
from headrace.core.models import Signature
from headrace.core.requests import InferenceRequest, InferenceResponse
from headrace.core.tensors import Tensor
from headrace.gateway.codec_link import YIELDING, CodecProcess, Died
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
"""Bytes of a body or an answer, and what is said about it."""
_START_S = 2.0
_PATIENCE_S = 0.25
_PATIENCE_BYTES_S = 50e6
"""An idle machine takes a third of this time for a job."""

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
    """The gateway's end. Everything runs on the event loop; nothing is started before it is needed.

    The first process computes only when nobody else wants a processor: small requests are served meanwhile as if it
    were not there. On a machine that is always busy it would never end; what it has not answered in time the second one
    is asked too, which takes its share, and the first answer counts."""

    def __init__(self) -> None:
        self._yielding = CodecProcess(YIELDING)
        self._sharing = CodecProcess()
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
            answered = await self._answered(job)
        except Died:
            # Perhaps on another body: each is tried once more, one by one, so that a deadly one goes alone.
            async with self._second_tries:
                try:
                    answered = await self._answered(job)
                except Died:
                    raise errors.RuntimeFailed("the process that decodes large bodies died twice on this one") from None
        head, payload = cut(answered)
        answer = _decode_answer(head)
        if isinstance(answer, Failed):
            raise errors.from_code(answer.code, answer.message)
        return answer, payload

    async def _answered(self, job: list[memoryview]) -> memoryview:
        """By whichever process is first. Raises Died as soon as one dies: the job may be why."""
        patience = _PATIENCE_S if self._yielding.warm else _START_S
        patience += sum(map(len, job)) / _PATIENCE_BYTES_S
        asked = {asyncio.create_task(self._yielding.ask(job))}
        try:
            done, _ = await asyncio.wait(asked, timeout=patience)
            if not done:
                asked.add(asyncio.create_task(self._sharing.ask(job)))
                done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            return min(done, key=lambda task: task.exception() is not None).result()
        finally:
            for task in asked:
                task.cancel()
            # Also takes the error of one that died beside the answer.
            await asyncio.gather(*asked, return_exceptions=True)

    def close(self) -> None:
        """End the processes."""
        self._yielding.close()
        self._sharing.close()


def pack(tensors: list[Tensor]) -> tuple[list[messages.TensorHead], list[bytes | memoryview]]:
    """Tensors as heads and payload parts."""
    return tensors_on_wire.pack_all((t.name, t.dtype, [t.array]) for t in tensors)
