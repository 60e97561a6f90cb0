"""Open Inference Protocol v2 over REST: JSON, the binary tensor extension and raw requests.

The JSON part is typed (``oip_body.py``); binary tensors stay views on the body. Answers that JSON cannot hold (FP16,
BF16, NaN, bytes that are no text) are the caller's to fix by asking for binary outputs, so they are InvalidInput.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from headrace.core import errors, tensors
from headrace.core.models import Signature
from headrace.core.requests import InferenceRequest, InferenceResponse, Parameter
from headrace.core.tensors import DType, Tensor
from headrace.protocols import (
    http_status,
    json_elements,
    oip_body,
    oip_documents,
    oip_generate,
    oip_raw,
    outputs,
    raw_tensors,
    request_parameters,
)
from headrace.protocols.oip_body import InputTensor, RequestedOutput
from headrace.protocols.protocol import Rendering, Reply

NAME = "oip-rest"

HEADER_LENGTH = b"inference-header-content-length"
"""Header that holds the size of the JSON part when binary tensors follow it."""

_JSON_TYPE = http_status.JSON_TYPE
_BINARY_TYPE = (b"content-type", b"application/octet-stream")
_encode = msgspec.json.Encoder().encode

render_error = http_status.error_reply
render_server_metadata = oip_documents.server_metadata
render_model_metadata = oip_documents.model_metadata
render_model_config = oip_documents.model_config
render_statistics = oip_documents.statistics
render_index = oip_documents.repository_index
render_health = oip_documents.health
render_model_ready = oip_documents.model_ready
render_model_list = oip_documents.model_list
parse_index = oip_documents.parse_index
parse_generate = oip_generate.parse_generate
render_generate = oip_generate.render_generate
render_generate_event = oip_generate.render_generate_event
render_generate_error_event = oip_generate.render_generate_error_event


def parse_request(body: bytes, json_size: int | None, signature: Signature) -> tuple[InferenceRequest, Rendering]:
    """Decode a complete body. Raises InvalidInput or Unsupported (shared memory)."""
    if json_size is None:
        parsed, binary = oip_body.decode(body), None
    elif json_size == 0:
        return oip_raw.parse_raw(body, signature)
    else:
        if not 0 < json_size <= len(body):
            raise errors.InvalidInput(f"Inference-Header-Content-Length is {json_size}, the body has {len(body)} bytes")
        view = memoryview(body)
        parsed, binary = oip_body.decode(view[:json_size]), _BinaryPart(view[json_size:])
    found = [_tensor(item, binary) for item in parsed.inputs]
    if binary is not None:
        binary.finish()
    request = InferenceRequest(found, parsed.id)
    rendering = Rendering()
    if parsed.parameters:
        request.parameters = _parameters(parsed.parameters, rendering)
    if parsed.outputs:
        _request_outputs(parsed.outputs, rendering, signature)
        request.outputs = rendering.wanted
    return request, rendering


class _BinaryPart:
    """The bytes after the JSON part, taken tensor by tensor."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def take(self, name: str, size: int) -> memoryview:
        end = self._at + size
        if end > len(self._view):
            raise errors.InvalidInput(
                f"input {name!r}: binary_data_size is {size}, the body has {len(self._view) - self._at} bytes left"
            )
        part = self._view[self._at : end]
        self._at = end
        return part

    def finish(self) -> None:
        left = len(self._view) - self._at
        if left:
            raise errors.InvalidInput(f"{left} bytes of the body belong to no input")


def _tensor(item: InputTensor, binary: _BinaryPart | None) -> Tensor:
    if item.parameters:
        size = _binary_size(item)
        if size is not None:
            return _binary_tensor(item, size, binary)
    if item.data is None:
        raise errors.InvalidInput(f"input {item.name!r}: neither data nor parameters.binary_data_size is given")
    try:
        if item.numeric is not None:
            return Tensor(item.name, item.dtype, np.array(item.data, item.numeric).reshape(item.shape))
        return Tensor(item.name, item.dtype, json_elements.to_array(item.dtype, item.data).reshape(item.shape))
    except OverflowError:
        raise errors.InvalidInput(f"input {item.name!r}: data holds an integer out of range of {item.dtype}") from None
    except ValueError:
        _refuse_shape(item)
        raise


def _refuse_shape(item: InputTensor) -> None:
    try:
        got = json_elements.to_array(item.dtype, item.data).size
    except ValueError:
        raise errors.InvalidInput(f"input {item.name!r}: the nested lists of data have different lengths") from None
    json_elements.refuse_count(item.name, item.shape, got)


def _binary_size(item: InputTensor) -> int | None:
    parameters = item.parameters or {}
    request_parameters.refuse_shared_memory(parameters)
    if parameters.get("binary_data_size") is None:
        return None
    size = request_parameters.count(parameters, "binary_data_size")
    if item.data is not None:
        raise errors.InvalidInput(f"input {item.name!r}: both data and binary_data_size are given; send one")
    return size


def _binary_tensor(item: InputTensor, size: int, binary: _BinaryPart | None) -> Tensor:
    if binary is None and size == 0:
        # kserve sends empty tensors so: nothing to frame, hence no header.
        return raw_tensors.read(item.name, item.dtype, tuple(item.shape), b"")
    if binary is None:
        raise errors.InvalidInput(
            f"input {item.name!r}: binary_data_size is given, but the header Inference-Header-Content-Length is not"
        )
    return raw_tensors.read(item.name, item.dtype, tuple(item.shape), binary.take(item.name, size))


def _parameters(given: dict[str, Any], rendering: Rendering) -> dict[str, Parameter]:
    parameters = request_parameters.scalars(given)
    if "binary_data_output" in parameters:
        rendering.binary_default = request_parameters.flag(parameters, "binary_data_output")
        del parameters["binary_data_output"]
    return parameters


def _request_outputs(requested: list[RequestedOutput], rendering: Rendering, signature: Signature) -> None:
    rendering.wanted = outputs.check_wanted([item.name for item in requested], signature)
    binary: dict[str, bool] = {}
    classification: dict[str, int] = {}
    for item in requested:
        if not item.parameters:
            continue
        request_parameters.refuse_shared_memory(item.parameters)
        if item.parameters.get("binary_data") is not None:
            binary[item.name] = request_parameters.flag(item.parameters, "binary_data")
        top = outputs.classification_of(item.name, item.parameters)
        if top:
            classification[item.name] = top
    rendering.binary = binary or None
    rendering.classification = classification or None


class _Output(msgspec.Struct, gc=False, omit_defaults=True):
    name: str
    datatype: DType
    shape: tuple[int, ...]
    parameters: dict[str, int] | None = None
    data: list[Any] | None = None


class _Document(msgspec.Struct, gc=False, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: list[_Output]
    id: str | None = None
    parameters: dict[str, Any] | None = None


def render_response(response: InferenceResponse, rendering: Rendering, signature: Signature) -> Reply:
    """Body and headers of a response. Raises InvalidInput when an output cannot be sent as JSON."""
    chosen = response.outputs
    if rendering.wanted is not None:
        chosen = outputs.select(response, rendering, signature)
    binary: list[bytes | memoryview] = []
    rendered = [_render_output(tensor, rendering, binary) for tensor in chosen]
    head = _encode(
        _Document(response.model_name, response.model_version, rendered, response.id, response.parameters or None)
    )
    if head.find(b"null") >= 0:  # how msgspec writes NaN and the infinities
        _refuse_nonfinite(chosen, rendering)
    if not binary or not any(map(len, binary)):
        # Zero-length binary outputs need no framing: Triton omits the header as well.
        return Reply(200, [_JSON_TYPE], head)
    return Reply(200, [_BINARY_TYPE, (HEADER_LENGTH, b"%d" % len(head))], b"".join([head, *binary]))


def _render_output(tensor: Tensor, rendering: Rendering, binary: list[bytes | memoryview]) -> _Output:
    as_binary = rendering.binary_default
    if rendering.binary is not None:
        as_binary = rendering.binary.get(tensor.name, as_binary)
    if as_binary:
        part = tensors.to_wire(tensor)
        binary.append(part)
        return _Output(tensor.name, tensor.dtype, tensor.array.shape, {"binary_data_size": len(part)})
    dtype, array = tensor.dtype, tensor.array
    values = array.ravel().tolist()
    if dtype is _BYTES:
        values = json_elements.texts(tensor.name, values, _ASK_BINARY)
    elif dtype is _FP16 or dtype is _BF16:
        raise errors.InvalidInput(f"output {tensor.name!r}: {dtype} has no JSON form; {_ASK_BINARY}")
    return _Output(tensor.name, dtype, array.shape, None, values)


# Enum members are slow to look up; these are compared for every output.
_BYTES, _FP16, _BF16 = DType.BYTES, DType.FP16, DType.BF16

_ASK_BINARY = 'ask for it as binary data (parameters {"binary_data": true} of the requested output)'


def _refuse_nonfinite(chosen: list[Tensor], rendering: Rendering) -> None:
    for tensor in chosen:
        as_binary = (rendering.binary or {}).get(tensor.name, rendering.binary_default)
        if not as_binary and json_elements.has_nonfinite(tensor.dtype, tensor.array):
            raise errors.InvalidInput(f"output {tensor.name!r}: NaN and infinity have no JSON form; {_ASK_BINARY}")
