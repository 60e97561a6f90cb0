"""Streaming gRPC calls: ModelStreamInfer, health Watch, reflection; and how an error ends a call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from time import monotonic
from typing import Any

from headrace.core import errors
from headrace.core.errors import HeadraceError
from headrace.gateway import streaming, waking
from headrace.gateway.bodies import Headers, Receive, Send
from headrace.gateway.services import Services
from headrace.pipeline import chain, fallback
from headrace.pipeline.chain import Exchange
from headrace.pipeline.ports import Codec
from headrace.protocols import grpc_frames, grpc_status, oip_grpc

_CONTENT_TYPE = (b"content-type", b"application/grpc")
_PROTOCOL = "oip-grpc-stream"
_MAX_REQUESTS = 256
"""Requests of one ModelStreamInfer stream that may be in progress; more wait in the transport."""


async def send_error(send: Send, error: HeadraceError, request_id: str = "") -> None:
    """End a call that has sent nothing: headers that are also trailers."""
    headers = [_CONTENT_TYPE, *grpc_status.error_trailers(error)]
    if request_id:
        headers.append((b"x-request-id", request_id.encode("ascii")))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def choose_by_body(services: Services, exchange: Exchange, message: Any, headers: Headers) -> None:
    """The traffic policy reads the body: the deployment that decoded it may not be the one that answers."""
    find = services.router.find
    agrees = chain.choose_by_body(
        exchange,
        lambda request: find(message.model_name, message.model_version, headers, request, exchange.caller),
    )
    if not agrees:
        exchange.body = message


class MessageStream:
    """The caller's messages, read as they come."""

    def __init__(self, services: Services, headers: Headers, receive: Receive) -> None:
        encoding = headers.get(b"grpc-encoding", b"").decode("latin-1")
        self._reader = grpc_frames.FrameReader(services.settings.max_body_bytes, encoding)
        self._inflates = encoding not in ("", "identity")
        self._receive = receive
        self.left = False
        """The caller disconnected instead of ending its side."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                self.left = True
                return
            part = message.get("body", b"")
            feed = self._reader.feed
            # A few bytes may inflate to the limit, which would hold up everybody on the loop.
            for found in await asyncio.to_thread(feed, part) if self._inflates else feed(part):
                yield found
            if not message.get("more_body"):
                self._reader.finish()
                return


async def run(
    services: Services,
    method: Callable[[AsyncIterator[bytes]], AsyncGenerator[bytes, None]],
    headers: Headers,
    receive: Receive,
    send: Send,
) -> None:
    """A streaming method: messages in, messages out, one status."""
    await send({"type": "http.response.start", "status": 200, "headers": [_CONTENT_TYPE], "trailers": True})
    trailers = grpc_status.OK_TRAILERS
    answering = asyncio.create_task(_answer(services, method, headers, receive, send))
    closing = asyncio.create_task(services.closing.wait())
    try:
        await asyncio.wait({answering, closing}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise errors.NotReady("the server is shutting down")
        answering.result()
    except HeadraceError as error:
        trailers = grpc_status.error_trailers(error)
    except OSError:
        return  # the caller has left
    except Exception as error:
        services.log.error("a call ended in a bug", action="bug", exception=error)
        trailers = grpc_status.error_trailers(errors.Bug(f"internal error ({type(error).__name__})"))
    finally:
        answering.cancel()
        closing.cancel()
    await _end(send, trailers)


async def _answer(
    services: Services,
    method: Callable[[AsyncIterator[bytes]], AsyncGenerator[bytes, None]],
    headers: Headers,
    receive: Receive,
    send: Send,
) -> None:
    async with aclosing(method(aiter(MessageStream(services, headers, receive)))) as answers:
        async for message in answers:
            await _send_message(send, message)


async def _send_message(send: Send, message: bytes) -> None:
    await send({"type": "http.response.body", "body": grpc_frames.frame(message), "more_body": True})


async def _end(send: Send, trailers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.body", "body": b""})
    await send({"type": "http.response.trailers", "headers": trailers})


async def model_stream_infer(services: Services, codec: Codec, headers: Headers, receive: Receive, send: Send) -> None:
    """Each message is a request of its own and may have any number of responses; requests run side by side, and an
    error of one is told in a response and ends nothing else."""
    try:
        stream = _InferStream(services, codec, headers, send)
        messages = MessageStream(services, headers, receive)
    except HeadraceError as error:
        await send_error(send, error)
        return
    await send({"type": "http.response.start", "status": 200, "headers": [_CONTENT_TYPE], "trailers": True})
    trailers = grpc_status.OK_TRAILERS
    reading = asyncio.create_task(stream.take_all(messages))
    closing = asyncio.create_task(services.closing.wait())
    try:
        # A reader that stalls ends the call, although it may well hold its own side open.
        first: set[asyncio.Future[Any]] = {reading, stream.broken, closing}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if not stream.broken.done():
            if not reading.done() and not stream.all_taken:
                reading.cancel()
                await stream.finish()
                raise errors.NotReady("the server is shutting down")
            await reading
    except HeadraceError as error:
        trailers = grpc_status.error_trailers(error)
    finally:
        reading.cancel()
        closing.cancel()
        stream.cancel()
    if stream.late is not None:
        await _end(send, grpc_status.error_trailers(stream.late))
    elif not stream.broken.done():
        await _end(send, trailers)


class _InferStream:
    """The requests in progress on one ModelStreamInfer call."""

    def __init__(self, services: Services, codec: Codec, headers: Headers, send: Send) -> None:
        services.guard.identify(headers)
        self._services = services
        self._codec = codec
        self._headers = headers
        self._send = send
        self._sending = asyncio.Lock()
        self._room = asyncio.Semaphore(_MAX_REQUESTS)
        self._tasks: set[asyncio.Task[None]] = set()
        given = headers.get(b"grpc-timeout")
        self._deadline = None if given is None else monotonic() + grpc_status.parse_timeout(given)
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when nobody reads the answers any more."""
        self.all_taken = False
        """The caller has ended its side."""
        self.late: HeadraceError | None = None
        """The deadline of the whole call has passed; a request that is only late itself is told in a message."""

    async def take_all(self, messages: MessageStream) -> None:
        """Start every request that comes and wait for what is in progress."""
        async for body in messages:
            await self._begin(body)
        self.all_taken = True
        if messages.left:
            self._break()
        await self.finish()

    async def finish(self) -> None:
        """Wait for what is in progress."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _begin(self, body: bytes) -> None:
        # Waits while too many are in progress.
        await self._room.acquire()
        task = asyncio.create_task(self._one(body))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.release()

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _one(self, body: bytes) -> None:
        started = monotonic()
        exchange: Exchange | None = None
        failure: HeadraceError | None = None
        client_id: str | None = None
        request_id = self._services.ids.request_id(None)
        try:
            message = oip_grpc.decode_infer(body)
            client_id = message.id or None
            try:
                exchange = self._exchange(message, started, request_id)
            except errors.Dormant as dormant:
                begin = partial(self._exchange, message, started, request_id)
                exchange = await waking.begun(self._services, dormant, self._deadline, begin)
            exchange.bytes_in = len(body)
            if exchange.deployment.reads_body:
                choose_by_body(self._services, exchange, message, self._headers)
            await self._answer(exchange)
        except HeadraceError as error:
            failure = error.untraced()
            if isinstance(error, errors.DeadlineExceeded) and self._deadline is not None:
                self.late = failure
                self._break()
            else:
                await self._tell(oip_grpc.stream_error(error, client_id), 30.0)
        except asyncio.CancelledError:
            failure = errors.Cancelled()
            raise
        except Exception as error:
            self._services.log.error("a stream request ended in a bug", action="bug", exception=error)
            failure = errors.Bug(f"internal error ({type(error).__name__}), request id {request_id}")
            await self._tell(oip_grpc.stream_error(failure, client_id), 30.0)
        finally:
            self._services.records.ended(exchange, _PROTOCOL, failure, request_id, started)

    def _exchange(self, message: Any, started: float, request_id: str) -> Exchange:
        # Of every request again: a stream may outlive its key.
        caller = self._services.guard.identify(self._headers)
        name = message.model_name
        caller.check_predict(name)
        deployment = self._services.router.find(name, message.model_version, self._headers, caller=caller.name)
        deadline = self._deadline or started + deployment.route.timeout_s
        exchange = Exchange(deployment, self._codec, _PROTOCOL, started, deadline, request_id)
        exchange.caller = caller.name
        exchange.explicit_deadline = self._deadline is not None
        if deployment.fallback or deployment.note is not None:
            exchange.pinned = fallback.pinned(message.model_version, self._headers)
        exchange.body = message
        return exchange

    async def _answer(self, exchange: Exchange) -> None:
        stall = exchange.deployment.route.stream_stall_s
        async with aclosing(streaming.responses(self._services, exchange)) as responses:
            async for response in responses:
                if not exchange.bytes_out:
                    # The caller of a stream knows its requests by the ids that it gave them.
                    chain.note(exchange, response.id)
                rendered = oip_grpc.stream_response(
                    response, exchange.rendering, final=not exchange.deployment.signature.streaming
                )
                exchange.bytes_out += len(rendered)
                await self._tell(rendered, stall)
        streams = exchange.deployment.signature.streaming
        if oip_grpc.wants_empty_final(exchange.rendering) and streams:
            request = exchange.request
            final = oip_grpc.empty_final_response(
                exchange.deployment.endpoint,
                exchange.deployment.route.version,
                request.id if request is not None else None,
            )
            await self._tell(final, stall)

    async def _tell(self, message: bytes, stall: float) -> None:
        body = {"type": "http.response.body", "body": grpc_frames.frame(message), "more_body": True}
        try:
            async with self._sending:
                await streaming.send_within(self._send, body, stall)
        except errors.Cancelled:
            # The reader is stalled or gone: the whole stream ends, all its requests are cancelled.
            self._break()

    def _break(self) -> None:
        if not self.broken.done():
            self.broken.set_result(None)
        self.cancel()
