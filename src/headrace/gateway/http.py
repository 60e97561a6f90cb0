"""The ASGI application of the inference port: REST here, gRPC handed to ``grpc.py``, all on one port.

The head of a request decides everything that can be decided without its body: path, endpoint, size, deadline. Paths
are resolved once and cached. No framework: this file is the hot path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial
from time import monotonic
from typing import NamedTuple, TypeVar

from headrace.core import errors
from headrace.core.errors import HeadraceError
from headrace.core.keys import ANYBODY
from headrace.gateway import bodies, streaming, waking
from headrace.gateway.bodies import Headers, Message, Pieces, Receive, Send
from headrace.gateway.codecs import REST_CODECS
from headrace.gateway.grpc import GrpcFront
from headrace.gateway.rest import RestOperations
from headrace.gateway.services import Services
from headrace.pipeline import chain, fallback
from headrace.pipeline.chain import Exchange
from headrace.pipeline.deployment import Deployment
from headrace.protocols import compression, credentials, http_status, paths
from headrace.protocols.paths import Match, Operation
from headrace.protocols.protocol import Reply, RestCodec

T = TypeVar("T")

_MATCHES_KEPT = 10_000
_COMPRESS_FROM = 1024
_INFERENCE = {
    Operation.INFER: "oip",
    Operation.V1_PREDICT: "v1",
    Operation.GENERATE: "generate",
    Operation.GENERATE_STREAM: "generate",
}
_OPEN = frozenset({Operation.ROOT, Operation.PING, Operation.HEALTH, Operation.SERVER_LIVE, Operation.SERVER_READY})
"""What load balancers and orchestrators ask: answered without a key. It says nothing about any model."""


class Dialect(NamedTuple):
    """A REST dialect of inference."""

    name: str
    codec: RestCodec


class ResolvedPath(NamedTuple):
    """A path and, when it stands for inference, its dialect."""

    path: Match
    dialect: Dialect | None


class InferenceApp:
    """ASGI 3. One instance per gateway process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._matches: dict[bytes, ResolvedPath | None] = {}
        self._rest = RestOperations(services)
        self._grpc = GrpcFront(services)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await _not_http(scope, receive, send)
            return
        started = monotonic()
        pairs = scope["headers"]
        headers: Headers = dict(pairs)
        if len(headers) != len(pairs):
            credentials.join_repeated(headers, pairs)
        if self._services.draining:
            send = self._last_answer(scope, send)
        content_type = headers.get(b"content-type")
        if content_type is not None and content_type.startswith(b"application/grpc"):
            await self._grpc.handle(scope, headers, receive, send, started)
            return
        raw = scope.get("raw_path") or scope["path"].encode()
        try:
            match = self._matches[raw]
        except KeyError:
            match = self._resolve(raw)
        method = scope["method"]
        if match is not None and match.dialect is not None and method == "POST":
            await self._infer(match, match.dialect, headers, receive, send, started)
        else:
            await self._other(match, method, scope, headers, receive, send)

    def _last_answer(self, scope: Message, send: Send) -> Send:
        """HTTP/1 clients are told to leave. HTTP/2 has no word for that in an answer: they are remembered."""
        if scope["http_version"].startswith("1"):
            return _closing(send)
        if scope.get("client") is not None:
            host, port = scope["client"]
            self._services.last_clients.add((host, port))
        return send

    def _resolve(self, raw: bytes) -> ResolvedPath | None:
        found = paths.match(raw.partition(b"?")[0].decode("latin-1"))
        if len(self._matches) >= _MATCHES_KEPT:
            self._matches.clear()
        match = None
        if found is not None:
            name = _INFERENCE.get(found.operation)
            match = ResolvedPath(found, None if name is None else Dialect(name, REST_CODECS[name]))
        self._matches[raw] = match
        return match

    # --- inference ---

    async def _infer(
        self, match: ResolvedPath, dialect: Dialect, headers: Headers, receive: Receive, send: Send, started: float
    ) -> None:
        services = self._services
        codec = dialect.codec
        request_id = services.ids.request_id(headers.get(b"x-request-id"), headers.get(b"traceparent"))
        exchange: Exchange | None = None
        failure: HeadraceError | None = None
        try:
            try:
                exchange = self._begin(match.path, codec, headers, started, request_id)
            except errors.Dormant as dormant:
                given = headers.get(b"x-request-timeout-ms")
                ends = None if given is None else started + parse_timeout_ms(given)
                begin = partial(self._begin, match.path, codec, headers, started, request_id)
                exchange = await waking.begun(services, dormant, ends, begin)
            self._heed_head(exchange, match.path, headers)
            body = await bodies.read_pieces(services, receive, headers)
            while True:
                if exchange.deployment.closed:
                    # The version left while its request came in: the one that took over answers.
                    exchange = self._begin(match.path, codec, headers, started, request_id)
                    self._heed_head(exchange, match.path, headers)
                exchange.bytes_in = len(body)
                if len(body) <= services.settings.offload_bytes and b"inference-header-content-length" not in headers:
                    exchange.body = body
                    if not exchange.deployment.reads_body:
                        break
                else:
                    await self._take_body(exchange, dialect.name, headers, body)
                if exchange.deployment.reads_body:
                    await self._choose_by_body(exchange, match.path, dialect, headers, body)
                if not exchange.deployment.closed:
                    break
            if exchange.signature.streaming or match.path.operation is Operation.GENERATE_STREAM:
                if match.path.operation is not Operation.GENERATE:
                    await self._stream(exchange, receive, send)
                    return
                reply = await streaming.single(services, exchange)
            else:
                if exchange.deployment.fallback:
                    await fallback.run(exchange)
                else:
                    await chain.run(exchange)
                if exchange.rendering.binary_default or not is_large(exchange, services.settings.offload_bytes):
                    chain.encode(exchange)
                    reply = exchange.reply
                else:
                    reply = await self._encode_large(exchange, dialect.name)
        except HeadraceError as error:
            failure = error.untraced()
            reply = codec.render_error(error)
        except asyncio.CancelledError:
            self._finish(codec.NAME, exchange, errors.Cancelled(), request_id, started, 0)
            raise
        except Exception as error:
            failure = _bug(services, error, request_id)
            reply = codec.render_error(failure)
        size = len(reply.body)
        if failure is None and exchange is not None:
            chain.note(exchange)
        if exchange is not None and (exchange.deployment.header is not None or exchange.fallback):
            reply.headers += fallback.headers(exchange)
        try:
            await self._send(send, reply, headers, request_id)
        except OSError:
            failure = failure or errors.Cancelled("the client left before it had its answer")
        finally:
            self._finish(codec.NAME, exchange, failure, request_id, started, size)

    def _begin(self, match: Match, codec: RestCodec, headers: Headers, started: float, request_id: str) -> Exchange:
        """The head stage: who asks, endpoint, readiness; the body is still unread."""
        services = self._services
        caller = services.guard.identify(headers)
        caller.check_predict(match.model)
        deployment = services.router.find(match.model, match.version, headers, caller=caller.name)
        deadline = started + deployment.route.timeout_s
        exchange = Exchange(deployment, codec, codec.NAME, started, deadline, request_id)
        exchange.caller = caller.name
        if deployment.fallback or deployment.note is not None:
            exchange.pinned = fallback.pinned(match.version, headers)
        return exchange

    @staticmethod
    def _heed_head(exchange: Exchange, match: Match, headers: Headers) -> None:
        """The rest of the head stage. Apart from ``_begin``, so that what is refused here is recorded with its model.
        Raises InvalidInput or Unsupported."""
        given = headers.get(b"x-request-timeout-ms")
        if given is not None:
            exchange.deadline = exchange.started + parse_timeout_ms(given)
            exchange.explicit_deadline = True
        if exchange.signature.streaming:
            _check_streaming(exchange.deployment, match.operation)

    async def _choose_by_body(
        self, exchange: Exchange, match: Match, dialect: Dialect, headers: Headers, body: bytes | Pieces
    ) -> None:
        """The traffic policy reads the body: the deployment that decoded it may not be the one that answers."""
        find = self._services.router.find
        agrees = chain.choose_by_body(
            exchange,
            lambda request: find(match.model, match.version, headers, request=request, caller=exchange.caller),
        )
        if not agrees:
            await self._take_body(exchange, dialect.name, headers, body)
        if exchange.signature.streaming:
            _check_streaming(exchange.deployment, match.operation)

    async def _take_body(self, exchange: Exchange, name: str, headers: Headers, body: bytes | Pieces) -> None:
        """A body that is large or has a binary part."""
        services = self._services
        given = headers.get(b"inference-header-content-length")
        json_size = None if given is None else parse_json_size(given)
        if (len(body) if json_size is None else json_size) > services.settings.offload_bytes:
            exchange.body_read = monotonic()
            with bodies.held(services, len(body)):
                parts = [body] if isinstance(body, bytes) else body.parts
                job = services.offload.parse(name, parts, json_size, exchange.signature)
                exchange.request, exchange.rendering = await _before(exchange.deadline, job)
        else:
            exchange.body = body if isinstance(body, bytes) else body.joined()
            exchange.json_size = json_size

    async def _stream(self, exchange: Exchange, receive: Receive, send: Send) -> None:
        """Server-sent events; errors after the first event are told in the stream. Recorded here, but for errors before
        it."""
        failure: HeadraceError | None = None
        headers = [(b"x-request-id", exchange.request_id.encode("ascii"))]
        watch = asyncio.create_task(streaming.cancel_when_left(receive, exchange))
        try:
            exchange.bytes_out = await streaming.server_sent_events(self._services, exchange, send, headers)
        except streaming.StreamFailed as failed:
            failure, exchange.bytes_out = failed.error.untraced(), failed.sent
        finally:
            watch.cancel()
        self._services.records.ended(exchange, exchange.protocol, failure, exchange.request_id, exchange.started)

    async def _encode_large(self, exchange: Exchange, name: str) -> Reply:
        response = exchange.response
        if response is None:
            raise errors.Bug("a request was computed but has no response")
        before = monotonic()
        job = self._services.offload.render(name, response, exchange.rendering, exchange.signature)
        reply = await _before(exchange.deadline, job)
        exchange.encode_seconds = monotonic() - before
        return reply

    def _finish(
        self,
        name: str,
        exchange: Exchange | None,
        failure: HeadraceError | None,
        request_id: str,
        started: float,
        sent: int,
    ) -> None:
        if exchange is not None:
            exchange.bytes_out = sent
        self._services.records.ended(exchange, name, failure, request_id, started)

    async def _send(self, send: Send, reply: Reply, headers: Headers, request_id: str) -> None:
        body = reply.body
        out = reply.headers
        if len(body) >= _COMPRESS_FROM:
            accepted = headers.get(b"accept-encoding")
            if accepted is not None:
                body = await _compress(reply, accepted)
        out.append((b"content-length", b"%d" % len(body)))
        out.append((b"x-request-id", request_id.encode("ascii")))
        await send({"type": "http.response.start", "status": reply.status, "headers": out})
        await send({"type": "http.response.body", "body": body})

    # --- everything else ---

    async def _other(
        self,
        resolved: ResolvedPath | None,
        method: str,
        scope: Message,
        headers: Headers,
        receive: Receive,
        send: Send,
    ) -> None:
        services = self._services
        match = None if resolved is None else resolved.path
        request_id = services.ids.request_id(headers.get(b"x-request-id"), headers.get(b"traceparent"))
        try:
            is_open = match is not None and match.operation in _OPEN
            caller = ANYBODY if is_open else services.guard.identify(headers)
            if match is None:
                raise errors.UnknownModel(f"there is nothing at {method} {scope['path']}; see /v2 and /v1/models")
            if method not in match.methods:
                raise errors.MethodNotAllowed(f"{scope['path']} accepts {' and '.join(match.methods)}, not {method}")
            body = await bodies.read(services, receive, headers) if method == "POST" else b""
            reply = await self._rest.answer(match, body, caller)
        except HeadraceError as error:
            methods = match.methods if match is not None and isinstance(error, errors.MethodNotAllowed) else ()
            reply = http_status.error_reply(error, methods)
        except Exception as error:
            reply = http_status.error_reply(_bug(services, error, request_id))
        if method == "HEAD":
            reply = Reply(reply.status, reply.headers, b"")
        await self._send(send, reply, headers, request_id)


def is_large(exchange: Exchange, limit: int) -> bool:
    """Whether the outputs are worth encoding outside the loop (``limit`` in bytes; JSON is several times that)."""
    response = exchange.response
    if response is None:
        return False
    size = 0
    for tensor in response.outputs:
        size += tensor.array.nbytes
    return size > limit


def parse_timeout_ms(value: bytes) -> float:
    """X-Request-Timeout-Ms as seconds."""
    try:
        milliseconds = float(value)
    except ValueError:
        milliseconds = -1.0
    if not 0 < milliseconds < 1e9:
        raise errors.InvalidInput(
            f"X-Request-Timeout-Ms must be a positive number of milliseconds, got {value.decode('latin-1')!r}"
        )
    return milliseconds / 1e3


def parse_json_size(value: bytes) -> int:
    """Inference-Header-Content-Length."""
    if not value.isdigit() or len(value) > 18:
        raise errors.InvalidInput(
            f"Inference-Header-Content-Length must be a number of bytes, got {value.decode('latin-1')!r}"
        )
    return int(value)


async def _before(deadline: float, job: Awaitable[T]) -> T:
    """The result of a job of the codec process, which takes seconds for the largest bodies, one after the other."""
    try:
        async with asyncio.timeout(max(deadline - monotonic(), 0.0)):
            return await job
    except TimeoutError:
        raise errors.DeadlineExceeded("the deadline passed while large bodies were decoded or encoded") from None


def _closing(send: Send) -> Send:
    """Asks the client to leave after this answer. HTTP/2 has no such header (it sends GOAWAY instead), and clients
    refuse answers that carry it."""

    async def send_and_close(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    return send_and_close


def _check_streaming(deployment: Deployment, operation: Operation) -> None:
    """A model that streams has no unary ``infer``."""
    if operation not in (Operation.GENERATE, Operation.GENERATE_STREAM):
        raise errors.Unsupported(
            f"model {deployment.endpoint!r} answers with a stream: use generate_stream, generate, or gRPC"
            " ModelStreamInfer"
        )


def _bug(services: Services, error: Exception, request_id: str) -> errors.Bug:
    services.log.error("a request ended in a bug", action="bug", exception=error, request_id=request_id)
    return errors.Bug(f"internal error ({type(error).__name__}); the log has it under request id {request_id}")


async def _compress(reply: Reply, accepted: bytes) -> bytes:
    encoding = compression.choose(accepted.decode("latin-1"))
    if encoding is None:
        return reply.body
    reply.headers.append((b"content-encoding", encoding.encode()))
    reply.headers.append((b"vary", b"accept-encoding"))
    if len(reply.body) > 32 * 1024:
        return await asyncio.to_thread(compression.compress, encoding, reply.body)
    return compression.compress(encoding, reply.body)


async def _not_http(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    else:
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": "no WebSocket is served here"})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return
