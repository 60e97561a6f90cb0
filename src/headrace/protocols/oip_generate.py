"""Triton's generate extension: plain JSON in and out for text models, one document or server-sent events.

A key that names an input becomes a tensor, every other key a request parameter.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.core import errors
from headrace.core.errors import HeadraceError
from headrace.core.models import Signature, TensorSpec
from headrace.core.requests import InferenceRequest, InferenceResponse
from headrace.core.tensors import DType, Tensor
from headrace.protocols import http_status, json_elements, request_parameters, untyped
from headrace.protocols.protocol import Rendering, Reply

EVENT_STREAM_TYPE = (b"content-type", b"text/event-stream; charset=utf-8")

_ASK_INFER = "use infer with binary data"

_decoder = msgspec.json.Decoder(dict[str, Any])


def parse_generate(body: bytes, signature: Signature) -> tuple[InferenceRequest, Rendering]:
    """Decode a body of ``generate`` or ``generate_stream``. Raises InvalidInput."""
    try:
        given = _decoder.decode(body)
    except msgspec.ValidationError as error:
        problem = json_elements.problem(error)
        raise errors.InvalidInput(f"the body is not valid: {problem.what}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        json_elements.refuse_malformed(error, body)
    nested = given.pop("parameters", None)
    if nested is not None and not isinstance(nested, dict):
        raise errors.InvalidInput(f"parameters: expected an object, got {nested!r:.80}")
    specs = {spec.name: spec for spec in signature.inputs}
    identity = None if "id" in specs else given.pop("id", None)
    if identity is not None and not isinstance(identity, str):
        raise errors.InvalidInput(f"id: expected a string, got {identity!r:.80}")
    tensors: list[Tensor] = []
    parameters: dict[str, Any] = {}
    for name, value in (given | (nested or {})).items():
        if value is None:
            continue
        if name in specs:
            tensors.append(_tensor(specs[name], value, signature.batchable))
        elif signature.any_inputs and name in given:
            tensors.append(_guessed(name, value))
        else:
            parameters[name] = value
    return InferenceRequest(tensors, identity, request_parameters.scalars(parameters)), Rendering()


def _tensor(spec: TensorSpec, value: Any, batchable: bool) -> Tensor:
    values = untyped.flatten(value)
    try:
        checked = msgspec.convert(values, json_elements.nested(json_elements.ELEMENT[spec.dtype]))
        array = json_elements.to_array(spec.dtype, checked)
    except msgspec.ValidationError as error:
        problem = json_elements.problem(error)
        what = problem.what.replace(" or array", "")
        raise errors.InvalidInput(f"input {spec.name!r} {spec.dtype}: {what}") from None
    except OverflowError:
        raise errors.InvalidInput(f"input {spec.name!r}: an integer is out of range of {spec.dtype}") from None
    return Tensor(spec.name, spec.dtype, untyped.fill(spec, array, batchable))


def _guessed(name: str, value: Any) -> Tensor:
    dtype, array = untyped.guess(name, value)
    return Tensor(name, dtype, array if array.ndim else array.reshape(1))


def render_generate(response: InferenceResponse) -> Reply:
    """The answer of ``generate``. Raises InvalidInput for outputs that JSON cannot hold."""
    return Reply(200, [http_status.JSON_TYPE], _document(response))


def render_generate_event(response: InferenceResponse) -> bytes:
    """One server-sent event of ``generate_stream``. Raises InvalidInput like ``render_generate``."""
    return b"data: %b\n\n" % _document(response)


def render_generate_error_event(error: HeadraceError) -> bytes:
    """The event for an error after the first chunk, when the status line has gone. Never raises."""
    return b"data: %b\n\n" % http_status.error_body(error.message)


def _document(response: InferenceResponse) -> bytes:
    document: dict[str, Any] = {} if response.id is None else {"id": response.id}
    document["model_name"] = response.model_name
    document["model_version"] = response.model_version
    for tensor in response.outputs:
        if json_elements.has_nonfinite(tensor.dtype, tensor.array):
            raise errors.InvalidInput(f"output {tensor.name!r}: NaN and infinity have no JSON form; {_ASK_INFER}")
        values = json_elements.to_list(tensor.dtype, tensor.array.ravel())
        if tensor.dtype is DType.BYTES:
            values = json_elements.texts(tensor.name, values, _ASK_INFER)
        document[tensor.name] = values[0] if len(values) == 1 else values
    return msgspec.json.encode(document)
