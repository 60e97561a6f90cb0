"""tritonclient over gRPC: unary calls, streams, deadlines, cancellation, compression, limits."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests import models
from tests.acceptance.clients.arrays import ARRAYS, TEXTS, objects, same
from tests.acceptance.conftest import MAX_BODY, SLOW_S
from tests.serving import Served, eventually

pytestmark = pytest.mark.xdist_group("clients")


@pytest.fixture
def client(clients_server: Served) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(clients_server.address) as made:
        yield made


@pytest.fixture
def stub(clients_server: Served) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    """The generated stub, for what tritonclient does not show."""
    with grpc.insecure_channel(clients_server.address) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def tensor(name: str, array: Any, datatype: str) -> Any:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def cancer(rows: int = 3) -> Any:
    return tensor("X", models.inputs("onnx", rows)["X"], "FP32")


def one(value: int, name: str = "x") -> Any:
    return tensor(name, np.array([[value]]), "INT64")


def prompt(text: str) -> Any:
    return tensor("prompt", objects([text.encode()]), "BYTES")


def refusal(call: Any, *arguments: Any, **options: Any) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        call(*arguments, **options)
    return caught.value.status(), caught.value.message()


# --- what there is ---------------------------------------------------------------------------------------------


def test_health_and_readiness(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("cancer")
    assert client.is_model_ready("org/cancer", "1")
    assert refusal(client.is_model_ready, "nobody")[0] == "StatusCode.NOT_FOUND"


def test_metadata_config_index(client: triton.InferenceServerClient) -> None:
    assert client.get_server_metadata().name == "headrace"
    model = client.get_model_metadata("cancer")
    assert [(t.name, t.datatype, list(t.shape)) for t in model.inputs] == [("X", "FP32", [-1, 30])]
    assert list(model.versions) == ["1"]
    config = client.get_model_config("cancer").config
    assert config.name == "cancer"
    assert config.max_batch_size == 64
    assert client.get_model_config("talker").config.model_transaction_policy.decoupled
    index = {item.name: item.state for item in client.get_model_repository_index().models}
    assert index["cancer"] == "READY"
    assert index.keys() == {"echo", "slow", "late", "cancer", "org/cancer", "mixed", "talker"}


def test_statistics_count_requests(client: triton.InferenceServerClient) -> None:
    def count() -> int:
        (stats,) = client.get_inference_statistics("org/cancer").model_stats
        return int(stats.inference_count)

    before = count()
    client.infer("org/cancer", [cancer(4)])
    eventually(lambda: count() == before + 4)
    assert len(client.get_inference_statistics().model_stats) >= 6


# --- infer -----------------------------------------------------------------------------------------------------


def test_infer_with_and_without_outputs(client: triton.InferenceServerClient) -> None:
    whole = client.infer("cancer", [cancer()], request_id="a1")
    assert whole.get_response().id == "a1"
    assert whole.get_response().model_name == "cancer"
    assert whole.as_numpy("label").shape == (3,)
    outputs = [triton.InferRequestedOutput("probabilities")]
    part = client.infer("cancer", [cancer()], outputs=outputs)
    assert part.as_numpy("label") is None
    assert same(part.as_numpy("probabilities"), whole.as_numpy("probabilities"))
    classified = client.infer(
        "cancer", [cancer()], outputs=[triton.InferRequestedOutput("probabilities", class_count=2)]
    ).as_numpy("probabilities")
    assert classified.shape == (3, 2)
    assert int(classified[0][0].split(b":")[1]) == whole.as_numpy("probabilities")[0].argmax()


@pytest.mark.parametrize("datatype", ARRAYS)
def test_every_datatype_comes_back(client: triton.InferenceServerClient, datatype: str) -> None:
    result = client.infer("echo", [tensor("x", ARRAYS[datatype], datatype)])
    assert result.get_output("x").datatype == datatype
    assert same(result.as_numpy("x"), ARRAYS[datatype])


def test_all_datatypes_in_one_request(client: triton.InferenceServerClient) -> None:
    result = client.infer("echo", [tensor(name, array, name) for name, array in ARRAYS.items()])
    for name, array in ARRAYS.items():
        assert same(result.as_numpy(name), array), name


def test_text_and_empty_tensors(client: triton.InferenceServerClient) -> None:
    result = client.infer("echo", [tensor("x", objects(TEXTS), "BYTES")])
    assert [item.decode() for item in result.as_numpy("x")] == TEXTS
    empty = np.zeros((0, 3), np.float32)
    assert same(client.infer("echo", [tensor("x", empty, "FP32")]).as_numpy("x"), empty)


TYPED = {
    "BOOL": ("bool_contents", [True, False]),
    "INT8": ("int_contents", [-128, 127]),
    "INT16": ("int_contents", [-(1 << 15), 5]),
    "INT32": ("int_contents", [-(1 << 31), 5]),
    "INT64": ("int64_contents", [-(1 << 63), 5]),
    "UINT8": ("uint_contents", [0, 255]),
    "UINT16": ("uint_contents", [0, (1 << 16) - 1]),
    "UINT32": ("uint_contents", [0, (1 << 32) - 1]),
    "UINT64": ("uint64_contents", [0, (1 << 64) - 1]),
    "FP32": ("fp32_contents", [0.5, -1.25]),
    "FP64": ("fp64_contents", [0.1, 1e300]),
    "BYTES": ("bytes_contents", ["küche".encode(), b""]),
}


def test_typed_contents_are_answered_typed(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
    request = service_pb2.ModelInferRequest(model_name="echo")
    for name, (field, values) in TYPED.items():
        item = request.inputs.add(name=name, datatype=name, shape=[2])
        getattr(item.contents, field).extend(values)
    response = stub.ModelInfer(request)
    assert not response.raw_output_contents
    for output in response.outputs:
        field, values = TYPED[output.name]
        assert list(getattr(output.contents, field)) == values, output.name
        assert output.datatype == output.name
        assert list(output.shape) == [2]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression(client: triton.InferenceServerClient, algorithm: str) -> None:
    array = np.tile(np.arange(100, dtype=np.int32), (40, 1))
    result = client.infer("echo", [tensor("x", array, "INT32")], compression_algorithm=algorithm)
    assert same(result.as_numpy("x"), array)


def test_answers_are_compressed_for_callers_that_compress(clients_server: Served) -> None:
    with grpc.insecure_channel(clients_server.address, compression=grpc.Compression.Gzip) as channel:
        request = service_pb2.ModelInferRequest(model_name="echo")
        request.inputs.add(name="x", datatype="INT8", shape=[100_000])
        request.raw_input_contents.append(bytes(100_000))
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        response, call = stub.ModelInfer.with_call(request)
        assert response.raw_output_contents[0] == bytes(100_000)
        headers = dict(call.initial_metadata())
        assert headers["x-request-id"]


def test_user_metadata_and_request_id(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
    request = service_pb2.ModelInferRequest(model_name="echo")
    request.inputs.add(name="x", datatype="INT8", shape=[1])
    request.raw_input_contents.append(b"\x07")
    metadata = [("x-request-id", "mine-1"), ("x-tenant", "a b"), ("blob-bin", b"\x00\xff")]
    response, call = stub.ModelInfer.with_call(request, metadata=metadata)
    assert response.raw_output_contents[0] == b"\x07"
    assert dict(call.initial_metadata())["x-request-id"] == "mine-1"


def test_async_infer(client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    for at in range(16):
        client.async_infer("echo", [one(at)], lambda result, error: answers.put((result, error)))
    found = [answers.get(timeout=30) for _ in range(16)]
    assert all(error is None for _, error in found)
    assert sorted(int(result.as_numpy("x")[0, 0]) for result, _ in found) == list(range(16))


# --- errors, deadlines, limits ---------------------------------------------------------------------------------


def test_errors_have_codes_and_texts(client: triton.InferenceServerClient) -> None:
    cases = [
        (("nobody", [cancer()]), "NOT_FOUND", "'nobody'"),
        (("no body", [cancer()]), "NOT_FOUND", "'no body'"),
        (("cancer", [cancer()], "7"), "NOT_FOUND", "7"),
        (("cancer", [one(1, "X")]), "INVALID_ARGUMENT", "input 'X': expected datatype FP32, got INT64"),
        (("cancer", [tensor("X", np.zeros((1, 29), np.float32), "FP32")]), "INVALID_ARGUMENT", "[1, 29]"),
        (("talker", [prompt("a")]), "UNIMPLEMENTED", "ModelStreamInfer"),
        (("slow", [one(13)]), "INTERNAL", "holds 13"),
    ]
    for arguments, code, part in cases:
        status, message = refusal(client.infer, *arguments)
        assert status == f"StatusCode.{code}"
        assert part in message
    status, message = refusal(client.infer, "cancer", [cancer()], outputs=[triton.InferRequestedOutput("süß")])
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert "'süß'" in message


def test_a_method_that_is_not_served(client: triton.InferenceServerClient) -> None:
    status, message = refusal(client.get_trace_settings)
    assert status == "StatusCode.UNIMPLEMENTED"
    assert "TraceSetting" in message


def test_raw_and_typed_mixed(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
    request = service_pb2.ModelInferRequest(model_name="echo")
    request.inputs.add(name="x", datatype="INT32", shape=[1]).contents.int_contents.append(1)
    request.raw_input_contents.append(bytes(4))
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "mixed" in caught.value.details()


def test_deadline(client: triton.InferenceServerClient) -> None:
    started = time.monotonic()
    status, message = refusal(client.infer, "slow", [one(1)], client_timeout=SLOW_S / 4)
    # Once the model's latency is known, what will be late is refused at once.
    assert status == "StatusCode.DEADLINE_EXCEEDED" or (status == "StatusCode.UNAVAILABLE" and "predicted" in message)
    assert time.monotonic() - started < SLOW_S


def test_the_server_itself_enforces_the_deadline(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
    request = service_pb2.ModelInferRequest(model_name="late")
    request.inputs.add(name="x", datatype="INT8", shape=[1])
    request.raw_input_contents.append(b"\x01")
    with pytest.raises(grpc.RpcError) as caught:
        # As a header that grpcio does not know to be a deadline of its own.
        stub.ModelInfer(request, metadata=[("grpc-timeout", "60m")])
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_cancel(clients_server: Served, client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    context = client.async_infer("slow", [one(1)], lambda result, error: answers.put((result, error)))
    context.cancel()
    _, error = answers.get(timeout=30)
    assert "CANCELLED" in str(error).upper()
    assert client.infer("slow", [one(2)]).as_numpy("x").tolist() == [[2]]


def test_message_size_limit(client: triton.InferenceServerClient) -> None:
    big = np.zeros(MAX_BODY + 1, np.int8)
    status, message = refusal(client.infer, "echo", [tensor("x", big, "INT8")])
    assert status == "StatusCode.RESOURCE_EXHAUSTED"
    assert str(MAX_BODY) in message
    fits = np.arange(3 << 20, dtype=np.uint32).astype(np.uint8)
    assert same(client.infer("echo", [tensor("x", fits, "UINT8")]).as_numpy("x"), fits)
    # What is small only because it is compressed is measured after inflation.
    status, message = refusal(client.infer, "echo", [tensor("x", big, "INT8")], compression_algorithm="gzip")
    assert status == "StatusCode.RESOURCE_EXHAUSTED"
    assert str(MAX_BODY) in message


# --- streams ---------------------------------------------------------------------------------------------------


class Stream:
    """One open ModelStreamInfer stream of a client."""

    def __init__(self, client: triton.InferenceServerClient, **options: Any) -> None:
        self._client = client
        self._answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        client.start_stream(lambda result, error: self._answers.put((result, error)), **options)

    def send(self, model: str, inputs: list[Any], **options: Any) -> None:
        self._client.async_stream_infer(model, inputs, **options)

    def next(self) -> tuple[Any, Any]:
        return self._answers.get(timeout=30)

    def words(self, count: int) -> list[str]:
        found = []
        for _ in range(count):
            result, error = self.next()
            assert error is None, error
            found.append(result.as_numpy("text")[0].decode())
        return found


@pytest.fixture
def stream(client: triton.InferenceServerClient) -> Iterator[Stream]:
    opened = Stream(client)
    yield opened
    client.stop_stream()


def test_stream_gives_several_responses_to_one_request(stream: Stream) -> None:
    stream.send("talker", [prompt("eins zwei drei")], request_id="r1")
    for wanted in ("eins", "zwei", "drei"):
        result, error = stream.next()
        assert error is None
        assert result.as_numpy("text").tolist() == [wanted.encode()]
        assert result.get_response().id == "r1"
        assert result.get_response().model_name == "talker"


def test_stream_parameters_reach_the_model(stream: Stream) -> None:
    stream.send("talker", [prompt("a b")], parameters={"times": 3})
    assert stream.words(6) == ["a", "b"] * 3


def test_an_error_leaves_the_stream_open(stream: Stream) -> None:
    stream.send("nobody", [one(1)], request_id="bad")
    result, error = stream.next()
    assert result is None
    assert "nobody" in error.message()
    stream.send("cancer", [one(1)])
    assert "missing input 'X'" in stream.next()[1].message()
    stream.send("talker", [prompt("a boom b")])
    assert stream.words(1) == ["a"]
    assert "boom was asked for" in stream.next()[1].message()
    stream.send("talker", [prompt("still here")])
    assert stream.words(2) == ["still", "here"]


def test_unary_models_answer_on_streams_too(stream: Stream) -> None:
    for at in range(20):
        stream.send("echo", [one(at)], request_id=str(at))
    found = {}
    for _ in range(20):
        result, error = stream.next()
        assert error is None
        found[result.get_response().id] = int(result.as_numpy("x")[0, 0])
    assert found == {str(at): at for at in range(20)}


def test_empty_final_response(stream: Stream) -> None:
    stream.send("talker", [prompt("a b")], request_id="r", enable_empty_final_response=True)
    seen = []
    for _ in range(3):
        result, error = stream.next()
        assert error is None
        response = result.get_response()
        final = response.parameters["triton_final_response"].bool_param
        seen.append((final, [output.name for output in response.outputs], response.id))
    assert seen == [(False, ["text"], "r"), (False, ["text"], "r"), (True, [], "r")]
    stream.send("echo", [one(1)], enable_empty_final_response=True)
    response = stream.next()[0].get_response()
    assert response.parameters["triton_final_response"].bool_param
    assert len(response.outputs) == 1


def test_stream_timeout_ends_the_stream(client: triton.InferenceServerClient) -> None:
    opened = Stream(client, stream_timeout=0.3)
    opened.send("talker", [prompt("a b c d")], parameters={"times": 1_000_000})
    opened.words(1)
    while (answer := opened.next())[1] is None:
        pass
    assert "Deadline Exceeded" in answer[1].message()
    client.stop_stream(cancel_requests=True)


def test_a_client_that_leaves_ends_the_work(client: triton.InferenceServerClient, tmp_path: Path) -> None:
    mark = tmp_path / "ended"
    opened = Stream(client)
    opened.send("talker", [prompt("a b c d")], parameters={"times": 1_000_000, "mark": str(mark)})
    opened.words(5)
    assert not mark.exists()
    client.stop_stream(cancel_requests=True)
    eventually(mark.exists)


# --- asyncio ---------------------------------------------------------------------------------------------------


def test_asyncio_client(clients_server: Served) -> None:
    async def main() -> None:
        async with triton_aio.InferenceServerClient(clients_server.address) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("cancer")
            assert (await client.get_server_metadata()).name == "headrace"
            assert (await client.get_model_metadata("cancer")).inputs[0].name == "X"
            assert (await client.get_model_config("cancer")).config.name == "cancer"
            assert (await client.get_inference_statistics("cancer")).model_stats
            results = await asyncio.gather(
                *(client.infer("echo", [tensor("x", array, name)]) for name, array in ARRAYS.items())
            )
            for result, (name, array) in zip(results, ARRAYS.items(), strict=True):
                assert same(result.as_numpy("x"), array), name
            with pytest.raises(InferenceServerException, match="nobody"):
                await client.infer("nobody", [cancer()])
            with pytest.raises(InferenceServerException, match=r"(?i)deadline"):
                await client.infer("slow", [one(1)], client_timeout=SLOW_S / 4)
            call = asyncio.ensure_future(client.infer("slow", [one(1)]))
            await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await stream_of(client)

    async def stream_of(client: Any) -> None:
        async def requests() -> AsyncIterator[dict[str, Any]]:
            yield {"model_name": "talker", "inputs": [prompt("a b")], "request_id": "1"}
            yield {"model_name": "nobody", "inputs": [prompt("a b")], "request_id": "2"}
            yield {"model_name": "talker", "inputs": [prompt("c")], "request_id": "3"}

        words, failed = [], []
        async for result, error in client.stream_infer(requests()):
            if error is not None:
                failed.append(error.message())
            else:
                words.append((result.get_response().id, result.as_numpy("text")[0].decode()))
        assert sorted(words) == [("1", "a"), ("1", "b"), ("3", "c")]
        assert len(failed) == 1
        assert "nobody" in failed[0]

    asyncio.run(main())
