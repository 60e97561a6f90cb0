"""Open Inference Protocol v2 over gRPC: messages ↔ InferenceRequest/InferenceResponse, with Triton's extensions.

Tensors come raw (``raw_input_contents``) or typed (``contents``), never mixed; an answer is raw when the request was
raw, because tritonclient reads nothing else. Framing is ``grpc_frames.py``, status is ``grpc_status.py``, documents
about models are ``oip_grpc_documents.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from headrace.core import errors, tensors
from headrace.core.errors import HeadraceError
from headrace.core.models import Signature
from headrace.core.requests import InferenceRequest, InferenceResponse
from headrace.core.tensors import NUMPY_DTYPES, DType, Tensor
from headrace.protocols import grpc_messages, outputs, raw_tensors, request_parameters
from headrace.protocols.proto import open_inference_pb2 as pb
from headrace.protocols.protocol import Rendering

NAME = "oip-grpc"

_DTYPES = {str(dtype): dtype for dtype in DType}

_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Where typed elements of each datatype stand; FP16 and BF16 have no typed form."""


class Detail(msgspec.Struct, gc=False):
    """What a response must know of its request (``Rendering.detail``)."""

    signature: Signature
    raw: bool
    empty_final: bool = False
    """The client wants each request on a stream to end with a response that says so."""


def decode_infer(body: bytes) -> pb.ModelInferRequest:
    """Parse a ModelInferRequest; ``model_name``, ``model_version`` and ``id`` are its fields. Raises InvalidInput."""
    return grpc_messages.parse(pb.ModelInferRequest, body)


def to_request(request: pb.ModelInferRequest, signature: Signature) -> tuple[InferenceRequest, Rendering]:
    """Tensors, parameters and requested outputs. Raises InvalidInput, or Unsupported for shared memory."""
    raw = request.raw_input_contents
    found = _raw_inputs(request.inputs, raw) if raw else [_typed_input(item) for item in request.inputs]
    detail = Detail(signature, bool(raw))
    rendering = Rendering(detail=detail)
    decoded = InferenceRequest(found, request.id or None)
    if request.parameters:
        parameters = request_parameters.scalars(_plain(request.parameters))
        detail.empty_final = request_parameters.flag(parameters, request_parameters.EMPTY_FINAL)
        parameters.pop(request_parameters.EMPTY_FINAL, None)
        parameters.pop("binary_data_output", None)  # kserve sends REST's switch here as well
        decoded.parameters = parameters
    if request.outputs:
        _request_outputs(request.outputs, rendering, signature)
        decoded.outputs = rendering.wanted
    return decoded, rendering


def _raw_inputs(inputs: Sequence[pb.ModelInferRequest.InferInputTensor], raw: Sequence[bytes]) -> list[Tensor]:
    entries = iter(raw)
    found = [_raw_input(item, next(entries, None)) for item in inputs]
    if len(raw) != len(found):
        raise errors.InvalidInput(f"{len(found)} inputs, but {len(raw)} entries in raw_input_contents")
    return found


def _raw_input(item: pb.ModelInferRequest.InferInputTensor, data: bytes | None) -> Tensor:
    if item.parameters:
        request_parameters.refuse_shared_memory(_plain(item.parameters))
    if item.HasField("contents"):
        raise errors.InvalidInput(
            f"input {item.name!r}: typed contents and raw_input_contents are mixed; send all inputs one way"
        )
    if data is None:
        raise errors.InvalidInput(f"input {item.name!r} has no entry in raw_input_contents")
    return raw_tensors.read(item.name, _dtype(item), tuple(item.shape), data)


def _dtype(item: pb.ModelInferRequest.InferInputTensor) -> DType:
    dtype = _DTYPES.get(item.datatype)
    if dtype is None:
        raise errors.InvalidInput(
            f"input {item.name!r}: datatype {item.datatype!r} is unknown; expected one of {', '.join(DType)}"
        )
    return dtype


def _typed_input(item: pb.ModelInferRequest.InferInputTensor) -> Tensor:
    if item.parameters:
        request_parameters.refuse_shared_memory(_plain(item.parameters))
    dtype = _dtype(item)
    field = _FIELDS.get(dtype)
    if field is None:
        raise errors.InvalidInput(f"input {item.name!r}: {dtype} has no typed form; use raw_input_contents")
    given = [descriptor.name for descriptor, _ in item.contents.ListFields()]
    if given and given != [field]:
        raise errors.InvalidInput(f"input {item.name!r}: {dtype} elements belong in {field}, got {', '.join(given)}")
    values = list(getattr(item.contents, field))
    shape = tuple(item.shape)
    try:
        expected = tensors.element_count(shape)
        if len(values) != expected:
            raise errors.InvalidInput(f"shape {list(shape)} takes {expected} elements, {field} has {len(values)}")
        return Tensor(item.name, dtype, _typed_array(dtype, values).reshape(shape))
    except errors.InvalidInput as error:
        raise errors.InvalidInput(f"input {item.name!r}: {error.message}") from None
    except ValueError as error:  # numpy's own limits: too many or too large dimensions
        raise errors.InvalidInput(f"input {item.name!r}: shape {list(shape)} is not possible: {error}") from None


def _typed_array(dtype: DType, values: list[Any]) -> tensors.Array:
    if dtype is DType.BYTES:
        out = np.empty(len(values), dtype=object)
        out[:] = values
        return out
    kind = NUMPY_DTYPES[dtype]
    if kind.itemsize >= 4 or dtype is DType.BOOL:
        return np.array(values, kind)
    wide = np.array(values, np.int64)  # 8- and 16-bit integers travel as 32-bit ones
    limits = np.iinfo(kind)
    beyond = wide[(wide < limits.min) | (wide > limits.max)]
    if beyond.size:
        raise errors.InvalidInput(f"{beyond[0]} is out of range of {dtype}")
    return wide.astype(kind)


def _plain(parameters: Mapping[str, pb.InferParameter]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        found[key] = None if choice is None else getattr(parameter, choice)
    return found


def _request_outputs(
    requested: Sequence[pb.ModelInferRequest.InferRequestedOutputTensor], rendering: Rendering, signature: Signature
) -> None:
    rendering.wanted = outputs.check_wanted([item.name for item in requested], signature)
    classification: dict[str, int] = {}
    for item in requested:
        if not item.parameters:
            continue
        parameters = _plain(item.parameters)
        request_parameters.refuse_shared_memory(parameters)
        top = outputs.classification_of(item.name, parameters)
        if top:
            classification[item.name] = top
    rendering.classification = classification or None


def from_response(response: InferenceResponse, rendering: Rendering) -> bytes:
    """A serialized ModelInferResponse. Raises InvalidInput for a requested output that is not there."""
    return _infer_response(pb.ModelInferResponse(), response, rendering).SerializeToString()


def stream_response(response: InferenceResponse, rendering: Rendering, final: bool = False) -> bytes:
    """A serialized ModelStreamInferResponse; ``final`` marks the last response of its request."""
    answer = pb.ModelStreamInferResponse()
    _infer_response(answer.infer_response, response, rendering)
    answer.infer_response.parameters[request_parameters.FINAL].bool_param = final
    return answer.SerializeToString()


def stream_error(error: HeadraceError, request_id: str | None = None) -> bytes:
    """An error of one request on a stream that stays open. Never raises."""
    text = error.message.encode("utf-8", "replace").decode()
    answer = pb.ModelStreamInferResponse(error_message=text or error.code)
    if request_id:
        answer.infer_response.id = request_id
    return answer.SerializeToString()


def empty_final_response(model_name: str, model_version: str, request_id: str | None = None) -> bytes:
    """The end of a request on a stream, without outputs: send it when ``Detail.empty_final`` asks for it."""
    answer = pb.ModelStreamInferResponse()
    answer.infer_response.model_name = model_name
    answer.infer_response.model_version = model_version
    if request_id:
        answer.infer_response.id = request_id
    answer.infer_response.parameters[request_parameters.FINAL].bool_param = True
    return answer.SerializeToString()


def wants_empty_final(rendering: Rendering) -> bool:
    """Whether the request asked for an empty final response on its stream."""
    return isinstance(rendering.detail, Detail) and rendering.detail.empty_final


def _infer_response(
    answer: pb.ModelInferResponse, response: InferenceResponse, rendering: Rendering
) -> pb.ModelInferResponse:
    detail: Detail = rendering.detail
    chosen = response.outputs
    if rendering.wanted is not None:
        chosen = outputs.select(response, rendering, detail.signature)
    answer.model_name = response.model_name
    answer.model_version = response.model_version
    if response.id:
        answer.id = response.id
    for key, value in response.parameters.items():
        _set_parameter(answer.parameters[key], key, value)
    # FP16 and BF16 exist only raw, and one response is of one kind.
    raw = detail.raw or not all(tensor.dtype in _FIELDS for tensor in chosen)
    for tensor in chosen:
        output = answer.outputs.add()
        output.name = tensor.name
        output.datatype = tensor.dtype
        output.shape.extend(tensor.array.shape)
        if not raw:
            getattr(output.contents, _FIELDS[tensor.dtype]).extend(tensor.array.ravel().tolist())
        elif tensor.dtype is DType.BYTES:
            answer.raw_output_contents.append(tensors.pack_bytes(tensor.array))
        else:
            answer.raw_output_contents.append(tensor.array.tobytes())
    return answer


def _set_parameter(parameter: pb.InferParameter, key: str, value: Any) -> None:
    match value:
        case bool():
            parameter.bool_param = value
        case int() if value >= 1 << 63:
            parameter.uint64_param = value
        case int():
            parameter.int64_param = value
        case float():
            parameter.double_param = value
        case str():
            parameter.string_param = value
        case _:
            raise errors.BadModelOutput(
                f"response parameter {key!r} is {type(value).__name__}; expected a string, number or boolean"
            )
