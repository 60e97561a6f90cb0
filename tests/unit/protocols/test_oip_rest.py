"""Open Inference Protocol over REST: JSON, binary and raw requests, and what is refused with which words."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from headrace.core import errors
from headrace.core.models import Signature, TensorSpec
from headrace.core.requests import InferenceRequest, InferenceResponse
from headrace.core.tensors import NUMPY_DTYPES, DType, Tensor, to_wire
from headrace.protocols import oip_rest
from headrace.protocols.protocol import Rendering

SIGNATURE = Signature(
    inputs=(TensorSpec("x", DType.FP32, (-1, 2)),),
    outputs=(TensorSpec("label", DType.INT64, (-1,)), TensorSpec("p", DType.FP32, (-1, 2), labels=("no", "yes"))),
)
DYNAMIC = Signature((), (), any_inputs=True)


def tensor(**fields: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]} | fields


def parse(*inputs: dict[str, Any], signature: Signature = DYNAMIC, **fields: Any) -> InferenceRequest:
    return oip_rest.parse_request(json.dumps({"inputs": inputs} | fields).encode(), None, signature)[0]


def parse_binary(
    head: dict[str, Any], tail: bytes, signature: Signature = DYNAMIC
) -> tuple[InferenceRequest, Rendering]:
    text = json.dumps(head).encode()
    return oip_rest.parse_request(text + tail, len(text), signature)


def refused(*inputs: dict[str, Any], kind: type[errors.HeadraceError] = errors.InvalidInput, **fields: Any) -> str:
    with pytest.raises(kind) as caught:
        parse(*inputs, **fields)
    return caught.value.message


# JSON data.


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("BOOL", [True, False]),
        ("INT8", [-128, 127]),
        ("INT16", [-(2**15), 2**15 - 1]),
        ("INT32", [-(2**31), 2**31 - 1]),
        ("INT64", [-(2**63), 2**63 - 1]),
        ("UINT8", [0, 255]),
        ("UINT16", [0, 2**16 - 1]),
        ("UINT32", [0, 2**32 - 1]),
        ("UINT64", [2**63, 2**64 - 1]),
        ("FP32", [0.5, -3.4028234663852886e38]),
        ("FP64", [1e-300, 1.7976931348623157e308]),
    ],
)
def test_every_numeric_datatype_at_its_limits(datatype: str, data: list[Any]) -> None:
    (found,) = parse(tensor(datatype=datatype, data=data)).tensors
    assert found.dtype is DType(datatype)
    assert found.array.dtype == NUMPY_DTYPES[datatype]
    assert found.array.tolist() == [data]


def test_bytes_are_strings() -> None:
    (found,) = parse(tensor(datatype="BYTES", data=["é", ""])).tensors
    assert found.array.tolist() == [["é".encode(), b""]]


def test_floats_take_integers_and_booleans_take_zero_and_one() -> None:
    assert parse(tensor(data=[1, 2])).tensors[0].array.tolist() == [[1.0, 2.0]]
    assert parse(tensor(datatype="BOOL", data=[0, 1])).tensors[0].array.tolist() == [[False, True]]


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]], [[1, 2, 3, 4]], [[[1], [2]], [[3], [4]]]])
@pytest.mark.parametrize("datatype", ["FP32", "INT64", "BYTES"])
def test_nested_or_flat(datatype: str, data: Any) -> None:
    if datatype == "BYTES":
        data = json.loads(
            json.dumps(data).replace("1", '"1"').replace("2", '"2"').replace("3", '"3"').replace("4", '"4"')
        )
    (found,) = parse(tensor(datatype=datatype, shape=[2, 2], data=data)).tensors
    expected = [[b"1", b"2"], [b"3", b"4"]] if datatype == "BYTES" else [[1, 2], [3, 4]]
    assert found.array.tolist() == expected


@pytest.mark.parametrize(("shape", "data"), [([0], []), ([0, 30], []), ([2, 0], []), ([0, 30], [[]]), ([], [5])])
def test_empty_and_scalar_shapes(shape: list[int], data: list[Any]) -> None:
    (found,) = parse(tensor(shape=shape, data=data)).tensors
    assert list(found.shape) == shape


def test_empty_bytes() -> None:
    (found,) = parse(tensor(datatype="BYTES", shape=[0, 3], data=[])).tensors
    assert found.shape == (0, 3)


def test_unknown_fields_and_nulls_are_ignored() -> None:
    found = parse(
        tensor(extra={"a": [1]}, parameters=None), id=None, parameters=None, outputs=None, model_name="m", more=[{}]
    )
    assert found == InferenceRequest(found.tensors)
    assert found.tensors[0].array.tolist() == [[1.0, 2.0]]


def test_id_and_parameters() -> None:
    found = parse(
        tensor(), id="7", parameters={"a": 1, "b": "x", "c": True, "d": 0.5, "e": None, "headers": {"h": "v"}}
    )
    assert found.id == "7"
    assert found.parameters == {"a": 1, "b": "x", "c": True, "d": 0.5}


def test_requests_do_not_share_their_parameters() -> None:
    first, second = parse(tensor()), parse(tensor())
    first.parameters["a"] = 1
    assert second.parameters == {}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data": [1, "2"]}, "input 'x' FP32: data[1]: expected number, got string"),
        ({"data": [1, True]}, "input 'x' FP32: data[1]: expected number, got boolean"),
        ({"data": [1, None]}, "input 'x' FP32: data[1]: expected number, got null"),
        ({"data": [[1], [{}]]}, "input 'x' FP32: data[1][0]: expected number, got object"),
        ({"data": 1}, "input 'x' FP32: data: expected array or null, got integer"),
        ({"data": [1, 1e39]}, "input 'x' FP32: data[1]: expected number <= 3.4028234663852886e+38"),
        ({"datatype": "INT8", "data": [1, 128]}, "input 'x' INT8: data[1]: expected integer <= 127"),
        ({"datatype": "INT8", "data": [1, -129]}, "input 'x' INT8: data[1]: expected integer >= -128"),
        ({"datatype": "INT64", "data": [1, 2**63]}, "input 'x': data holds an integer out of range of INT64"),
        ({"datatype": "UINT64", "data": [1, 2**64]}, "input 'x': data holds an integer out of range of UINT64"),
        ({"datatype": "UINT64", "data": [1, -1]}, "input 'x' UINT64: data[1]: expected integer >= 0"),
        ({"datatype": "INT32", "data": [1, 1.5]}, "input 'x' INT32: data[1]: expected integer, got number"),
        ({"datatype": "BOOL", "data": [1, 2]}, "input 'x' BOOL: data[1]: expected integer <= 1"),
        ({"datatype": "BYTES", "data": ["a", 1]}, "input 'x' BYTES: data[1]: expected string, got integer"),
        ({"data": [1.0]}, "input 'x': shape [1, 2] takes 2 elements, got 1"),
        ({"data": [1, 2, 3]}, "input 'x': shape [1, 2] takes 2 elements, got 3"),
        ({"data": []}, "input 'x': shape [1, 2] takes 2 elements, got 0"),
        ({"datatype": "BYTES", "data": ["a"]}, "input 'x': shape [1, 2] takes 2 elements, got 1"),
        ({"data": [[1, 2], [3]]}, "input 'x': the nested lists of data have different lengths"),
        ({"data": [1, [2]]}, "input 'x': the nested lists of data have different lengths"),
        ({"datatype": "BYTES", "data": [["a"], ["b", "c"]]}, "the nested lists of data have different lengths"),
        ({"datatype": "BYTES", "data": [["a"], "b"]}, "the nested lists of data have different lengths"),
        ({"shape": [-1, 2]}, "input 'x' FP32: shape[0]: expected integer >= 0"),
        ({"shape": [1.5]}, "input 'x' FP32: shape[0]: expected integer, got number"),
        ({"shape": 2}, "input 'x' FP32: shape: expected array, got integer"),
        ({"data": None}, "input 'x': neither data nor parameters.binary_data_size is given"),
        ({"name": None}, "inputs[0] FP32: name: expected string, got null"),
        ({"datatype": "FP31"}, "input 'x': datatype 'FP31' is unknown; expected one of BOOL, UINT8"),
        ({"datatype": "fp32"}, "input 'x': datatype 'fp32' is unknown"),
        ({"datatype": 5}, "input 'x': datatype 5 is unknown"),
        ({"datatype": "FP16"}, "input 'x': FP16 has no JSON form; send it as binary data"),
        ({"datatype": "BF16"}, "input 'x': BF16 has no JSON form; send it as binary data"),
        ({"parameters": 5}, "input 'x' FP32: parameters: expected object or null, got integer"),
        ({"parameters": {"binary_data_size": 8}}, "input 'x': both data and binary_data_size are given; send one"),
        ({"parameters": {"binary_data_size": "8"}}, "'binary_data_size': expected a non-negative integer, got '8'"),
        ({"parameters": {"binary_data_size": True}}, "expected a non-negative integer, got True"),
        ({"parameters": {"binary_data_size": -8}}, "expected a non-negative integer, got -8"),
        (
            {"data": None, "parameters": {"binary_data_size": 8}},
            "input 'x': binary_data_size is given, but the header Inference-Header-Content-Length is not",
        ),
    ],
)
def test_refused_inputs(fields: dict[str, Any], message: str) -> None:
    assert message in refused(tensor(**fields))


def test_the_second_input_is_named() -> None:
    assert "input 'y' FP32: data[0]" in refused(tensor(), tensor(name="y", data=["a", 1]))


def test_a_missing_datatype() -> None:
    without = tensor()
    del without["datatype"]
    assert refused(without).startswith("input 'x': the datatype is missing; expected one of")


def test_dimensions_beyond_numpy() -> None:
    assert "input 'x': shape" in refused(tensor(shape=[1] * 80 + [3]))
    with pytest.raises(errors.InvalidInput, match="input 'x'"):
        parse_binary({"inputs": [tensor(shape=[0, 2**62, 2**62], data=None, parameters={"binary_data_size": 0})]}, b"")


@pytest.mark.parametrize("key", ["shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"])
def test_shared_memory_is_unsupported(key: str) -> None:
    message = refused(tensor(data=None, parameters={key: 1}), kind=errors.Unsupported)
    assert "shared memory is not supported" in message
    refused(tensor(), outputs=[{"name": "p", "parameters": {key: 1}}], kind=errors.Unsupported)


def test_reserved_parameters() -> None:
    assert "reserved" in refused(tensor(), parameters={"triton_x": 1})
    kept = parse(tensor(), parameters={"triton_enable_empty_final_response": True}).parameters
    assert kept == {"triton_enable_empty_final_response": True}


@pytest.mark.parametrize(("value", "kind"), [([1], "an array"), ({}, "an object")])
def test_parameters_are_scalars(value: Any, kind: str) -> None:
    assert f"'a': expected a string, number or boolean, got {kind}" in refused(tensor(), parameters={"a": value})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is empty"),
        (b"{", "not valid JSON"),
        (b"nonsense", "not valid JSON"),
        (b"[]", "the body is not valid: expected object, got array"),
        (b"{}", "object missing required field `inputs`"),
        (b'{"inputs": null}', "inputs: expected array, got null"),
        (b'{"inputs": [1]}', "inputs[0]: expected object, got int"),
        (b'{"inputs": []} trailing', "not valid JSON"),
        (b'{"inputs": [], "id": 5}', "id: expected string or null, got integer"),
        (b'{"inputs": [], "outputs": [{}]}', "outputs[0]: object missing required field `name`"),
        (b'{"inputs": [], "id": "\xff"}', "not valid UTF-8"),
        (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [NaN]}]}', "send that tensor as binary"),
        (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [-Infinity]}]}', "as binary data"),
        (
            b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1e999]}]}',
            "data[0]: number out of range",
        ),
        (b'{"x": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"inputs": ' + b"[" * 100_000, "inputs[0]"),
        (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": ' + b"[" * 100_000, "input"),
        (b'{"x": ' + b'{"a":' * 100_000, "nested too deeply"),
        (b"\x00\x01", "not valid JSON"),
    ],
)
def test_malformed_bodies(body: bytes, message: str) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        oip_rest.parse_request(body, None, DYNAMIC)
    assert message.lower() in caught.value.message.lower()
    assert len(caught.value.message) < 500


# Binary tensors.


ARRAYS: dict[DType, np.ndarray] = {
    DType.BOOL: np.array([[True, False]]),
    DType.FP16: np.array([[0.5, np.inf]], np.float16),
    DType.BF16: np.array([[0x3F80, 0x7FC0]], np.uint16),
    DType.BYTES: np.array([[b"a\xff", b""]], object),
} | {
    DType(name): np.array([[1, 2]], NUMPY_DTYPES[name])
    for name in ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP32", "FP64")
}


@pytest.mark.parametrize("dtype", list(DType))
def test_every_datatype_in_binary(dtype: DType) -> None:
    wire = bytes(to_wire(Tensor("x", dtype, ARRAYS[dtype])))
    item = tensor(datatype=dtype, parameters={"binary_data_size": len(wire)})
    del item["data"]
    (found,) = parse_binary({"inputs": [item]}, wire)[0].tensors
    assert found.dtype is dtype
    assert found.array.dtype == NUMPY_DTYPES[dtype]
    assert found.array.tolist() == ARRAYS[dtype].tolist()


def test_large_tensors_are_views_on_the_body() -> None:
    item = tensor(data=None, parameters={"binary_data_size": 8})
    head = json.dumps({"inputs": [item]}).encode()
    body = head + np.array([1, 2], np.float32).tobytes()
    (found,) = oip_rest.parse_request(body, len(head), DYNAMIC)[0].tensors
    assert np.shares_memory(found.array, np.frombuffer(body, np.uint8))


def test_json_and_binary_inputs_mix_and_keep_their_order() -> None:
    first = tensor(name="a", data=None, parameters={"binary_data_size": 8})
    last = tensor(name="c", datatype="UINT8", data=None, parameters={"binary_data_size": 2})
    tail = np.array([1, 2], np.float32).tobytes() + b"\x07\x08"
    found = parse_binary({"inputs": [first, tensor(name="b"), last]}, tail)[0].tensors
    assert [t.name for t in found] == ["a", "b", "c"]
    assert found[2].array.tolist() == [[7, 8]]


def test_boolean_bytes_are_made_zero_or_one() -> None:
    item = tensor(datatype="BOOL", data=None, parameters={"binary_data_size": 2})
    (found,) = parse_binary({"inputs": [item]}, b"\x02\x00")[0].tensors
    assert found.array.view(np.uint8).tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("size", "tail", "message"),
    [
        (8, bytes(7), "input 'x': binary_data_size is 8, the body has 7 bytes left"),
        (8, bytes(9), "1 bytes of the body belong to no input"),
        (4, bytes(4), "input 'x': shape [1, 2] of FP32 takes 8 bytes, got 4"),
        (2**70, bytes(4), "the body has 4 bytes left"),
    ],
)
def test_wrong_sizes(size: int, tail: bytes, message: str) -> None:
    item = tensor(data=None, parameters={"binary_data_size": size})
    with pytest.raises(errors.InvalidInput) as caught:
        parse_binary({"inputs": [item]}, tail)
    assert message in caught.value.message


@pytest.mark.parametrize(
    "tail", [b"\x01\x00\x00\x00", b"\xff\xff\xff\xff" + b"a", bytes(3), b"\x01\x00\x00\x00a" + bytes(5)]
)
def test_broken_bytes_tensors(tail: bytes) -> None:
    item = tensor(datatype="BYTES", data=None, parameters={"binary_data_size": len(tail)})
    with pytest.raises(errors.InvalidInput, match="input 'x': "):
        parse_binary({"inputs": [item]}, tail)


@pytest.mark.parametrize("size", [-1, 3, 10**12])
def test_a_header_length_outside_of_the_body(size: int) -> None:
    with pytest.raises(errors.InvalidInput, match="Inference-Header-Content-Length is"):
        oip_rest.parse_request(b"{}", size, DYNAMIC)


def test_a_header_length_that_covers_the_whole_body() -> None:
    assert parse_binary({"inputs": [tensor()]}, b"")[0].tensors[0].array.tolist() == [[1.0, 2.0]]


def test_empty_tensors_need_no_framing() -> None:
    item = tensor(shape=[0, 2], data=None, parameters={"binary_data_size": 0})
    assert parse(item).tensors[0].shape == (0, 2)
    assert "takes 8 bytes, got 0" in refused(tensor(data=None, parameters={"binary_data_size": 0}))


# Raw requests.


def raw(spec: TensorSpec, body: bytes, batchable: bool = True) -> InferenceRequest:
    request, rendering = oip_rest.parse_request(body, 0, Signature((spec,), (), batchable=batchable))
    assert rendering.binary_default
    return request


@pytest.mark.parametrize(
    ("shape", "batchable", "count", "expected"),
    [
        ((-1, 2), True, 2, (1, 2)),
        ((-1, 2), True, 6, (3, 2)),
        ((-1, -1), True, 6, (1, 6)),
        ((-1, 3, -1), True, 6, (1, 3, 2)),
        ((-1,), True, 6, (6,)),
        ((2, 3), False, 6, (2, 3)),
        ((-1, 3), False, 6, (2, 3)),
        ((), False, 1, ()),
    ],
)
def test_the_shape_of_a_raw_request(
    shape: tuple[int, ...], batchable: bool, count: int, expected: tuple[int, ...]
) -> None:
    body = np.arange(count, dtype=np.float32).tobytes()
    (found,) = raw(TensorSpec("x", DType.FP32, shape), body, batchable).tensors
    assert found.shape == expected
    assert found.array.ravel().tolist() == list(range(count))


@pytest.mark.parametrize("shape", [(-1,), (-1, 1), (1,), (-1, -1)])
def test_raw_bytes_are_one_element(shape: tuple[int, ...]) -> None:
    (found,) = raw(TensorSpec("x", DType.BYTES, shape), b"\xff text").tensors
    assert found.array.ravel().tolist() == [b"\xff text"]
    assert len(found.shape) == len(shape)


@pytest.mark.parametrize(
    ("spec", "batchable", "size", "message"),
    [
        (TensorSpec("x", DType.FP32, (-1, 2)), True, 7, "does not fill shape"),
        (TensorSpec("x", DType.FP32, (2, 3)), False, 4, "takes 24 bytes, got 4"),
        (TensorSpec("x", DType.FP32, (-1, -1)), False, 4, "at most one dimension may vary"),
        (TensorSpec("x", DType.FP32, (-1, -1, -1)), True, 4, "at most one dimension may vary"),
        (TensorSpec("x", DType.FP32, (-1, 0)), True, 4, "does not fill shape"),
        (TensorSpec("x", DType.BYTES, (-1, 2)), True, 4, "needs shape [1]"),
    ],
)
def test_raw_requests_that_do_not_fit(spec: TensorSpec, batchable: bool, size: int, message: str) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        raw(spec, bytes(size), batchable)
    assert message in caught.value.message


@pytest.mark.parametrize(
    "signature", [DYNAMIC, Signature((TensorSpec("a", DType.FP32, (-1,)), TensorSpec("b", DType.FP32, (-1,))), ())]
)
def test_raw_requests_need_one_input(signature: Signature) -> None:
    with pytest.raises(errors.InvalidInput, match="a model with one input"):
        oip_rest.parse_request(b"", 0, signature)


# Requested outputs and responses.


def response(*outputs: Tensor, **fields: Any) -> InferenceResponse:
    given = list(outputs) or [
        Tensor("label", DType.INT64, np.array([1])),
        Tensor("p", DType.FP32, np.array([[0.25, 0.75]], np.float32)),
    ]
    return InferenceResponse("m", "3", given, **fields)


def answer(
    fields: dict[str, Any], given: InferenceResponse | None = None
) -> tuple[dict[str, Any], bytes, dict[bytes, bytes]]:
    """JSON part, binary part and headers of the answer to a request with these fields."""
    body = json.dumps({"inputs": [tensor()]} | fields).encode()
    request, rendering = oip_rest.parse_request(body, None, SIGNATURE)
    assert request.outputs == rendering.wanted
    reply = oip_rest.render_response(given or response(id=request.id), rendering, SIGNATURE)
    assert reply.status == 200
    headers = dict(reply.headers)
    size = int(headers.get(oip_rest.HEADER_LENGTH, len(reply.body)))
    return json.loads(reply.body[:size]), reply.body[size:], headers


def test_a_json_answer() -> None:
    document, binary, headers = answer({"id": "a7"})
    assert document == {
        "model_name": "m",
        "model_version": "3",
        "id": "a7",
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [1], "data": [1]},
            {"name": "p", "datatype": "FP32", "shape": [1, 2], "data": [0.25, 0.75]},
        ],
    }
    assert binary == b""
    assert headers == {b"content-type": b"application/json"}


def test_no_id_is_invented_and_an_empty_one_is_echoed() -> None:
    assert "id" not in answer({})[0]
    assert answer({"id": ""})[0]["id"] == ""


def test_response_parameters() -> None:
    assert answer({}, response(parameters={"a": True}))[0]["parameters"] == {"a": True}


def test_outputs_are_flat_in_row_major_order() -> None:
    columns = np.arange(6).reshape(2, 3).T
    document = answer({}, response(Tensor("label", DType.INT64, columns)))[0]
    assert document["outputs"][0]["shape"] == [3, 2]
    assert document["outputs"][0]["data"] == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(
    ("fields", "binary"),
    [
        ({"outputs": [{"name": "p", "parameters": {"binary_data": True}}, {"name": "label"}]}, {"p"}),
        ({"outputs": [{"name": "label"}, {"name": "p", "parameters": {"binary_data": None}}]}, set()),
        ({"parameters": {"binary_data_output": True}}, {"label", "p"}),
        ({"parameters": {"binary_data_output": True}, "outputs": []}, {"label", "p"}),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "p", "parameters": {"binary_data": False}}, {"name": "label"}],
            },
            {"label"},
        ),
        ({"parameters": {"binary_data_output": False}}, set()),
    ],
)
def test_which_outputs_are_binary(fields: dict[str, Any], binary: set[str]) -> None:
    document, tail, headers = answer(fields)
    wire = {"label": np.array([1]).tobytes(), "p": np.array([0.25, 0.75], np.float32).tobytes()}
    expected = b""
    for output in document["outputs"]:
        if output["name"] in binary:
            assert output["parameters"] == {"binary_data_size": len(wire[output["name"]])}
            assert "data" not in output
            expected += wire[output["name"]]
        else:
            assert "parameters" not in output
            assert output["data"]
    assert tail == expected
    assert (headers[b"content-type"] == b"application/octet-stream") == bool(binary)
    assert (oip_rest.HEADER_LENGTH in headers) == bool(binary)
    if fields.get("outputs"):
        assert [o["name"] for o in document["outputs"]] == [o["name"] for o in fields["outputs"]]


def test_binary_data_output_is_no_parameter_of_the_model() -> None:
    assert parse(tensor(), parameters={"binary_data_output": True, "a": 1}).parameters == {"a": 1}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"outputs": [{"name": "q"}]}, "unknown output 'q'; the model gives 'label', 'p'"),
        ({"outputs": [{"name": "p", "parameters": {"binary_data": 1}}]}, "'binary_data': expected a boolean, got 1"),
        ({"outputs": [{"name": "p", "parameters": {"classification": "2"}}]}, "'classification'"),
        ({"outputs": [{"name": "p", "parameters": {"classification": 0}}]}, "classification asks for 0 classes"),
        ({"parameters": {"binary_data_output": "yes"}}, "'binary_data_output': expected a boolean, got 'yes'"),
    ],
)
def test_refused_output_requests(fields: dict[str, Any], message: str) -> None:
    assert message in refused(tensor(), signature=SIGNATURE, **fields)


def test_classification_in_json_and_binary() -> None:
    document = answer({"outputs": [{"name": "p", "parameters": {"classification": 1}}]})[0]
    assert document["outputs"] == [{"name": "p", "datatype": "BYTES", "shape": [1, 1], "data": ["0.75:1:yes"]}]
    tail = answer({"outputs": [{"name": "p", "parameters": {"classification": 1, "binary_data": True}}]})[1]
    assert tail == b"\x0a\x00\x00\x000.75:1:yes"


def test_empty_binary_outputs_need_no_framing() -> None:
    given = response(Tensor("p", DType.FP32, np.zeros((0, 2), np.float32)))
    document, tail, headers = answer({"parameters": {"binary_data_output": True}}, given)
    assert document["outputs"] == [
        {"name": "p", "datatype": "FP32", "shape": [0, 2], "parameters": {"binary_data_size": 0}}
    ]
    assert tail == b""
    assert headers == {b"content-type": b"application/json"}


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (Tensor("p", DType.FP32, np.array([1, np.nan], np.float32)), "output 'p': NaN and infinity have no JSON form"),
        (Tensor("p", DType.FP64, np.array([1, -np.inf])), "output 'p': NaN and infinity have no JSON form"),
        (Tensor("p", DType.FP16, np.array([1], np.float16)), "output 'p': FP16 has no JSON form"),
        (Tensor("p", DType.BF16, np.array([1], np.uint16)), "output 'p': BF16 has no JSON form"),
        (Tensor("p", DType.BYTES, np.array([b"\xff"], object)), "output 'p': holds bytes that are not UTF-8"),
    ],
)
def test_outputs_that_json_cannot_hold(output: Tensor, message: str) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        oip_rest.render_response(response(output), Rendering(), SIGNATURE)
    assert message in caught.value.message
    assert "binary_data" in caught.value.message
    reply = oip_rest.render_response(response(output), Rendering(binary_default=True), SIGNATURE)
    assert reply.body.endswith(bytes(to_wire(output)))


def test_text_that_says_null_is_no_nan() -> None:
    given = response(
        Tensor("p", DType.BYTES, np.array([b"null"], object)), Tensor("label", DType.FP32, np.ones(1, np.float32))
    )
    assert answer({}, given)[0]["outputs"][0]["data"] == ["null"]


def test_nan_in_a_binary_output_beside_json() -> None:
    given = response(
        Tensor("p", DType.FP32, np.array([np.nan], np.float32)),
        Tensor("label", DType.BYTES, np.array([b"null"], object)),
    )
    reply = oip_rest.render_response(given, Rendering(binary={"p": True}), SIGNATURE)
    assert dict(reply.headers)[b"content-type"] == b"application/octet-stream"


def test_replies_do_not_share_their_header_lists() -> None:
    first = oip_rest.render_response(response(), Rendering(), SIGNATURE)
    first.headers.append((b"x-request-id", b"1"))
    assert len(oip_rest.render_response(response(), Rendering(), SIGNATURE).headers) == 1


def test_uint64_beyond_the_signed_range_is_exact() -> None:
    given = response(Tensor("p", DType.UINT64, np.array([2**64 - 1], np.uint64)))
    assert answer({}, given)[0]["outputs"][0]["data"] == [2**64 - 1]
