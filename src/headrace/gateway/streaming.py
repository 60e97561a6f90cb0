"""Responses as streams: chunks from a replica to a reader, bounded by credit, cancelled when the reader is gone.

A model that answers once is a stream of one. Used by server-sent events, ``generate`` and gRPC ModelStreamInfer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from headrace.core import errors
from headrace.core.calls import Call
from headrace.core.errors import HeadraceError
from headrace.core.requests import InferenceResponse
from headrace.core.tensors import Tensor
from headrace.gateway.bodies import Receive, Send
from headrace.gateway.services import Services
from headrace.pipeline import chain, fallback
from headrace.pipeline.chain import Exchange
from headrace.pipeline.chunk_queue import GRANT_EVERY, ChunkQueue
from headrace.protocols import oip_generate
from headrace.protocols.protocol import Reply

_EVENT_STREAM = [oip_generate.EVENT_STREAM_TYPE, (b"cache-control", b"no-cache")]


def responses(services: Services, exchange: Exchange) -> AsyncGenerator[InferenceResponse, None]:
    """Every response of one request, in order. Closing the iterator early cancels the work in the replica."""
    return (_with_fallback if exchange.deployment.fallback else _responses)(services, exchange)


async def _with_fallback(services: Services, exchange: Exchange) -> AsyncGenerator[InferenceResponse, None]:
    """Something else may answer until the first response is there."""
    attempts = fallback.Attempts(exchange)
    began = False
    while True:
        try:
            attempts.enter()
            async with aclosing(_responses(services, exchange)) as answers:
                async for answer in answers:
                    began = True
                    yield answer
        except HeadraceError as error:
            if began:
                attempts.failed(error)
                raise
            if not attempts.go_on(error):
                raise attempts.first or error from None
            if exchange.response is not None:
                yield exchange.response
                break
        except BaseException:
            attempts.left()
            raise
        else:
            break
    attempts.succeeded()


async def _responses(services: Services, exchange: Exchange) -> AsyncGenerator[InferenceResponse, None]:
    if not exchange.deployment.signature.streaming:
        await chain.run(exchange)
        if exchange.response is None:
            raise errors.Bug("a request was computed but has no response")
        yield exchange.response
        return
    for stage in chain.BEFORE_QUEUE:
        stage(exchange)
    deployment, bound = exchange.deployment, exchange.bound
    assert bound is not None
    queue = ChunkQueue()
    call = Call(bound, exchange.deadline, exchange.decoded, deployment.make_future(), queue)
    exchange.call = call
    model = deployment.endpoint, deployment.route.version
    services.open_streams[model] = services.open_streams.get(model, 0) + 1
    try:
        deployment.enqueue(call)
        await call.waiter  # type: ignore[misc]  # the waiter made above is a future
        if call.error is not None:
            raise call.error
        async for outputs in _chunks(queue, call, exchange):
            if queue.taken == 1:
                chain.count_first_response(exchange, outputs)
            request = exchange.request
            yield InferenceResponse(*model, outputs, request.id if request is not None else None)
        call.compute = queue.compute
    finally:
        services.open_streams[model] -= 1
        if not queue.is_over:
            _abandon(call, exchange)


async def _chunks(queue: ChunkQueue, call: Call, exchange: Exchange) -> AsyncIterator[list[Tensor]]:
    # The default deadline bounds the wait for the first chunk; a deadline of the caller's bounds the whole stream.
    deadline: float | None = exchange.deadline
    while (outputs := await queue.get(deadline)) is not None:
        yield outputs
        if not exchange.explicit_deadline:
            deadline = None
        if queue.taken % GRANT_EVERY == 0:
            replica = exchange.deployment.find(call.replica)
            if replica is not None:
                replica.grant(call.stream, GRANT_EVERY)


def _abandon(call: Call, exchange: Exchange) -> None:
    """The reader is gone: take the call out of the queue, or tell the replica."""
    if not call.waiter.done():
        call.fail(errors.Cancelled("the caller went away"))
        return
    replica = exchange.deployment.find(call.replica)
    if replica is not None and call.stream:
        replica.cancel(call.stream)


async def server_sent_events(
    services: Services, exchange: Exchange, send: Send, headers: list[tuple[bytes, bytes]]
) -> int:
    """Answer with one event per response; returns the bytes sent. An error before the first event is raised, so that
    it can be answered with its own status; a later one is an event."""
    sent = 0
    stall = exchange.deployment.route.stream_stall_s
    async with aclosing(responses(services, exchange)) as stream:
        first = await anext(stream, None)
        chain.note(exchange)
        try:
            await _begin(send, [*headers, *fallback.headers(exchange)])
            if first is not None:
                sent += await _send_event(send, oip_generate.render_generate_event(first), stall)
            async for response in stream:
                sent += await _send_event(send, oip_generate.render_generate_event(response), stall)
            await send_within(send, {"type": "http.response.body", "body": b""}, stall)
        except HeadraceError as error:
            await _tell_error(send, error, stall)
            raise StreamFailed(error, sent) from error
        except Exception as error:
            services.log.error("a stream ended in a bug", action="bug", exception=error, request_id=exchange.request_id)
            bug = errors.Bug(f"internal error ({type(error).__name__}), request id {exchange.request_id}")
            await _tell_error(send, bug, stall)
            raise StreamFailed(bug, sent) from error
    return sent


async def _begin(send: Send, headers: list[tuple[bytes, bytes]]) -> None:
    try:
        await send({"type": "http.response.start", "status": 200, "headers": [*_EVENT_STREAM, *headers]})
    except OSError as error:
        raise errors.Cancelled("the reader of the stream has left") from error


async def _tell_error(send: Send, error: HeadraceError, stall: float) -> None:
    """End a stream with an error, unless nobody is there to read it."""
    if isinstance(error, errors.Cancelled):
        return
    with contextlib.suppress(errors.Cancelled):
        await _send_event(send, oip_generate.render_generate_error_event(error), stall)
        await send_within(send, {"type": "http.response.body", "body": b""}, stall)


async def cancel_when_left(receive: Receive, exchange: Exchange) -> None:
    """Cancel the work for a client that leaves while its answer streams. A task beside the stream: not every server
    tells at ``send``, and a model may work long before it has anything to send."""
    while (await receive())["type"] == "http.request":
        pass
    if exchange.call is not None:
        _abandon(exchange.call, exchange)


class StreamFailed(Exception):
    """The stream ended with an error after its first event; the client has been told if it is still there."""

    def __init__(self, error: HeadraceError, sent: int) -> None:
        super().__init__(error.message)
        self.error = error
        self.sent = sent


async def _send_event(send: Send, event: bytes, stall: float) -> int:
    await send_within(send, {"type": "http.response.body", "body": event, "more_body": True}, stall)
    return len(event)


async def send_within(send: Send, message: dict[str, object], stall: float) -> None:
    """Send to a reader that may stall. Raises Cancelled when it takes nothing for ``stall`` seconds or has left."""
    try:
        async with asyncio.timeout(stall):
            await send(message)
    except TimeoutError:
        raise errors.Cancelled(f"the reader of the stream took nothing for {stall:g} s") from None
    except OSError as error:
        raise errors.Cancelled("the reader of the stream has left") from error


async def single(services: Services, exchange: Exchange) -> Reply:
    """``generate`` on a streaming model: exactly one response is an answer, anything else an error."""
    async with aclosing(responses(services, exchange)) as stream:
        first = await anext(stream, None)
        if first is None or await anext(stream, None) is not None:
            raise errors.Unsupported("the model gave not exactly one response; use generate_stream")
    return oip_generate.render_generate(first)
