"""tritonclient's own encoders and decoders, in process, against the codecs: every datatype and shape, both ways."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.grpc._utils import _get_inference_request as grpc_request
from tritonclient.http._utils import _get_inference_request as http_request
from tritonclient.utils import InferenceServerException

from headrace.core import errors
from headrace.core.models import Signature
from headrace.core.requests import InferenceRequest, InferenceResponse
from headrace.core.tensors import NUMPY_DTYPES, Array, DType, bf16_to_fp32
from headrace.protocols import compression, oip_grpc, oip_rest
from headrace.protocols.protocol import Rendering, Reply

DYNAMIC = Signature((), (), any_inputs=True)

SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)


def client_arrays(dtype: DType) -> st.SearchStrategy[Array]:
    """Arrays as a user of tritonclient has them."""
    if dtype is DType.BYTES:
        return hnp.arrays(object, SHAPES, elements=st.binary(max_size=9), fill=st.nothing())
    if dtype is DType.BF16:
        return hnp.arrays(np.float32, SHAPES).map(lambda array: array.astype(ml_dtypes.bfloat16))
    return hnp.arrays(NUMPY_DTYPES[dtype], SHAPES)


def tensors(json_only: bool = False) -> st.SearchStrategy[tuple[DType, Array]]:
    kinds = [dtype for dtype in DType if not (json_only and dtype in (DType.FP16, DType.BF16))]
    return st.sampled_from(kinds).flatmap(lambda dtype: st.tuples(st.just(dtype), client_arrays(dtype)))


def ours(dtype: DType, array: Array) -> Array:
    """The array as the core has it: BF16 as bit patterns."""
    return array.view(np.uint16) if dtype is DType.BF16 else array


def equal(left: Array, right: Array) -> bool:
    if left.shape != right.shape:
        return False
    if left.dtype == object or right.dtype == object:
        return left.tolist() == right.tolist()
    return left.dtype == right.dtype and left.tobytes() == right.tobytes()


def over_http(
    given_tensors: list[tuple[DType, Array]], binary: bool, outputs: list[Any] | None = None, **fields: Any
) -> tuple[InferenceRequest, Rendering]:
    inputs = []
    for at, (dtype, array) in enumerate(given_tensors):
        item = triton_http.InferInput(f"in{at}", list(array.shape), str(dtype))
        inputs.append(item.set_data_from_numpy(array, binary_data=binary))
    defaults = {"request_id": "", "sequence_id": 0, "sequence_start": False, "sequence_end": False, "priority": 0}
    more = {"timeout": None, "custom_parameters": None}
    body, size = http_request(inputs=inputs, outputs=outputs, **(defaults | more | fields))
    return oip_rest.parse_request(body, size, DYNAMIC)


def read_http(reply: Reply, encoding: str | None = None) -> triton_http.InferResult:
    size = dict(reply.headers).get(oip_rest.HEADER_LENGTH)
    body = compression.compress(encoding, reply.body) if encoding else reply.body
    return triton_http.InferResult.from_response_body(
        body, header_length=None if size is None else int(size), content_encoding=encoding
    )


@given(st.lists(tensors(), min_size=1, max_size=4))
def test_http_binary_round_trip(given_tensors: list[tuple[DType, Array]]) -> None:
    request, rendering = over_http(given_tensors, binary=True)
    assert rendering.binary_default
    for tensor, (dtype, array) in zip(request.tensors, given_tensors, strict=True):
        assert tensor.dtype is dtype
        assert equal(tensor.array, ours(dtype, array))
    result = read_http(
        oip_rest.render_response(InferenceResponse("m", "1", request.tensors), rendering, DYNAMIC), "gzip"
    )
    for at, (_, array) in enumerate(given_tensors):
        assert equal(result.as_numpy(f"in{at}"), array)


def sendable(dtype: DType, array: Array) -> bool:
    """Whether JSON can hold the values."""
    if dtype is DType.BYTES:
        try:
            return all(item.decode() is not None for item in array.ravel())
        except UnicodeDecodeError:
            return False
    return bool(np.isfinite(array).all())


@given(tensors(json_only=True).filter(lambda pair: sendable(*pair)))
def test_http_json_round_trip(pair: tuple[DType, Array]) -> None:
    dtype, array = pair
    outputs = [triton_http.InferRequestedOutput("in0", binary_data=False)]
    request, rendering = over_http([pair], binary=False, outputs=outputs, request_id="7")
    assert request.id == "7"
    assert equal(request.tensors[0].array, array)
    response = InferenceResponse("m", "1", request.tensors, id=request.id)
    result = read_http(oip_rest.render_response(response, rendering, DYNAMIC))
    assert result.get_response()["id"] == "7"
    found = result.as_numpy("in0")
    if dtype is DType.BYTES:
        assert found.tolist() == np.vectorize(bytes.decode, otypes=[object])(array).tolist() if array.size else True
    else:
        assert equal(found, array)


def test_http_mixed_outputs() -> None:
    outputs = [
        triton_http.InferRequestedOutput("in1", binary_data=False),
        triton_http.InferRequestedOutput("in0", binary_data=True),
    ]
    pairs = [(DType.FP32, np.array([[1.5]], np.float32)), (DType.INT64, np.array([2]))]
    request, rendering = over_http(pairs, binary=True, outputs=outputs)
    result = read_http(oip_rest.render_response(InferenceResponse("m", "1", request.tensors), rendering, DYNAMIC))
    assert [item["name"] for item in result.get_response()["outputs"]] == ["in1", "in0"]
    assert result.as_numpy("in0").tolist() == [[1.5]]
    assert result.as_numpy("in1").tolist() == [2]


def test_http_text_and_parameters() -> None:
    text = np.array(["é", "b"], object)
    request, _ = over_http(
        [(DType.BYTES, text)],
        binary=True,
        sequence_id=5,
        sequence_start=True,
        priority=1,
        timeout=100,
        custom_parameters={"mine": "x"},
    )
    assert request.tensors[0].array.tolist() == ["é".encode(), b"b"]
    assert request.parameters == {
        "sequence_id": 5,
        "sequence_start": True,
        "sequence_end": False,
        "priority": 1,
        "timeout": 100,
        "mine": "x",
    }


def test_http_classification() -> None:
    outputs = [triton_http.InferRequestedOutput("in0", binary_data=True, class_count=2)]
    request, rendering = over_http([(DType.FP32, np.array([[0.5, 2, 1]], np.float32))], True, outputs)
    result = read_http(oip_rest.render_response(InferenceResponse("m", "1", request.tensors), rendering, DYNAMIC))
    assert result.as_numpy("in0").tolist() == [[b"2:1", b"1:2"]]


def test_http_shared_memory() -> None:
    item = triton_http.InferInput("in0", [1], "FP32").set_shared_memory("region", 4)
    body, size = http_request([item], "", None, 0, False, False, 0, None, None)
    with pytest.raises(errors.Unsupported, match="shared memory"):
        oip_rest.parse_request(body, size, DYNAMIC)


def test_http_errors() -> None:
    class Response:
        status_code = 400

        def __init__(self, reply: Reply) -> None:
            self.status_code, self._body = reply.status, reply.body

        def read(self) -> bytes:
            return self._body

    from tritonclient.http._utils import _raise_if_error

    with pytest.raises(InferenceServerException, match=r"\[404\] no model 'm'"):
        _raise_if_error(Response(oip_rest.render_error(errors.UnknownModel("no model 'm'"))))


def over_grpc(given_tensors: list[tuple[DType, Array]], **fields: Any) -> tuple[InferenceRequest, Rendering]:
    inputs = []
    for at, (dtype, array) in enumerate(given_tensors):
        item = triton_grpc.InferInput(f"in{at}", list(array.shape), str(dtype))
        inputs.append(item.set_data_from_numpy(array))
    defaults = {"request_id": "", "sequence_id": 0, "sequence_start": False, "sequence_end": False, "priority": 0}
    more = {"timeout": None, "parameters": None, "outputs": None, "model_name": "m", "model_version": ""}
    message = grpc_request(inputs=inputs, **(defaults | more | fields))
    return oip_grpc.to_request(oip_grpc.decode_infer(message.SerializeToString()), DYNAMIC)


def read_grpc(body: bytes) -> triton_grpc.InferResult:
    return triton_grpc.InferResult(triton_grpc.service_pb2.ModelInferResponse.FromString(body))


@given(st.lists(tensors(), min_size=1, max_size=4))
def test_grpc_round_trip(given_tensors: list[tuple[DType, Array]]) -> None:
    request, rendering = over_grpc(given_tensors)
    for tensor, (dtype, array) in zip(request.tensors, given_tensors, strict=True):
        assert tensor.dtype is dtype
        assert equal(tensor.array, ours(dtype, array))
    result = read_grpc(oip_grpc.from_response(InferenceResponse("m", "1", request.tensors), rendering))
    for at, (_, array) in enumerate(given_tensors):
        assert equal(result.as_numpy(f"in{at}"), array)


def test_grpc_parameters_and_outputs() -> None:
    outputs = [triton_grpc.InferRequestedOutput("in1"), triton_grpc.InferRequestedOutput("in0", class_count=1)]
    pairs = [(DType.FP32, np.array([[0.5, 2]], np.float32)), (DType.INT64, np.array([7]))]
    request, rendering = over_grpc(
        pairs, outputs=outputs, request_id="9", sequence_id="s", priority=2**63, timeout=5, parameters={"mine": 0.5}
    )
    assert request.id == "9"
    assert request.parameters == {
        "sequence_id": "s",
        "sequence_start": False,
        "sequence_end": False,
        "priority": 2**63,
        "timeout": 5,
        "mine": 0.5,
    }
    result = read_grpc(oip_grpc.from_response(InferenceResponse("m", "1", request.tensors), rendering))
    assert result.as_numpy("in1").tolist() == [7]
    assert result.as_numpy("in0").tolist() == [[b"2:1"]]


def test_bf16_values_over_grpc() -> None:
    request, rendering = over_grpc([(DType.BF16, np.array([1.5, -2], ml_dtypes.bfloat16))])
    assert bf16_to_fp32(request.tensors[0].array).tolist() == [1.5, -2]
    result = read_grpc(oip_grpc.from_response(InferenceResponse("m", "1", request.tensors), rendering))
    assert result.as_numpy("in0").astype(np.float32).tolist() == [1.5, -2]
