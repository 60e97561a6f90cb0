"""The REST dialects that the gateway mounts, by the protocol name of ``protocols/paths.py``."""

from __future__ import annotations

from headrace.core.models import Signature
from headrace.core.requests import InferenceRequest, InferenceResponse
from headrace.protocols import kserve_v1, oip_generate, oip_rest
from headrace.protocols.protocol import Rendering, Reply, RestCodec


class GenerateCodec:
    """Triton's generate extension behind the codec port."""

    NAME = "generate"
    render_error = staticmethod(oip_rest.render_error)

    @staticmethod
    def parse_request(body: bytes, json_size: int | None, signature: Signature) -> tuple[InferenceRequest, Rendering]:
        return oip_generate.parse_generate(body, signature)

    @staticmethod
    def render_response(response: InferenceResponse, rendering: Rendering, signature: Signature) -> Reply:
        return oip_generate.render_generate(response)


REST_CODECS: dict[str, RestCodec] = {"oip": oip_rest, "v1": kserve_v1, "generate": GenerateCodec()}
