"""Open Inference Protocol bodies with the binary tensor extension, from the caller's side. Sans-IO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from headrace.core import errors
from headrace.core.requests import Parameter
from headrace.core.tensors import (
    NUMPY_DTYPES,
    Array,
    DType,
    Tensor,
    as_bytes_elements,
    bf16_to_fp32,
    fp32_to_bf16,
    from_wire,
    to_wire,
)

LENGTH_HEADER = "inference-header-content-length"
_FALLBACK_HEADER = "x-headrace-fallback"

_encoder = msgspec.json.Encoder()


class _WireOutput(msgspec.Struct):
    name: str
    datatype: DType
    shape: tuple[int, ...]
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class _WireResponse(msgspec.Struct):
    model_name: str = ""
    model_version: str = ""
    outputs: list[_WireOutput] = []


class Prediction(msgspec.Struct, frozen=True):
    """An answer: outputs by name, and which version gave it."""

    model: str
    version: str
    outputs: dict[str, Array]
    datatypes: dict[str, DType] = {}
    """Of the outputs, as they came: BF16 arrives as an array of float32, BYTES as one of str where they are UTF-8."""
    fallback: str = ""
    """What answered instead of the deployment that was asked: another one's name, or ``constant``."""

    def tensors(self) -> list[Tensor]:
        """The outputs as they came, typed."""
        return [_tensor(name, self.datatypes[name], array) for name, array in self.outputs.items()]


def _tensor(name: str, dtype: DType, array: Array) -> Tensor:
    match dtype:
        case DType.BYTES:
            return Tensor(name, dtype, as_bytes_elements(array))
        case DType.BF16:
            return Tensor(name, dtype, fp32_to_bf16(array))
        case _:
            return Tensor(name, dtype, array)


def encode_request(
    tensors: Sequence[Tensor], parameters: Mapping[str, Parameter], outputs: Sequence[str] | None
) -> tuple[dict[str, str], bytes]:
    """Headers and body of an inference request; all tensors and all outputs travel as raw bytes."""
    buffers = [to_wire(tensor) for tensor in tensors]
    document: dict[str, Any] = {
        "inputs": [
            {
                "name": tensor.name,
                "datatype": tensor.dtype.value,
                "shape": tensor.shape,
                "parameters": {"binary_data_size": len(buffer)},
            }
            for tensor, buffer in zip(tensors, buffers, strict=True)
        ],
        "parameters": {**parameters, "binary_data_output": True},
    }
    if outputs is not None:
        document["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
    head = _encoder.encode(document)
    headers = {"content-type": "application/octet-stream", LENGTH_HEADER: str(len(head))}
    return headers, b"".join([head, *buffers])


def decode_response(headers: Mapping[str, str], body: bytes) -> Prediction:
    """Outputs of an answer, in either form. Raises Unsupported when the server does not speak the protocol."""
    try:
        length = headers.get(LENGTH_HEADER)
        split = len(body) if length is None else int(length)
        document = msgspec.json.decode(body[:split], type=_WireResponse)
        outputs, at = {}, split
        for output in document.outputs:
            size = output.parameters.get("binary_data_size")
            if size is None:
                outputs[output.name] = _from_json(output)
            else:
                outputs[output.name] = _from_bytes(output, body[at : at + size])
                at += size
    except (msgspec.DecodeError, ValueError, TypeError, errors.InvalidInput) as error:
        raise errors.Unsupported(f"the server's answer is not a valid inference response: {error}") from error
    datatypes = {output.name: output.datatype for output in document.outputs}
    fallback = headers.get(_FALLBACK_HEADER, "")
    return Prediction(document.model_name, document.model_version, outputs, datatypes, fallback)


def _from_bytes(output: _WireOutput, buffer: bytes) -> Array:
    array = from_wire(output.datatype, output.shape, buffer)
    if output.datatype is DType.BYTES:
        return _as_text(array)
    # A view on the body would be read-only and keep the whole body alive.
    return bf16_to_fp32(array) if output.datatype is DType.BF16 else array.copy()


def _from_json(output: _WireOutput) -> Array:
    if output.data is None:
        raise ValueError(f"output {output.name!r} has no data")
    if output.datatype is DType.BF16:
        return np.array(output.data, dtype=np.float32).reshape(output.shape)
    if output.datatype is DType.BYTES:
        array = np.empty(len(output.data), dtype=object)
        array[:] = output.data
        return array.reshape(output.shape)
    data = [np.nan if item is None else item for item in output.data] if None in output.data else output.data
    return np.array(data, dtype=NUMPY_DTYPES[output.datatype]).reshape(output.shape)


def _as_text(array: Array) -> Array:
    """Elements as str when all of them are UTF-8; else the bytes as they are."""
    try:
        decoded = [item.decode() for item in array.ravel()]
    except UnicodeDecodeError:
        return array
    text = np.empty(len(decoded), dtype=object)
    text[:] = decoded
    return text.reshape(array.shape)
