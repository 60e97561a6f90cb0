"""gRPC over ASGI: the Open Inference service, health and reflection on the port that serves REST.

A unary call is one length-prefixed message in and one out, with the status in trailers; a call that fails before its
first message has only headers ("trailers-only"). Knows HTTP headers; messages are the codecs' business.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from headrace.core import errors, release
from headrace.core.errors import HeadraceError
from headrace.core.keys import ANYBODY, Principal
from headrace.core.models import Signature
from headrace.core.requests import InferenceRequest, InferenceResponse
from headrace.gateway import bodies, grpc_streams, waking
from headrace.gateway.bodies import Headers, Message, Receive, Send
from headrace.gateway.services import Services
from headrace.gateway.state import ServerState
from headrace.pipeline import chain, fallback
from headrace.pipeline.chain import Exchange
from headrace.pipeline.deployment import Deployment
from headrace.protocols import (
    compression,
    grpc_frames,
    grpc_status,
    health,
    oip_documents,
    oip_grpc,
    oip_grpc_documents,
    reflection,
)
from headrace.protocols.protocol import Rendering

SERVICE = "inference.GRPCInferenceService"
_CONTENT_TYPE = (b"content-type", b"application/grpc")
_ACCEPT = (b"grpc-accept-encoding", ",".join(grpc_frames.ENCODINGS).encode())
_COMPRESS_FROM = 1024
_OPEN = frozenset(
    {
        *(f"/{SERVICE}/ServerLive", f"/{SERVICE}/ServerReady"),
        *(f"/grpc.health.v1.Health/{method}" for method in ("Check", "List", "Watch")),
    }
)
"""What load balancers and orchestrators ask: answered without a key. It says nothing about any model."""


class GrpcCodec:
    """``oip_grpc`` behind the chain's codec port; bodies are decoded messages."""

    NAME = "oip-grpc"

    @staticmethod
    def parse_request(body: Any, json_size: int | None, signature: Signature) -> tuple[InferenceRequest, Rendering]:
        return oip_grpc.to_request(body, signature)

    @staticmethod
    def render_response(response: InferenceResponse, rendering: Rendering, signature: Signature) -> bytes:
        return oip_grpc.from_response(response, rendering)


CODEC = GrpcCodec()
Unary = Callable[[bytes, Principal], bytes | Awaitable[bytes]]
Streaming = Callable[[AsyncIterator[bytes]], AsyncGenerator[bytes, None]]


class GrpcFront:
    """Every gRPC method of the inference port."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._state = ServerState(services)
        inference = f"/{SERVICE}/"
        self._infer_path = f"{inference}ModelInfer"
        self._unary: dict[str, Unary] = {
            f"{inference}ServerLive": lambda _, __: oip_grpc_documents.render_live(True),
            f"{inference}ServerReady": lambda _, __: oip_grpc_documents.render_ready(self._state.ready()),
            f"{inference}ModelReady": self._model_ready,
            f"{inference}ServerMetadata": lambda _, __: oip_grpc_documents.render_server_metadata(release.VERSION),
            f"{inference}ModelMetadata": self._model_metadata,
            f"{inference}ModelConfig": self._model_config,
            f"{inference}ModelStatistics": self._model_statistics,
            f"{inference}RepositoryIndex": self._repository_index,
            "/grpc.health.v1.Health/Check": self._check,
            "/grpc.health.v1.Health/List": self._list_health,
        }
        self._streaming: dict[str, Streaming] = {
            "/grpc.health.v1.Health/Watch": self._watch,
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": _reflect,
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _reflect,
        }

    async def handle(self, scope: Message, headers: Headers, receive: Receive, send: Send, started: float) -> None:
        """Answer one call, whatever it is."""
        path = scope["path"]
        if path == self._infer_path:
            await self._infer(headers, receive, send, started)
        elif path == f"/{SERVICE}/ModelStreamInfer":
            await grpc_streams.model_stream_infer(self._services, CODEC, headers, receive, send)
        else:
            await self._other(path, headers, receive, send)

    async def _other(self, path: str, headers: Headers, receive: Receive, send: Send) -> None:
        try:
            caller = ANYBODY if path in _OPEN else self._services.guard.identify(headers)
            if path not in self._unary and path not in self._streaming:
                raise errors.Unsupported(f"method {path} is not served here; reflection lists what is")
        except HeadraceError as error:
            await grpc_streams.send_error(send, error)
            return
        if path in self._unary:
            await self._answer(self._unary[path], caller, headers, receive, send)
        else:
            await grpc_streams.run(self._services, self._streaming[path], headers, receive, send)

    # --- ModelInfer ---

    async def _infer(self, headers: Headers, receive: Receive, send: Send, started: float) -> None:
        services = self._services
        request_id = services.ids.request_id(headers.get(b"x-request-id"), headers.get(b"traceparent"))
        exchange: Exchange | None = None
        failure: HeadraceError | None = None
        reply = b""
        try:
            caller = services.guard.identify(headers)
            body = await read_message(services, headers, receive)
            message = oip_grpc.decode_infer(body)
            try:
                exchange = self._begin(message, caller, headers, started, request_id)
            except errors.Dormant as dormant:
                given = headers.get(b"grpc-timeout")
                ends = None if given is None else started + grpc_status.parse_timeout(given)
                begin = partial(self._begin, message, caller, headers, started, request_id)
                exchange = await waking.begun(services, dormant, ends, begin)
            exchange.bytes_in = len(body)
            if exchange.deployment.reads_body:
                grpc_streams.choose_by_body(services, exchange, message, headers)
                _check_unary(exchange.deployment)
            if exchange.deployment.fallback:
                await fallback.run(exchange)
            else:
                await chain.run(exchange)
            chain.encode(exchange)
            reply = exchange.reply
        except HeadraceError as error:
            failure = error.untraced()
        except asyncio.CancelledError:
            services.records.ended(exchange, CODEC.NAME, errors.Cancelled(), request_id, started)
            raise
        except Exception as error:
            services.log.error("a call ended in a bug", action="bug", exception=error, request_id=request_id)
            failure = errors.Bug(f"internal error ({type(error).__name__}), request id {request_id}")
        try:
            if failure is None:
                if exchange is not None:
                    chain.note(exchange)
                told = [] if exchange is None else fallback.headers(exchange)
                await self._send_reply(send, reply, headers, request_id, told)
            else:
                await grpc_streams.send_error(send, failure, request_id)
        except OSError:
            failure = failure or errors.Cancelled("the caller left before it had its answer")
        finally:
            if exchange is not None:
                exchange.bytes_out = len(reply)
            services.records.ended(exchange, CODEC.NAME, failure, request_id, started)

    def _begin(self, message: Any, caller: Principal, headers: Headers, started: float, request_id: str) -> Exchange:
        name = message.model_name
        caller.check_predict(name)
        deployment = self._services.router.find(name, message.model_version, headers, caller=caller.name)
        _check_unary(deployment)
        given = headers.get(b"grpc-timeout")
        timeout = deployment.route.timeout_s if given is None else grpc_status.parse_timeout(given)
        exchange = Exchange(deployment, CODEC, CODEC.NAME, started, started + timeout, request_id)
        exchange.caller = caller.name
        exchange.explicit_deadline = given is not None
        if deployment.fallback or deployment.note is not None:
            exchange.pinned = fallback.pinned(message.model_version, headers)
        exchange.body = message
        return exchange

    async def _send_reply(
        self,
        send: Send,
        message: bytes,
        headers: Headers,
        request_id: str,
        told: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        out = [_CONTENT_TYPE, _ACCEPT, (b"x-request-id", request_id.encode("ascii")), *told]
        encoding = None
        if len(message) >= _COMPRESS_FROM and b"grpc-encoding" in headers:
            # Like grpc servers do: answer compressed when the caller compresses and takes it back.
            encoding = compression.choose(headers.get(b"grpc-accept-encoding", b"").decode("latin-1"))
        if encoding is not None:
            out.append((b"grpc-encoding", encoding.encode()))
            message = await asyncio.to_thread(compression.compress, encoding, message)
        body = grpc_frames.frame(message, compressed=encoding is not None)
        await send({"type": "http.response.start", "status": 200, "headers": out, "trailers": True})
        await send({"type": "http.response.body", "body": body})
        await send({"type": "http.response.trailers", "headers": grpc_status.OK_TRAILERS})

    # --- other unary methods ---

    async def _answer(self, method: Unary, caller: Principal, headers: Headers, receive: Receive, send: Send) -> None:
        services = self._services
        request_id = services.ids.request_id(headers.get(b"x-request-id"), headers.get(b"traceparent"))
        try:
            answer = method(await read_message(services, headers, receive), caller)
            message = answer if isinstance(answer, bytes) else await answer
        except HeadraceError as error:
            await grpc_streams.send_error(send, error, request_id)
            return
        except Exception as error:
            services.log.error("a call ended in a bug", action="bug", exception=error, request_id=request_id)
            await grpc_streams.send_error(send, errors.Bug(f"internal error ({type(error).__name__})"), request_id)
            return
        await self._send_reply(send, message, headers, request_id)

    def _model_ready(self, body: bytes, caller: Principal) -> bytes:
        name, version = oip_grpc_documents.decode_model(body)
        caller.check_sees(name)
        return oip_grpc_documents.render_model_ready(self._state.model_ready(name, version))

    def _model_metadata(self, body: bytes, caller: Principal) -> bytes:
        name, version = oip_grpc_documents.decode_model(body)
        caller.check_sees(name)
        deployment = self._services.router.describing(name, version)
        return oip_grpc_documents.render_model_metadata(
            name, self._state.versions(name), deployment.route.platform, deployment.signature
        )

    def _model_config(self, body: bytes, caller: Principal) -> bytes:
        name, version = oip_grpc_documents.decode_model(body)
        caller.check_sees(name)
        deployment = self._services.router.describing(name, version)
        route = deployment.route
        return oip_grpc_documents.render_model_config(
            name, route.platform, deployment.signature, route.batching.max_batch_size
        )

    def _repository_index(self, body: bytes, caller: Principal) -> bytes:
        entries = self._state.index(caller, only_ready=oip_grpc_documents.decode_index(body))
        return oip_grpc_documents.render_index(entries)

    async def _model_statistics(self, body: bytes, caller: Principal) -> bytes:
        name, version = oip_grpc_documents.decode_model(body)
        if name:
            caller.check_sees(name)
        document = await self._state.statistics(caller, name, version)
        return oip_grpc_documents.render_statistics(
            msgspec.convert(document["model_stats"], list[oip_documents.ModelStatistics])
        )

    # --- health ---

    def _serving(self, service: str) -> health.Serving:
        if service in ("", SERVICE):
            return health.Serving.SERVING if self._state.ready() else health.Serving.NOT_SERVING
        return health.Serving.SERVICE_UNKNOWN

    def _check(self, body: bytes, _caller: Principal) -> bytes:
        service = health.decode_check(body)
        status = self._serving(service)
        if status is health.Serving.SERVICE_UNKNOWN:
            raise errors.UnknownModel(f"unknown service {service!r}")
        return health.render_check(status)

    def _list_health(self, body: bytes, _caller: Principal) -> bytes:
        return health.render_list({name: self._serving(name) for name in ("", SERVICE)})

    async def _watch(self, messages: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Every change of a service's state, the present one first."""
        service = ""
        async for body in messages:
            service = health.decode_check(body)
            break
        last: health.Serving | None = None
        while True:
            status = self._serving(service)
            if status is not last:
                yield health.render_check(status)
                last = status
            if self._services.draining:
                # The caller has been told; a call without an end would hold up the drain.
                return
            await asyncio.sleep(0.1)


def _check_unary(deployment: Deployment) -> None:
    if deployment.signature.streaming:
        raise errors.Unsupported(f"model {deployment.endpoint!r} answers with a stream: use ModelStreamInfer")


async def _reflect(messages: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    async for body in messages:
        yield reflection.respond(body)


async def read_message(services: Services, headers: Headers, receive: Receive) -> bytes:
    """The one message of a unary call."""
    encoding = headers.get(b"grpc-encoding")
    plain = {name: value for name, value in headers.items() if name != b"content-encoding"}
    body = await bodies.read(services, receive, plain)
    limit = services.settings.max_body_bytes
    if encoding is None or encoding == b"identity":
        return grpc_frames.read_one(body, limit)
    with bodies.held(services, min(limit, len(body) * compression.MAX_RATIO)):
        return await asyncio.to_thread(grpc_frames.read_one, body, limit, encoding.decode("latin-1"))
