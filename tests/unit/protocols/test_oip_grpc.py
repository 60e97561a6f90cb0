"""Open Inference Protocol over gRPC: raw and typed tensors, parameters, outputs, streams, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as theirs

from headrace.core import errors
from headrace.core.models import Signature, TensorSpec
from headrace.core.requests import InferenceRequest, InferenceResponse
from headrace.core.tensors import NUMPY_DTYPES, DType, Tensor, to_wire
from headrace.protocols import oip_grpc
from headrace.protocols.proto import open_inference_pb2 as pb
from headrace.protocols.protocol import Rendering

SIGNATURE = Signature(
    inputs=(TensorSpec("x", DType.FP32, (-1, 2)),),
    outputs=(TensorSpec("label", DType.INT64, (-1,)), TensorSpec("p", DType.FP32, (-1, 2), labels=("no", "yes"))),
)

FIELDS = {
    "BOOL": ("bool_contents", [True, False]),
    "INT8": ("int_contents", [-128, 127]),
    "INT16": ("int_contents", [-(2**15), 2**15 - 1]),
    "INT32": ("int_contents", [-(2**31), 2**31 - 1]),
    "INT64": ("int64_contents", [-(2**63), 2**63 - 1]),
    "UINT8": ("uint_contents", [0, 255]),
    "UINT16": ("uint_contents", [0, 2**16 - 1]),
    "UINT32": ("uint_contents", [0, 2**32 - 1]),
    "UINT64": ("uint64_contents", [0, 2**64 - 1]),
    "FP32": ("fp32_contents", [0.5, -1.5]),
    "FP64": ("fp64_contents", [1e-300, 1e300]),
    "BYTES": ("bytes_contents", [b"\xff", b""]),
}


def typed(name: str = "x", datatype: str = "FP32", shape: tuple[int, ...] = (1, 2), **contents: list[Any]) -> Any:
    item = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(item.contents, field).extend(values)
    return item


def request(*inputs: Any, raw: tuple[bytes, ...] = (), **fields: Any) -> Any:
    return pb.ModelInferRequest(model_name="m", inputs=inputs, raw_input_contents=raw, **fields)


def convert(message: Any) -> tuple[InferenceRequest, Rendering]:
    return oip_grpc.to_request(oip_grpc.decode_infer(message.SerializeToString()), SIGNATURE)


def refused(message: Any, kind: type[errors.HeadraceError] = errors.InvalidInput) -> str:
    with pytest.raises(kind) as caught:
        convert(message)
    return caught.value.message


GOOD = typed(fp32_contents=[1.0, 2.0])


@pytest.mark.parametrize("datatype", FIELDS)
def test_typed_contents(datatype: str) -> None:
    field, values = FIELDS[datatype]
    decoded, rendering = convert(request(typed(datatype=datatype, **{field: values})))
    (tensor,) = decoded.tensors
    assert tensor.dtype is DType(datatype)
    assert tensor.array.dtype == NUMPY_DTYPES[datatype]
    assert tensor.array.tolist() == [values]
    assert not rendering.detail.raw


@pytest.mark.parametrize("datatype", FIELDS)
def test_typed_answers(datatype: str) -> None:
    field, values = FIELDS[datatype]
    array = np.empty((1, 2), object) if datatype == "BYTES" else np.empty((1, 2), NUMPY_DTYPES[datatype])
    array[0] = values
    _, rendering = convert(request(GOOD))
    response = InferenceResponse("m", "3", [Tensor("y", DType(datatype), array)], id="7", parameters={"a": 1})
    found = theirs.ModelInferResponse.FromString(oip_grpc.from_response(response, rendering))
    assert (found.model_name, found.model_version, found.id) == ("m", "3", "7")
    assert found.parameters["a"].int64_param == 1
    assert not found.raw_output_contents
    assert list(getattr(found.outputs[0].contents, field)) == values
    assert (found.outputs[0].datatype, list(found.outputs[0].shape)) == (datatype, [1, 2])


RAW = {DType(name): np.array([[1, 0]], NUMPY_DTYPES[name]) for name in FIELDS if name != "BYTES"} | {
    DType.FP16: np.array([[1, np.nan]], np.float16),
    DType.BF16: np.array([[0x3F80, 0x7FC0]], np.uint16),
    DType.BYTES: np.array([[b"a\xff", b""]], object),
}


@pytest.mark.parametrize("dtype", list(DType))
def test_raw_contents_both_ways(dtype: DType) -> None:
    wire = bytes(to_wire(Tensor("x", dtype, RAW[dtype])))
    decoded, rendering = convert(request(typed(datatype=dtype), raw=(wire,)))
    (tensor,) = decoded.tensors
    assert (tensor.dtype, tensor.array.dtype) == (dtype, NUMPY_DTYPES[dtype])
    assert rendering.detail.raw
    response = InferenceResponse("m", "3", [tensor, Tensor("z", DType.FP32, np.zeros((0, 2), np.float32))])
    found = theirs.ModelInferResponse.FromString(oip_grpc.from_response(response, rendering))
    assert list(found.raw_output_contents) == [wire, b""]
    assert not any(output.HasField("contents") for output in found.outputs)


@pytest.mark.parametrize("dtype", [DType.FP16, DType.BF16])
def test_half_precision_exists_only_raw(dtype: DType) -> None:
    assert refused(request(typed(datatype=dtype, fp32_contents=[1, 2]))) == (
        f"input 'x': {dtype} has no typed form; use raw_input_contents"
    )
    _, rendering = convert(request(GOOD))
    outputs = [Tensor("y", dtype, RAW[dtype]), Tensor("label", DType.INT64, np.array([1]))]
    found = theirs.ModelInferResponse.FromString(
        oip_grpc.from_response(InferenceResponse("m", "1", outputs), rendering)
    )
    assert [len(entry) for entry in found.raw_output_contents] == [4, 8]


def test_not_contiguous_outputs() -> None:
    array = np.arange(6, dtype=np.int64).reshape(2, 3).T
    for message in (request(GOOD), request(typed(), raw=(bytes(8),))):
        _, rendering = convert(message)
        serialized = oip_grpc.from_response(InferenceResponse("m", "1", [Tensor("y", DType.INT64, array)]), rendering)
        found = theirs.ModelInferResponse.FromString(serialized)
        values = (
            np.frombuffer(found.raw_output_contents[0], np.int64).tolist()
            if rendering.detail.raw
            else list(found.outputs[0].contents.int64_contents)
        )
        assert values == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (request(typed(datatype="FP31")), "input 'x': datatype 'FP31' is unknown; expected one of BOOL"),
        (request(typed(datatype="FP31"), raw=(b"",)), "input 'x': datatype 'FP31' is unknown"),
        (request(typed(fp32_contents=[1])), "input 'x': shape [1, 2] takes 2 elements, fp32_contents has 1"),
        (request(typed()), "input 'x': shape [1, 2] takes 2 elements, fp32_contents has 0"),
        (request(typed(fp64_contents=[1, 2])), "input 'x': FP32 elements belong in fp32_contents, got fp64_contents"),
        (request(typed(fp32_contents=[1, 2], int_contents=[1])), "got int_contents, fp32_contents"),
        (request(typed(datatype="INT8", int_contents=[1, 128])), "input 'x': 128 is out of range of INT8"),
        (request(typed(datatype="UINT16", uint_contents=[1, 65536])), "input 'x': 65536 is out of range of UINT16"),
        (request(typed(shape=(-1, 2), fp32_contents=[1, 2])), "input 'x': shape [-1, 2] has a negative dimension"),
        (request(typed(shape=(-1, 2)), raw=(bytes(8),)), "input 'x': shape [-1, 2] has a negative dimension"),
        (request(typed(shape=(1,) * 70, fp32_contents=[1])), "is not possible"),
        (request(typed(shape=(0, 2**62, 2**62))), "is not possible"),
        (request(typed(shape=(0, 2**62, 2**62)), raw=(b"",)), "is not possible"),
        (request(typed(), raw=(bytes(7),)), "input 'x': shape [1, 2] of FP32 takes 8 bytes, got 7"),
        (request(typed(), raw=(bytes(12),)), "input 'x': shape [1, 2] of FP32 takes 8 bytes, got 12"),
        (request(GOOD, raw=(bytes(8),)), "input 'x': typed contents and raw_input_contents are mixed"),
        (request(typed("a"), GOOD, raw=(bytes(8),)), "input 'x': typed contents and raw_input_contents are mixed"),
        (request(typed("a"), typed("b"), raw=(bytes(8),)), "input 'b' has no entry in raw_input_contents"),
        (request(typed(), raw=(bytes(8), b"")), "1 inputs, but 2 entries in raw_input_contents"),
        (request(raw=(b"",)), "0 inputs, but 1 entries"),
        (request(GOOD, outputs=[{"name": "q"}]), "unknown output 'q'; the model gives 'label', 'p'"),
        (request(GOOD, parameters={"triton_x": pb.InferParameter(int64_param=1)}), "reserved"),
    ],
)
def test_refused_requests(message: Any, words: str) -> None:
    assert words in refused(message)


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\x05ab", b"\x0a\x01\xff", b"\x2a\x02\x0a\x05"])
def test_malformed_messages(body: bytes) -> None:
    with pytest.raises(errors.InvalidInput, match="ModelInferRequest is malformed"):
        oip_grpc.decode_infer(body)


def test_shared_memory_is_unsupported() -> None:
    region = {"shared_memory_region": pb.InferParameter(string_param="r")}
    shared = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 2], parameters=region)
    assert "shared memory" in refused(request(shared), errors.Unsupported)
    assert "shared memory" in refused(request(shared, typed("y"), raw=(bytes(8),)), errors.Unsupported)
    output = pb.ModelInferRequest.InferRequestedOutputTensor(name="p", parameters=region)
    assert "shared memory" in refused(request(GOOD, outputs=[output]), errors.Unsupported)


def test_parameters_of_every_type() -> None:
    given = {
        "a": pb.InferParameter(bool_param=True),
        "b": pb.InferParameter(int64_param=-5),
        "c": pb.InferParameter(string_param="x"),
        "d": pb.InferParameter(double_param=0.5),
        "e": pb.InferParameter(uint64_param=2**64 - 1),
        "f": pb.InferParameter(),
    }
    decoded, rendering = convert(request(GOOD, parameters=given, id="9"))
    assert decoded.parameters == {"a": True, "b": -5, "c": "x", "d": 0.5, "e": 2**64 - 1}
    assert decoded.id == "9"
    response = InferenceResponse("m", "1", [], parameters=dict(decoded.parameters))
    found = theirs.ModelInferResponse.FromString(oip_grpc.from_response(response, rendering)).parameters
    assert {key: value.WhichOneof("parameter_choice") for key, value in found.items()} == {
        "a": "bool_param",
        "b": "int64_param",
        "c": "string_param",
        "d": "double_param",
        "e": "uint64_param",
    }
    assert convert(request(GOOD))[0].id is None


def test_response_parameters_are_scalars() -> None:
    _, rendering = convert(request(GOOD))
    with pytest.raises(errors.BadModelOutput, match="response parameter 'a' is list"):
        oip_grpc.from_response(InferenceResponse("m", "1", [], parameters={"a": []}), rendering)


def test_requested_outputs_and_classification() -> None:
    output = pb.ModelInferRequest.InferRequestedOutputTensor
    classified = output(name="p", parameters={"classification": pb.InferParameter(int64_param=1)})
    decoded, rendering = convert(request(GOOD, outputs=[classified, output(name="label")]))
    assert decoded.outputs == ("p", "label")
    outputs = [
        Tensor("label", DType.INT64, np.array([1])),
        Tensor("p", DType.FP32, np.array([[0.25, 0.75]], np.float32)),
    ]
    serialized = oip_grpc.from_response(InferenceResponse("m", "1", outputs), rendering)
    found = theirs.ModelInferResponse.FromString(serialized)
    assert [item.name for item in found.outputs] == ["p", "label"]
    assert (found.outputs[0].datatype, list(found.outputs[0].shape)) == ("BYTES", [1, 1])
    assert list(found.outputs[0].contents.bytes_contents) == [b"0.75:1:yes"]
    wrong = output(name="p", parameters={"classification": pb.InferParameter(string_param="1")})
    assert "'classification'" in refused(request(GOOD, outputs=[wrong]))


# Streams.


def test_stream_responses_say_whether_they_are_the_last() -> None:
    _, rendering = convert(request(GOOD))
    response = InferenceResponse("m", "1", [Tensor("label", DType.INT64, np.array([1]))], id="4")
    for final in (False, True):
        serialized = oip_grpc.stream_response(response, rendering, final)
        found = theirs.ModelStreamInferResponse.FromString(serialized)
        assert found.error_message == ""
        assert found.infer_response.id == "4"
        parameter = found.infer_response.parameters["triton_final_response"]
        assert parameter.WhichOneof("parameter_choice") == "bool_param"
        assert parameter.bool_param is final
    assert response.parameters == {}


def test_stream_errors() -> None:
    found = theirs.ModelStreamInferResponse.FromString(
        oip_grpc.stream_error(errors.ModelRaised("it \ud800 broke"), "4")
    )
    assert (found.error_message, found.infer_response.id) == ("it ? broke", "4")
    found = theirs.ModelStreamInferResponse.FromString(oip_grpc.stream_error(errors.Bug()))
    assert found.error_message
    assert not found.HasField("infer_response")


def test_empty_final_responses() -> None:
    wish = {"triton_enable_empty_final_response": pb.InferParameter(bool_param=True)}
    decoded, rendering = convert(request(GOOD, parameters=wish))
    assert oip_grpc.wants_empty_final(rendering)
    assert decoded.parameters == {}
    assert not oip_grpc.wants_empty_final(convert(request(GOOD))[1])
    assert not oip_grpc.wants_empty_final(Rendering())
    found = theirs.ModelStreamInferResponse.FromString(oip_grpc.empty_final_response("m", "1", "4")).infer_response
    assert (found.model_name, found.model_version, found.id) == ("m", "1", "4")
    assert found.parameters["triton_final_response"].bool_param
    assert not found.outputs
    wrong = {"triton_enable_empty_final_response": pb.InferParameter(string_param="yes")}
    assert "expected a boolean" in refused(request(GOOD, parameters=wrong))
