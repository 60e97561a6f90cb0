"""The port between the gateway and a wire format, and the values that cross it.

Codecs are pure: they get complete, already decompressed bodies, and give complete bodies. They raise only
``core.errors``; ``InvalidInput`` names the input, what came and what was expected.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from headrace.core.errors import HeadraceError
from headrace.core.models import Signature
from headrace.core.requests import InferenceRequest, InferenceResponse

Headers = list[tuple[bytes, bytes]]


class Reply(msgspec.Struct, gc=False):
    """A complete response: ``headers`` without content-length (the gateway adds it)."""

    status: int
    headers: Headers
    body: bytes


class Rendering(msgspec.Struct, gc=False):
    """What a codec must remember between a request and its response.

    wanted     output names in the order asked for; None: all
    binary     per output name: True raw, False JSON; see ``binary_default`` for names not listed
    detail     anything else the codec needs, opaque to the gateway
    """

    wanted: tuple[str, ...] | None = None
    binary: dict[str, bool] | None = None
    binary_default: bool = False
    classification: dict[str, int] | None = None
    detail: Any = None


class RestCodec(Protocol):
    """One REST dialect. Implementations are modules: functions of these names."""

    NAME: str
    """Label in metrics and logs."""

    def parse_request(
        self, body: bytes, json_size: int | None, signature: Signature
    ) -> tuple[InferenceRequest, Rendering]:
        """Decode a complete body. ``json_size`` is the value of Inference-Header-Content-Length, None when the
        header is absent (codecs without a binary form ignore it)."""
        ...

    def render_response(self, response: InferenceResponse, rendering: Rendering, signature: Signature) -> Reply: ...

    def render_error(self, error: HeadraceError) -> Reply:
        """Status and body for an error; never raises."""
        ...
