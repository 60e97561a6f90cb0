"""The codec process parses and renders large bodies. ``python -m headrace.gateway.codec_process FD [--yield]``."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import sys

import msgspec
import numpy as np

from headrace.core import errors
from headrace.core.models import Signature
from headrace.core.requests import InferenceResponse
from headrace.gateway import offload
from headrace.gateway.codec_link import YIELDING
from headrace.gateway.codecs import REST_CODECS
from headrace.gateway.offload import Failed, Job, Parsed, ParseJob, Rendered, RenderJob
from headrace.replica import scheduling, tensors_on_wire

_NICE = 10
_decode_job = msgspec.msgpack.Decoder(Job).decode


def main(arguments: list[str]) -> int:
    """Answer jobs in order until the gateway closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Small requests, which gateways and workers serve meanwhile, come first.
    os.nice(_NICE)
    if YIELDING in arguments:
        scheduling.yield_to_all()
    link = socket.socket(fileno=int(arguments[0]))
    prefix = memoryview(bytearray(4))
    with contextlib.suppress(ConnectionError):  # the gateway has left in the middle of a job
        while _fill(link, prefix):
            message = np.empty(int.from_bytes(prefix, "little"), np.uint8).data
            if not _fill(link, message):
                break
            for part in answer(message):
                link.sendall(part)
    return 0


def _fill(link: socket.socket, buffer: memoryview) -> bool:
    """Receive until the buffer is full; False when the gateway closed the socket before."""
    filled = 0
    while filled < len(buffer):
        count = link.recv_into(buffer[filled:])
        if not count:
            return False
        filled += count
    return True


def answer(message: bytes | memoryview) -> list[memoryview]:
    """One job's answer; errors of the codecs travel as values."""
    head, payload = offload.cut(message)
    job = _decode_job(head)
    try:
        return _parse(job, payload) if isinstance(job, ParseJob) else _render(job, payload)
    except errors.HeadraceError as error:
        return offload.envelope(Failed(error.code, error.message))
    except Exception as error:
        # The boundary of this process: the jobs behind this one are other people's.
        return offload.envelope(Failed(errors.Bug.code, f"internal error ({type(error).__name__}: {error})"))


@functools.lru_cache(maxsize=256)
def _signature(packed: bytes) -> Signature:
    # The same object each time: codecs keep tables per signature.
    return msgspec.msgpack.decode(packed, type=Signature)


def _parse(job: ParseJob, payload: memoryview) -> list[memoryview]:
    request, rendering = REST_CODECS[job.codec].parse_request(bytes(payload), job.json_size, _signature(job.signature))
    heads, parts = offload.pack(request.tensors)
    parsed = Parsed(heads, request.id, request.parameters, request.outputs, rendering)
    try:
        return offload.envelope(parsed, *parts)
    except OverflowError as error:
        raise errors.InvalidInput(f"an integer parameter may have 64 bits: {error}") from None


def _render(job: RenderJob, payload: memoryview) -> list[memoryview]:
    tensors = tensors_on_wire.unpack_tensors(job.tensors, payload)
    response = InferenceResponse(job.model_name, job.model_version, tensors, job.id)
    reply = REST_CODECS[job.codec].render_response(response, job.rendering, _signature(job.signature))
    return offload.envelope(Rendered(reply.status, reply.headers), reply.body)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
