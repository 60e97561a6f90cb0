"""One inference, in and out: what protocols decode to and encode from."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.core.tensors import Tensor

Parameter = str | int | float | bool


class InferenceRequest(msgspec.Struct):
    """A decoded request. ``id`` is the caller's own id, echoed back; None when not given."""

    tensors: list[Tensor]
    id: str | None = None
    parameters: dict[str, Parameter] = {}
    outputs: tuple[str, ...] | None = None
    """Names of the wanted outputs; None means all."""


class InferenceResponse(msgspec.Struct):
    """Outputs of one request, or one chunk of a stream."""

    model_name: str
    model_version: str
    outputs: list[Tensor]
    id: str | None = None
    parameters: dict[str, Any] = {}


class Outcome:
    """How a request ended, as counted in metrics. Plain ints: they index arrays on the hot path."""

    OK = 0
    CALLER_ERROR = 1
    CANCELLED = 2
    NOT_READY = 3
    OVERLOADED = 4
    DEADLINE = 5
    MODEL_ERROR = 6
    BUG = 7

    NAMES = (
        "ok",
        "caller_error",
        "cancelled",
        "not_ready",
        "overloaded",
        "deadline_exceeded",
        "model_error",
        "bug",
    )


class RequestRecord(msgspec.Struct, gc=False):
    """What is known about one finished request. Times are seconds; a stage that was not reached is 0.

    decode      body complete → InferenceRequest
    queue       accepted → sent to a replica
    batch_wait  sent → the model call began (transport and waiting behind the running batch)
    compute     the model call of the whole batch this request was in
    encode      outputs → response body
    total       head read → response handed to the server
    """

    model: str
    version: str
    protocol: str
    outcome: int
    rows: int
    batch_rows: float
    decode: float
    queue: float
    batch_wait: float
    compute: float
    encode: float
    total: float
    finished_at: float
    """Unix time, seconds."""
    bytes_in: int = 0
    bytes_out: int = 0
    request_id: str = ""
    error: str = ""
    """Stable error code (``core/errors.py``); empty when OK."""
    replica: str = ""
    fallback: str = ""
    """What answered instead of the deployment that was asked: another one's name, or ``constant``."""
