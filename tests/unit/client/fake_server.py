"""A server of the Open Inference Protocol in memory, made of the real codecs: outputs are the inputs, doubled."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import msgspec

from headrace.core import errors
from headrace.core.binding import bind
from headrace.core.models import Signature, TensorSpec
from headrace.core.requests import InferenceResponse
from headrace.core.tensors import DType, Tensor
from headrace.protocols import http_status, oip_documents, oip_generate, oip_rest, paths
from headrace.protocols.paths import Operation
from headrace.protocols.protocol import Reply

TABLE = Signature(
    (TensorSpec("amount", DType.FP64, (-1,)), TensorSpec("country", DType.BYTES, (-1,))),
    (TensorSpec("amount", DType.FP64, (-1,)), TensorSpec("country", DType.BYTES, (-1,))),
    columns=True,
)

Rule = Callable[[httpx.Request], httpx.Response | None]


class FakeServer:
    """``rules`` see each request first; what they do not answer is served. ``requests`` are all that came."""

    def __init__(self, *rules: Rule, signature: Signature = TABLE) -> None:
        self.signature = signature
        self.rules = list(rules)
        self.requests: list[httpx.Request] = []

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._answer)

    def paths(self) -> list[str]:
        return [request.url.raw_path.decode() for request in self.requests]

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.requests.append(request)
        for rule in self.rules:
            response = rule(request)
            if response is not None:
                return response
        try:
            reply = self._serve(request)
        except errors.HeadraceError as error:
            reply = http_status.error_reply(error)
        return httpx.Response(reply.status, headers=reply.headers, content=reply.body)

    def _serve(self, request: httpx.Request) -> Reply:
        match = paths.match(request.url.raw_path.decode())
        if match is None or match.model == "absent":
            raise errors.UnknownModel(f"there is no model {match.model if match else request.url.path!r}")
        match match.operation:
            case Operation.MODEL_METADATA:
                return http_status.json_reply(oip_documents.model_metadata(match.model, ["1"], "fake", self.signature))
            case Operation.SERVER_READY | Operation.MODEL_READY:
                return http_status.json_reply({"ready": True})
            case Operation.MODEL_LIST:
                return http_status.json_reply(oip_documents.model_list(["m", "team/n"]))
            case Operation.INFER:
                return self._infer(request, match.model, match.version or "1")
            case Operation.GENERATE_STREAM:
                return self._stream(request, match.model)
            case _:
                raise errors.Unsupported(str(match.operation))

    def _infer(self, request: httpx.Request, model: str, version: str) -> Reply:
        length = request.headers.get("inference-header-content-length")
        parsed, rendering = oip_rest.parse_request(request.content, int(length) if length else None, self.signature)
        bound = bind(self.signature, parsed.tensors, parsed.parameters)
        outputs = [
            Tensor(name, DType(dtype), array if dtype == "BYTES" else array * 2)
            for name, dtype, array in zip(bound.names, bound.dtypes, bound.arrays, strict=True)
        ]
        return oip_rest.render_response(InferenceResponse(model, version, outputs), rendering, self.signature)

    def _stream(self, request: httpx.Request, model: str) -> Reply:
        parsed, _ = oip_generate.parse_generate(request.content, self.signature)
        event = oip_generate.render_generate_event(InferenceResponse(model, "1", parsed.tensors))
        return Reply(200, [oip_generate.EVENT_STREAM_TYPE], event * 3)


def refuse(status: int, times: int, message: str = "later", retry_after: str | None = None) -> Rule:
    """A rule that answers the first ``times`` inferences with an error."""
    left = times

    def rule(request: httpx.Request) -> httpx.Response | None:
        nonlocal left
        if request.method != "POST" or left == 0:
            return None
        left -= 1
        headers = {} if retry_after is None else {"retry-after": retry_after}
        return httpx.Response(status, headers=headers, content=msgspec.json.encode({"error": message}))

    return rule
