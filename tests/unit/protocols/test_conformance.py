"""One logical request through every protocol gives equal tensors; one response gives equal values back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headrace.core import binding
from headrace.core.models import Signature, TensorSpec
from headrace.core.requests import InferenceRequest, InferenceResponse
from headrace.core.tensors import NUMPY_DTYPES, Array, DType, Tensor, bf16_to_fp32, fp32_to_bf16, to_wire, unpack_bytes
from headrace.protocols import kserve_v1, oip_generate, oip_grpc, oip_rest
from headrace.protocols.proto import open_inference_pb2 as pb
from headrace.protocols.protocol import Rendering, Reply

Logical = dict[str, Tensor]
Parse = Callable[[Logical, Signature], tuple[InferenceRequest, Rendering]]

TYPED_FIELDS = {
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
HALVES = (DType.FP16, DType.BF16)


def json_values(tensor: Tensor) -> Any:
    array = bf16_to_fp32(tensor.array) if tensor.dtype is DType.BF16 else tensor.array
    if tensor.dtype is DType.BYTES:
        texts = np.empty(array.size, object)
        texts[:] = [item.decode() for item in array.ravel()]
        return texts.reshape(array.shape).tolist()
    return array.tolist()


def oip_json(logical: Logical, signature: Signature) -> tuple[InferenceRequest, Rendering]:
    inputs = [{"name": t.name, "shape": t.shape, "datatype": t.dtype, "data": json_values(t)} for t in logical.values()]
    return oip_rest.parse_request(json.dumps({"inputs": inputs}).encode(), None, signature)


def oip_binary(logical: Logical, signature: Signature) -> tuple[InferenceRequest, Rendering]:
    parts = [bytes(to_wire(tensor)) for tensor in logical.values()]
    inputs = [
        {"name": t.name, "shape": t.shape, "datatype": t.dtype, "parameters": {"binary_data_size": len(part)}}
        for t, part in zip(logical.values(), parts, strict=True)
    ]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    return oip_rest.parse_request(head + b"".join(parts), len(head), signature)


def grpc_raw(logical: Logical, signature: Signature) -> tuple[InferenceRequest, Rendering]:
    message = pb.ModelInferRequest(model_name="m")
    for tensor in logical.values():
        message.inputs.add(name=tensor.name, datatype=tensor.dtype, shape=tensor.shape)
        message.raw_input_contents.append(bytes(to_wire(tensor)))
    return oip_grpc.to_request(oip_grpc.decode_infer(message.SerializeToString()), signature)


def grpc_typed(logical: Logical, signature: Signature) -> tuple[InferenceRequest, Rendering]:
    message = pb.ModelInferRequest(model_name="m")
    for tensor in logical.values():
        item = message.inputs.add(name=tensor.name, datatype=tensor.dtype, shape=tensor.shape)
        getattr(item.contents, TYPED_FIELDS[tensor.dtype]).extend(tensor.array.ravel().tolist())
    return oip_grpc.to_request(oip_grpc.decode_infer(message.SerializeToString()), signature)


def v1_rows(logical: Logical, signature: Signature) -> tuple[InferenceRequest, Rendering]:
    columns = {name: json_values(tensor) for name, tensor in logical.items()}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return kserve_v1.parse_request(json.dumps({"instances": rows}).encode(), None, signature)


def v1_columns(logical: Logical, signature: Signature) -> tuple[InferenceRequest, Rendering]:
    columns = {name: json_values(tensor) for name, tensor in logical.items()}
    return kserve_v1.parse_request(json.dumps({"inputs": columns}).encode(), None, signature)


def generate(logical: Logical, signature: Signature) -> tuple[InferenceRequest, Rendering]:
    body = {name: json_values(tensor) for name, tensor in logical.items()}
    return oip_generate.parse_generate(json.dumps(body).encode(), signature)


BINARY: list[Parse] = [oip_binary, grpc_raw]
TEXTUAL: list[Parse] = [oip_json, grpc_typed]
PLAIN: list[Parse] = [v1_rows, v1_columns, generate]


def elements(dtype: DType) -> st.SearchStrategy[Any]:
    if dtype is DType.BYTES:
        return st.text(max_size=5).map(str.encode)
    if dtype in HALVES:
        return st.floats(-1000, 1000, width=16)
    kind = NUMPY_DTYPES[dtype]
    return hnp.from_dtype(kind, allow_nan=False, allow_infinity=False)


@st.composite
def requests(draw: st.DrawFn) -> tuple[Signature, Logical]:
    """Up to four inputs of any datatype and inner shape, one to three rows."""
    rows = draw(st.integers(1, 3))
    specs: list[TensorSpec] = []
    logical: Logical = {}
    for at in range(draw(st.integers(1, 4))):
        dtype = draw(st.sampled_from(list(DType)))
        inner = draw(st.lists(st.integers(1, 3), max_size=2).map(tuple))
        kind = object if dtype is DType.BYTES else np.float32 if dtype is DType.BF16 else NUMPY_DTYPES[dtype]
        array = draw(hnp.arrays(kind, (rows, *inner), elements=elements(dtype), fill=st.nothing()))
        name = f"in {at}"
        specs.append(TensorSpec(name, dtype, (-1, *inner)))
        logical[name] = Tensor(name, dtype, fp32_to_bf16(array) if dtype is DType.BF16 else array)
    return Signature(tuple(specs), ()), logical


def same(found: Array, expected: Array) -> bool:
    if expected.dtype == object:
        return found.dtype == object and found.shape == expected.shape and found.tolist() == expected.tolist()
    return found.dtype == expected.dtype and found.shape == expected.shape and found.tobytes() == expected.tobytes()


@given(requests())
def test_every_protocol_decodes_to_the_same_tensors(given_request: tuple[Signature, Logical]) -> None:
    signature, logical = given_request
    halves = any(tensor.dtype in HALVES for tensor in logical.values())
    for parse in [*BINARY, *PLAIN, *([] if halves else TEXTUAL)]:
        request, _ = parse(logical, signature)
        bound = binding.bind(signature, request.tensors, request.parameters)
        assert bound.names == tuple(logical), parse.__name__
        for name, array in zip(bound.names, bound.arrays, strict=True):
            expected = logical[name].array
            assert same(array, expected), (parse.__name__, name, array, expected)


def read_json(reply: Reply, logical: Logical) -> dict[str, Array]:
    found = {}
    for output in json.loads(reply.body)["outputs"]:
        data = [v.encode() for v in output["data"]] if output["datatype"] == "BYTES" else output["data"]
        array = np.empty(len(data), object) if output["datatype"] == "BYTES" else np.empty(
            len(data), NUMPY_DTYPES[output["datatype"]]
        )  # fmt: skip
        array[:] = data
        found[output["name"]] = array.reshape(output["shape"])
    return found


def from_bytes(datatype: str, shape: list[int], part: bytes) -> Array:
    if datatype == "BYTES":
        return unpack_bytes(part, tuple(shape))
    return np.frombuffer(part, NUMPY_DTYPES[datatype]).reshape(shape)


def read_binary(reply: Reply, logical: Logical) -> dict[str, Array]:
    size = int(dict(reply.headers)[oip_rest.HEADER_LENGTH])
    found, at = {}, size
    for output in json.loads(reply.body[:size])["outputs"]:
        end = at + output["parameters"]["binary_data_size"]
        found[output["name"]] = from_bytes(output["datatype"], output["shape"], reply.body[at:end])
        at = end
    assert at == len(reply.body)
    return found


def read_grpc(body: bytes) -> dict[str, Array]:
    message = pb.ModelInferResponse.FromString(body)
    found: dict[str, Array] = {}
    for at, output in enumerate(message.outputs):
        if message.raw_output_contents:
            found[output.name] = from_bytes(output.datatype, list(output.shape), message.raw_output_contents[at])
            continue
        values = list(getattr(output.contents, TYPED_FIELDS[output.datatype]))
        array = np.empty(len(values), NUMPY_DTYPES[output.datatype])
        array[:] = values
        found[output.name] = array.reshape(tuple(output.shape))
    return found


@given(requests())
def test_every_protocol_encodes_the_same_values(given_request: tuple[Signature, Logical]) -> None:
    signature, logical = given_request
    response = InferenceResponse("m", "1", list(logical.values()))
    halves = any(tensor.dtype in HALVES for tensor in logical.values())
    answers = {
        "binary": read_binary(
            oip_rest.render_response(response, oip_binary(logical, signature)[1], signature), logical
        ),
        "raw": read_grpc(oip_grpc.from_response(response, grpc_raw(logical, signature)[1])),
    }
    if not halves:
        answers["json"] = read_json(
            oip_rest.render_response(response, oip_json(logical, signature)[1], signature), logical
        )
        answers["typed"] = read_grpc(oip_grpc.from_response(response, grpc_typed(logical, signature)[1]))
    for how, found in answers.items():
        assert list(found) == list(logical)
        for name, tensor in logical.items():
            assert same(found[name], tensor.array), (how, name)
    columns = json.loads(kserve_v1.render_response(response, Rendering(detail="inputs"), signature).body)["outputs"]
    rows = json.loads(kserve_v1.render_response(response, Rendering(detail="instances"), signature).body)["predictions"]
    if len(logical) == 1:
        (tensor,) = logical.values()
        assert columns == rows == json_values(tensor)
    else:
        assert columns == {name: json_values(tensor) for name, tensor in logical.items()}
        assert rows == [{name: json_values(tensor)[at] for name, tensor in logical.items()} for at in range(len(rows))]


@pytest.mark.parametrize("parse", [oip_json, oip_binary, grpc_raw, grpc_typed, v1_rows, v1_columns])
def test_the_same_mistake_is_refused_everywhere(parse: Parse) -> None:
    signature = Signature((TensorSpec("x", DType.FP32, (-1, 3)),), ())
    logical = {"x": Tensor("x", DType.FP32, np.zeros((2, 4), np.float32))}
    request, _ = parse(logical, signature)
    with pytest.raises(binding.errors.InvalidInput, match=r"input 'x': expected shape \[-1, 3\].*got \[2, 4\]"):
        binding.bind(signature, request.tensors, {})
