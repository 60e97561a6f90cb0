"""Bodies of the client against the server's own codec, both ways."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from headrace.client.inputs import to_array
from headrace.client.wire import LENGTH_HEADER, Prediction, decode_response, encode_request
from headrace.core import errors
from headrace.core.comparison import EXACT, compare
from headrace.core.models import Signature, TensorSpec
from headrace.core.requests import InferenceResponse
from headrace.core.tensors import DType, Tensor
from headrace.protocols import oip_rest

VALUES: dict[DType, Any] = {
    DType.BOOL: [True, False],
    DType.UINT8: [0, 255],
    DType.UINT16: [0, 65535],
    DType.UINT32: [0, 2**32 - 1],
    DType.UINT64: [0, 2**64 - 1],
    DType.INT8: [-128, 127],
    DType.INT16: [-32768, 32767],
    DType.INT32: [-(2**31), 2**31 - 1],
    DType.INT64: [-(2**63), 2**63 - 1],
    DType.FP16: [0.5, -2.0],
    DType.BF16: [1.5, -4.0],
    DType.FP32: [0.1, float("nan")],
    DType.FP64: [0.1, float("-inf")],
    DType.BYTES: ["US", "é"],
}


def signature(*names: DType) -> Signature:
    specs = tuple(TensorSpec(dtype.value.lower(), dtype, (-1,)) for dtype in names)
    return Signature(specs, specs)


def round_trip(tensors: list[Tensor], of: Signature, outputs: tuple[str, ...] | None = None) -> dict[str, Any]:
    return answered(tensors, of, outputs).outputs


def answered(tensors: list[Tensor], of: Signature, outputs: tuple[str, ...] | None = None) -> Prediction:
    """Encode, decode as the server does, echo, render as the server does, decode."""
    headers, body = encode_request(tensors, {"temperature": 0.5}, outputs)
    request, rendering = oip_rest.parse_request(body, int(headers[LENGTH_HEADER]), of)
    assert request.parameters == {"temperature": 0.5}
    echoed = [t for t in request.tensors if outputs is None or t.name in outputs]
    reply = oip_rest.render_response(InferenceResponse("m", "3", echoed), rendering, of)
    answer = decode_response({k.decode(): v.decode() for k, v in reply.headers}, reply.body)
    assert (answer.model, answer.version, answer.fallback) == ("m", "3", "")
    return answer


def test_typed_outputs_are_those_that_were_sent() -> None:
    of = signature(*VALUES)
    tensors = [Tensor(s.name, s.dtype, to_array(s, VALUES[s.dtype])) for s in of.inputs]
    exact = {tensor.name: EXACT for tensor in tensors}
    assert compare(tensors, answered(tensors, of).tensors(), exact).differences == ()
    raw = Tensor("bytes", DType.BYTES, np.array([b"\xff", b"US"], object))
    assert answered([raw], signature(DType.BYTES)).tensors()[0].array.tolist() == [b"\xff", b"US"]


def test_every_datatype_survives_the_round_trip() -> None:
    of = signature(*VALUES)
    tensors = [Tensor(s.name, s.dtype, to_array(s, VALUES[s.dtype])) for s in of.inputs]
    outputs = round_trip(tensors, of)
    for dtype, values in VALUES.items():
        np.testing.assert_array_equal(
            outputs[dtype.value.lower()], np.array(values, outputs[dtype.value.lower()].dtype)
        )
    assert outputs["bf16"].dtype == np.float32
    assert outputs["bytes"].tolist() == ["US", "é"]


def test_outputs_are_writable_and_own_their_memory() -> None:
    of = signature(DType.FP32)
    outputs = round_trip([Tensor("fp32", DType.FP32, np.ones(3, np.float32))], of)
    outputs["fp32"][0] = 5
    assert outputs["fp32"].flags.owndata


def test_wanted_outputs_are_asked_for() -> None:
    of = signature(DType.FP32, DType.INT64)
    tensors = [Tensor("fp32", DType.FP32, np.ones(1, np.float32)), Tensor("int64", DType.INT64, np.ones(1, np.int64))]
    assert list(round_trip(tensors, of, ("int64",))) == ["int64"]


def test_empty_tensors_survive() -> None:
    of = signature(DType.FP32, DType.BYTES)
    empty = [
        Tensor("fp32", DType.FP32, np.empty(0, np.float32)),
        Tensor("bytes", DType.BYTES, np.empty(0, object)),
    ]
    assert {name: array.shape for name, array in round_trip(empty, of).items()} == {"fp32": (0,), "bytes": (0,)}


def test_text_that_is_no_utf8_stays_bytes() -> None:
    of = signature(DType.BYTES)
    outputs = round_trip([Tensor("bytes", DType.BYTES, to_array(of.inputs[0], [b"\xff", b"a"]))], of)
    assert outputs["bytes"].tolist() == [b"\xff", b"a"]


def test_arrays_that_are_not_contiguous_are_sent_in_order() -> None:
    spec = TensorSpec("x", DType.FP32, (-1, 2))
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    headers, body = encode_request([Tensor("x", DType.FP32, array)], {}, None)
    request, _ = oip_rest.parse_request(body, int(headers[LENGTH_HEADER]), Signature((spec,), (spec,)))
    np.testing.assert_array_equal(request.tensors[0].array, array)


def test_json_answers_of_other_servers_are_read() -> None:
    body = msgspec.json.encode(
        {
            "model_name": "m",
            "outputs": [
                {"name": "p", "datatype": "FP32", "shape": [2, 1], "data": [0.5, None]},
                {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]},
            ],
        }
    )
    outputs = decode_response({}, body).outputs
    assert outputs["p"].shape == (2, 1)
    assert np.isnan(outputs["p"][1, 0])
    assert outputs["label"].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b"<html>"),
        ({}, b"[]"),
        ({}, b'{"outputs": [{"name": "x", "datatype": "FP32", "shape": [1]}]}'),
        ({}, b'{"outputs": [{"name": "x", "datatype": "FP32", "shape": [3], "data": [1]}]}'),
        ({}, b'{"outputs": [{"name": "x", "datatype": "NOPE", "shape": [1], "data": [1]}]}'),
        ({}, b'{"outputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": ["y"]}]}'),
        ({LENGTH_HEADER: "x"}, b"{}"),
        (
            {LENGTH_HEADER: "90"},
            b'{"outputs": [{"name": "x", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}]}',
        ),
    ],
)
def test_answers_that_are_no_answers_are_unsupported(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(errors.Unsupported, match="not a valid inference response"):
        decode_response(headers, body)
