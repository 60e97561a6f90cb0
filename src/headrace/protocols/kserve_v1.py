"""KServe v1 and the TF Serving row and column forms: plain JSON whose datatypes come from the model's signature.

``instances`` is a list of rows (objects by input name, or bare values for one input) and is answered by
``predictions``; ``inputs`` is an object of tensors or one bare tensor and is answered by ``outputs``. The literals
NaN and Infinity are read and written, because this dialect's clients use them.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from headrace.core import errors
from headrace.core.models import Signature
from headrace.core.requests import InferenceRequest, InferenceResponse
from headrace.core.tensors import DType, Tensor
from headrace.protocols import http_status, json_elements, tabular
from headrace.protocols.json_sources import Source
from headrace.protocols.protocol import Rendering, Reply

NAME = "v1"

render_error = http_status.error_reply

ROWS = "instances"
COLUMNS = "inputs"


_ABSENT = msgspec.Raw(b"null")


class _Body(msgspec.Struct, gc=False):
    instances: msgspec.Raw = _ABSENT
    inputs: msgspec.Raw = _ABSENT


_decode = msgspec.json.Decoder(_Body).decode
_encode = msgspec.json.Encoder().encode
_LITERAL = re.compile(rb"NaN|Infinity")
_JSON_TYPE = http_status.JSON_TYPE


def parse_request(body: bytes, json_size: int | None, signature: Signature) -> tuple[InferenceRequest, Rendering]:
    """Decode a complete body; ``json_size`` is not used. Raises InvalidInput that names row and column.

    ``rendering.detail`` is the form of the request, which decides the form of the answer."""
    try:
        form, source = _typed_source(body)
        table = tabular.table(signature, literals=source.raw is None)
        tensors = table.rows(source) if form == ROWS else table.columns(source)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        json_elements.refuse_malformed(error, body)
    return InferenceRequest(tensors), Rendering(detail=form)


def _typed_source(body: bytes) -> tuple[str, Source]:
    try:
        parsed = _decode(body)
    except msgspec.ValidationError as error:
        raise errors.InvalidInput(f"the body is not valid: {json_elements.problem(error).what}") from None
    except msgspec.DecodeError:
        if not _LITERAL.search(body):
            raise
        return _literal_source(body)
    form = _form(parsed.instances != _ABSENT, parsed.inputs != _ABSENT)
    return form, Source(parsed.instances if form == ROWS else parsed.inputs)


def _literal_source(body: bytes) -> tuple[str, Source]:
    """A body with NaN or Infinity: the standard library reads them."""
    text = body.decode()
    try:
        parsed = json.loads(text)
    except ValueError as error:  # malformed, or an integer of thousands of digits
        raise errors.InvalidInput(f"the body is not valid JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise errors.InvalidInput("the body is not valid: expected object")
    form = _form(parsed.get(ROWS) is not None, parsed.get(COLUMNS) is not None)
    return form, Source(None, parsed[form])


def _form(rows: bool, columns: bool) -> str:
    if rows == columns:
        which = "both 'instances' and 'inputs' are" if rows else "neither 'instances' nor 'inputs' is"
        raise errors.InvalidInput(f"{which} given; send one of them")
    return ROWS if rows else COLUMNS


def render_response(response: InferenceResponse, rendering: Rendering, signature: Signature) -> Reply:
    """``predictions`` by row or ``outputs`` by name, after the form of the request.

    Raises InvalidInput when outputs of different length cannot be put in rows."""
    columns = [_values(tensor) for tensor in response.outputs]
    document: dict[str, Any]
    if rendering.detail == COLUMNS:
        names = [tensor.name for tensor in response.outputs]
        document = {"outputs": columns[0] if len(columns) == 1 else dict(zip(names, columns, strict=True))}
    else:
        document = {"predictions": _rows(response.outputs, columns)}
    body = _encode(document)
    if body.find(b"null") >= 0:  # how msgspec writes NaN and the infinities; no other value gives null
        body = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    return Reply(200, [_JSON_TYPE], body)


def _rows(outputs: Sequence[Tensor], columns: list[Any]) -> list[Any]:
    if len(outputs) == 1:
        rows: list[Any] = columns[0] if outputs[0].array.ndim else columns
        return rows
    lengths = {tensor.array.shape[0] if tensor.array.ndim else None for tensor in outputs}
    if None in lengths or len(lengths) > 1:
        shapes = ", ".join(f"{tensor.name!r} {list(tensor.shape)}" for tensor in outputs)
        raise errors.InvalidInput(f"the outputs {shapes} have no rows in common; send 'inputs' to get them by name")
    names = [tensor.name for tensor in outputs]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(tensor: Tensor) -> Any:
    """Nested lists in the tensor's shape. Bytes are text, or base64 when the name or the content asks for it."""
    if tensor.dtype is not DType.BYTES:
        return json_elements.to_list(tensor.dtype, tensor.array)
    flat: list[bytes] = tensor.array.ravel().tolist()
    shown: list[Any]
    try:
        if tensor.name.endswith("_bytes"):  # TF Serving's convention
            raise ValueError
        shown = [item.decode() for item in flat]
    except ValueError:
        shown = [{"b64": base64.b64encode(item).decode()} for item in flat]
    out = np.empty(len(shown), dtype=object)
    out[:] = shown
    return out.reshape(tensor.shape).tolist()


def render_list(names: Sequence[str], created: int = 0) -> dict[str, Any]:
    """``GET /v1/models`` for OpenAI, Anthropic and KServe readers at once. ``created`` is Unix time, seconds."""
    return {
        "object": "list",
        "data": [_card(name, created) for name in names],
        "models": list(names),
        "has_more": False,
        "first_id": names[0] if names else None,
        "last_id": names[-1] if names else None,
    }


class VersionStatus(msgspec.Struct, frozen=True):
    """A version as TF Serving reports it. ``state`` is START, LOADING, AVAILABLE, UNLOADING or END."""

    version: str
    state: str
    message: str = ""


def render_model(name: str, ready: bool, versions: Sequence[VersionStatus], created: int = 0) -> dict[str, Any]:
    """``GET /v1/models/{m}`` for the same readers and TF Serving's. Answer 503 instead while it is not ready."""
    return _card(name, created) | {
        "name": name,
        "ready": ready,
        "model_version_status": [
            {
                "version": item.version,
                "state": item.state,
                "status": {"error_code": "UNKNOWN" if item.message else "OK", "error_message": item.message},
            }
            for item in versions
        ],
    }


def _card(name: str, created: int) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "headrace",
        "type": "model",
        "display_name": name,
        "created_at": _rfc3339(created),
    }


def _rfc3339(seconds: int) -> str:
    return f"{np.datetime64(seconds, 's')}Z"
