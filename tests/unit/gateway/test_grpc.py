"""gRPC as ASGI messages: statuses in trailers, frames cut anywhere, many requests on one stream, callers that leave."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import numpy as np
import pytest

from headrace.core import errors
from headrace.core.models import SlotKind, Slots
from headrace.core.requests import Outcome
from headrace.core.tensors import DType, Tensor
from headrace.gateway.settings import GatewaySettings
from headrace.protocols import grpc_frames
from headrace.protocols.grpc_status import Code
from headrace.protocols.proto import health_pb2, reflection_v1_pb2
from headrace.protocols.proto import open_inference_pb2 as pb
from tests.fakes import ROWS, deployment_route, until
from tests.gateways import Exchange, Gateway, run

SERVICE = "/inference.GRPCInferenceService"
HEADERS = {"content-type": "application/grpc", "te": "trailers"}
OK = ("oip-grpc", Outcome.OK, "")


def infer(*rows: float, model: str = "m", version: str = "", id: str = "", width: int = 2) -> bytes:
    message = pb.ModelInferRequest(model_name=model, model_version=version, id=id)
    message.inputs.add(name="x", datatype="FP32", shape=[len(rows), width])
    array = np.repeat(np.array(rows, np.float32)[:, None], width, axis=1)
    message.raw_input_contents.append(array.tobytes())
    return bytes(message.SerializeToString())


def call(gateway: Gateway, method: str, message: bytes = b"", **headers: str) -> Exchange:
    """A unary call; header names use underscores."""
    given = {**HEADERS, **{k.replace("_", "-"): v for k, v in headers.items()}}
    path = method if method.startswith("/") else f"{SERVICE}/{method}"
    return Exchange(gateway, path, headers=given).body(grpc_frames.frame(message))


def values(message: bytes) -> list[float]:
    response = pb.ModelInferResponse.FromString(message)
    return np.frombuffer(response.raw_output_contents[0], np.float32).tolist()  # type: ignore[no-any-return]


# --- unary ---


def test_infer(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        gateway.serve()
        going = await call(gateway, "ModelInfer", infer(1, 3, id="7"), x_request_id="mine").end()
        assert [m["type"] for m in going.sent] == [
            "http.response.start",
            "http.response.body",
            "http.response.trailers",
        ]
        assert going.sent[0]["trailers"] is True
        status, (message,) = going.grpc()
        assert (status, values(message)) == (Code.OK, [2, 2, 6, 6])
        assert pb.ModelInferResponse.FromString(message).id == "7"
        assert (going.headers["content-type"], going.headers["x-request-id"]) == ("application/grpc", "mine")
        assert gateway.outcomes() == [OK]
        assert gateway.seen[0].bytes_out > 0

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (infer(1, model="n"), Code.NOT_FOUND, "not found"),
        (infer(1, version="9"), Code.NOT_FOUND, "no version"),
        (infer(1, width=3), Code.INVALID_ARGUMENT, "expected shape"),
        (b"\xff\xff\xff", Code.INVALID_ARGUMENT, "malformed"),
        (b"", Code.NOT_FOUND, "not found"),
        (infer(13), Code.INTERNAL, "bad row"),
        (infer(1, model="loading"), Code.UNAVAILABLE, "loading"),
        (infer(1, model="streams"), Code.UNIMPLEMENTED, "use ModelStreamInfer"),
    ],
)
def test_failures_are_headers_that_are_also_trailers(tmp_path: Path, message: bytes, code: Code, words: str) -> None:
    def compute(arrays: list[Any]) -> list[Tensor]:
        if arrays[0][0, 0] == 13:
            raise errors.ModelRaised("bad row")
        return [Tensor("y", DType.FP32, arrays[0])]

    async def test(gateway: Gateway) -> None:
        gateway.serve(compute)
        gateway.deploy(deployment_route(id="loading@1", signature=None), endpoint="loading")
        streams = msgspec.structs.replace(ROWS, streaming=True)
        gateway.deploy(deployment_route(id="streams@1", signature=streams), endpoint="streams")
        going = await call(gateway, "ModelInfer", message).end()
        assert [m["type"] for m in going.sent] == ["http.response.start", "http.response.body"]
        assert going.content == b""
        assert int(going.headers["grpc-status"]) == code
        assert words in going.headers["grpc-message"].replace("%20", " ")
        assert going.headers["x-request-id"]
        assert len(gateway.outcomes()) == 1

    run(tmp_path, test)


def test_overload_tells_when_to_come_back(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        gateway.serve()
        small = await call(gateway, "ModelInfer", infer(*range(200)), content_length="5000").end()
        assert int(small.headers["grpc-status"]) == Code.RESOURCE_EXHAUSTED
        chunked = Exchange(gateway, f"{SERVICE}/ModelInfer", headers=HEADERS)
        chunked.body(grpc_frames.frame(infer(*range(200))))
        assert int((await chunked.end()).headers["grpc-status"]) == Code.RESOURCE_EXHAUSTED
        gateway.services.held_bytes = 1900
        budget = await call(gateway, "ModelInfer", infer(1), content_length="500").end()
        gateway.services.held_bytes = 0
        assert int(budget.headers["grpc-status"]) == Code.UNAVAILABLE
        assert int(budget.headers["grpc-retry-pushback-ms"]) == 1000

    run(tmp_path, test, GatewaySettings(max_body_bytes=1000, max_bodies_bytes=2000))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", Code.INVALID_ARGUMENT),
        (b"\0\0\0", Code.INVALID_ARGUMENT),
        (grpc_frames.frame(infer(1))[:-1], Code.INVALID_ARGUMENT),
        (grpc_frames.frame(infer(1)) * 2, Code.INVALID_ARGUMENT),
        (b"\x07" + grpc_frames.frame(infer(1))[1:], Code.INVALID_ARGUMENT),
        (b"\x01" + grpc_frames.frame(infer(1))[1:], Code.INVALID_ARGUMENT),
        (b"\0\xff\xff\xff\xff", Code.RESOURCE_EXHAUSTED),
    ],
)
def test_broken_frames(tmp_path: Path, body: bytes, code: Code) -> None:
    async def test(gateway: Gateway) -> None:
        gateway.serve()
        going = await Exchange(gateway, f"{SERVICE}/ModelInfer", headers=HEADERS).body(body).end()
        assert int(going.headers["grpc-status"]) == code
        assert len(gateway.outcomes()) == 1

    run(tmp_path, test)


def test_frame_that_comes_byte_by_byte(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        gateway.serve()
        going = Exchange(gateway, f"{SERVICE}/ModelInfer", headers=HEADERS)
        for byte in grpc_frames.frame(infer(1)):
            going.body(bytes([byte]), more=True)
        status, (message,) = (await going.body(b"").end()).grpc()
        assert (status, values(message)) == (0, [2, 2])

    run(tmp_path, test)


def test_compression_both_ways(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        gateway.serve()
        going = Exchange(
            gateway,
            f"{SERVICE}/ModelInfer",
            headers={**HEADERS, "grpc-encoding": "gzip", "grpc-accept-encoding": "identity,gzip"},
        )
        going.body(grpc_frames.frame(gzip.compress(infer(*range(500))), compressed=True))
        status, (message,) = (await going.end()).grpc()
        assert (status, going.headers["grpc-encoding"]) == (0, "gzip")
        assert values(message)[-1] == 998
        bomb = Exchange(gateway, f"{SERVICE}/ModelInfer", headers={**HEADERS, "grpc-encoding": "gzip"})
        bomb.body(grpc_frames.frame(gzip.compress(bytes(10_000_000)), compressed=True))
        assert int((await bomb.end()).headers["grpc-status"]) == Code.RESOURCE_EXHAUSTED
        strange = call(gateway, "ModelInfer", infer(1), grpc_encoding="snappy")
        assert int((await strange.end()).headers["grpc-status"]) == Code.UNIMPLEMENTED

    run(tmp_path, test, GatewaySettings(max_body_bytes=1_000_000))


@pytest.mark.parametrize("timeout", ["1", "1x", "-1S", "123456789S", ""])
@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_malformed_timeouts(tmp_path: Path, timeout: str, method: str) -> None:
    async def test(gateway: Gateway) -> None:
        gateway.serve()
        going = await call(gateway, method, infer(1), grpc_timeout=timeout).end()
        assert int(going.headers["grpc-status"]) == Code.INVALID_ARGUMENT
        assert "grpc-timeout" in going.headers["grpc-message"]

    run(tmp_path, test)


def test_deadline(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        replica = gateway.serve()
        replica.paused = True
        going = call(gateway, "ModelInfer", infer(1), grpc_timeout="20m")
        while not going.task.done():
            await asyncio.sleep(0.005)
            gateway.services.router.sweep(monotonic())
        assert int(going.headers["grpc-status"]) == Code.DEADLINE_EXCEEDED
        replica.resume()
        assert gateway.outcomes() == [("oip-grpc", Outcome.DEADLINE, "deadline_exceeded")]

    run(tmp_path, test)


def test_caller_that_leaves(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        replica = gateway.serve()
        replica.paused = True
        going = call(gateway, "ModelInfer", infer(1))
        await until(lambda: replica.batches)
        going.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going.task
        replica.resume()
        gone = call(gateway, "ModelInfer", infer(1))
        gone.send_error = ConnectionResetError("gone")
        await gone.end()
        assert gateway.outcomes() == [("oip-grpc", Outcome.CANCELLED, "cancelled")] * 2

    run(tmp_path, test)


def test_bug_is_internal_and_logged(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        gateway.serve(lambda arrays: [Tensor("y", DType.FP32, "no array")])  # type: ignore[arg-type]
        going = await call(gateway, "ModelInfer", infer(1)).end()
        assert int(going.headers["grpc-status"]) == Code.INTERNAL
        assert gateway.outcomes() == [("oip-grpc", Outcome.BUG, "bug")]

    run(tmp_path, test, logged=1)


def test_other_unary_methods(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        gateway.serve()

        async def ask(method: str, message: Any = None) -> bytes:
            going = await call(gateway, method, b"" if message is None else message.SerializeToString()).end()
            status, (answer,) = going.grpc()
            assert status == 0
            return answer

        assert pb.ServerLiveResponse.FromString(await ask("ServerLive")).live
        assert pb.ServerReadyResponse.FromString(await ask("ServerReady")).ready
        assert pb.ServerMetadataResponse.FromString(await ask("ServerMetadata")).name
        assert pb.ModelReadyResponse.FromString(await ask("ModelReady", pb.ModelReadyRequest(name="m"))).ready
        metadata = pb.ModelMetadataResponse.FromString(await ask("ModelMetadata", pb.ModelMetadataRequest(name="m")))
        assert (metadata.name, metadata.versions[:], metadata.inputs[0].name) == ("m", ["1"], "x")
        assert await ask("ModelConfig", pb.ModelMetadataRequest(name="m"))
        assert await ask("RepositoryIndex")
        assert await ask("ModelStatistics", pb.ModelMetadataRequest(name="m"))
        checked = health_pb2.HealthCheckResponse.FromString(await ask("/grpc.health.v1.Health/Check"))
        assert checked.status == health_pb2.HealthCheckResponse.SERVING
        assert await ask("/grpc.health.v1.Health/List")
        for method, message, code in (
            ("ModelReady", pb.ModelReadyRequest(name="n"), Code.NOT_FOUND),
            ("ModelMetadata", pb.ModelMetadataRequest(name="n"), Code.NOT_FOUND),
            ("ModelStatistics", pb.ModelMetadataRequest(name="n"), Code.NOT_FOUND),
            ("Nothing", pb.ModelMetadataRequest(name="n"), Code.UNIMPLEMENTED),
            ("/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(service="x"), Code.NOT_FOUND),
        ):
            going = await call(gateway, method, message.SerializeToString()).end()
            assert int(going.headers["grpc-status"]) == code, method
        assert gateway.outcomes() == []

    run(tmp_path, test)


# --- streams ---


def test_health_watch_tells_changes_and_ends_when_draining(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        replica = gateway.serve()
        going = call(gateway, "/grpc.health.v1.Health/Watch")
        await going.message(2)
        replica.draining = True
        await going.message(3)
        replica.draining = False
        await going.message(4)
        gateway.services.draining = True
        status, messages = (await going.end()).grpc()
        states = [health_pb2.HealthCheckResponse.FromString(m).status for m in messages]
        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        assert (status, states) == (0, [serving, not_serving, serving, not_serving])
        gone = call(gateway, "/grpc.health.v1.Health/Watch")
        gateway.services.draining = False
        gone.send_error, gone.fail_from = ConnectionResetError("gone"), 1
        await gone.end()

    run(tmp_path, test)


def test_reflection_answers_every_question(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        for version in ("v1", "v1alpha"):
            ask = reflection_v1_pb2.ServerReflectionRequest(list_services="*").SerializeToString()
            path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
            going = Exchange(gateway, path, headers=HEADERS)
            going.body(grpc_frames.frame(ask), more=True)
            await going.message(2)
            going.body(grpc_frames.frame(ask))
            status, messages = (await going.end()).grpc()
            assert (status, len(messages)) == (0, 2)
            assert b"inference.GRPCInferenceService" in messages[0]
            broken = await call(gateway, path, b"\xff\xff").end()
            assert int(broken.headers["grpc-status"]) == Code.INVALID_ARGUMENT

    run(tmp_path, test)


def stream(gateway: Gateway, **headers: str) -> Exchange:
    given = {**HEADERS, **{k.replace("_", "-"): v for k, v in headers.items()}}
    return Exchange(gateway, f"{SERVICE}/ModelStreamInfer", headers=given)


def stream_answers(going: Exchange) -> list[pb.ModelStreamInferResponse]:
    _, messages = going.grpc()
    return [pb.ModelStreamInferResponse.FromString(m) for m in messages]


def counting(count: int) -> Callable[[list[Any]], Iterator[Any]]:
    def chunks(arrays: list[Any]) -> Iterator[list[Tensor]]:
        for number in range(count):
            yield [Tensor("n", DType.FP32, np.array([number], np.float32))]

    return chunks


def streaming(gateway: Gateway, count: int, **route: Any) -> Any:
    return gateway.serve(
        chunks=counting(count),
        signature=msgspec.structs.replace(ROWS, streaming=True),
        slots=Slots(SlotKind.CONCURRENT, 8),
        **{"stream_stall_s": 5.0, **route},
    )


def test_many_requests_on_one_stream_and_an_error_ends_only_its_own(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        gateway.serve()
        going = stream(gateway)
        good = [grpc_frames.frame(infer(n, id=str(n))) for n in range(1, 6)]
        going.body(good[0] + good[1][:7], more=True).body(good[1][7:], more=True)
        going.body(grpc_frames.frame(infer(1, model="n", id="bad")), more=True)
        going.body(grpc_frames.frame(b"\xff\xff"), more=True)
        going.body(b"".join(good[2:]))
        await going.end()
        answers = stream_answers(going)
        assert int(going.headers["grpc-status"]) == 0
        fine = {
            a.infer_response.id: values(a.infer_response.SerializeToString()) for a in answers if not a.error_message
        }
        assert fine == {str(n): [2.0 * n] * 2 for n in range(1, 6)}
        assert sorted("not found" in a.error_message for a in answers if a.error_message) == [False, True]
        outcomes = [o for _, o, _ in gateway.outcomes()]
        assert sorted(outcomes) == [Outcome.OK] * 5 + [Outcome.CALLER_ERROR] * 2
        assert {p for p, _, _ in gateway.outcomes()} == {"oip-grpc-stream"}

    run(tmp_path, test)


def test_chunks_of_streaming_models_come_in_order(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        streaming(gateway, 100)
        going = stream(gateway).body(grpc_frames.frame(infer(1, id="a")))
        await going.end()
        numbers = [values(a.infer_response.SerializeToString())[0] for a in stream_answers(going)]
        assert numbers == list(range(100))
        assert gateway.outcomes() == [("oip-grpc-stream", Outcome.OK, "")]

    run(tmp_path, test)


@pytest.mark.parametrize("how", ["task", "receive", "send"])
def test_caller_of_a_stream_that_leaves_cancels_everything(tmp_path: Path, how: str) -> None:
    async def test(gateway: Gateway) -> None:
        replica = streaming(gateway, 1_000_000)
        going = stream(gateway)
        if how == "send":
            going.send_error, going.fail_from = ConnectionResetError("gone"), 8
        for n in range(3):
            going.body(grpc_frames.frame(infer(n)), more=True)
        await going.message(8)
        if how == "task":
            going.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await going.task
        else:
            if how == "receive":
                going.leave()
            await going.end()
        for _ in range(20):
            await asyncio.sleep(0)
        assert sorted(replica.cancelled) == [1, 2, 3]
        assert gateway.outcomes() == [("oip-grpc-stream", Outcome.CANCELLED, "cancelled")] * 3

    run(tmp_path, test)


def test_stalled_caller_ends_the_call_although_it_holds_its_side_open(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        replica = streaming(gateway, 1_000_000, stream_stall_s=0.05)
        going = stream(gateway).body(grpc_frames.frame(infer(1)), more=True)
        await going.message(4)
        going.send_blocked.clear()
        await going.end()
        for _ in range(20):
            await asyncio.sleep(0)
        assert replica.cancelled == [1]
        assert replica.produced < 100

    run(tmp_path, test)


def test_requests_in_progress_on_one_stream_are_bounded(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        replica = gateway.serve(batching=msgspec.structs.replace(deployment_route().batching, max_batch_size=1))
        replica.paused = True
        going = stream(gateway)
        for n in range(400):
            going.body(grpc_frames.frame(infer(n)), more=True)
        for _ in range(2000):
            await asyncio.sleep(0)
        assert going.read <= 258
        going.body(b"")
        replica.resume()
        await going.end()
        assert len(stream_answers(going)) == 400

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        ({"grpc_encoding": "snappy"}, b"", Code.UNIMPLEMENTED),
        ({}, b"\x07\0\0\0\0", Code.INVALID_ARGUMENT),
        ({}, grpc_frames.frame(infer(1))[:-1], Code.INVALID_ARGUMENT),
        ({}, b"\0\xff\xff\xff\xff", Code.RESOURCE_EXHAUSTED),
    ],
)
def test_broken_streams_end_with_a_status(tmp_path: Path, headers: dict[str, str], body: bytes, code: Code) -> None:
    async def test(gateway: Gateway) -> None:
        gateway.serve()
        for method in (f"{SERVICE}/ModelStreamInfer", "/grpc.health.v1.Health/Watch"):
            given = {**HEADERS, **{k.replace("_", "-"): v for k, v in headers.items()}}
            going = await Exchange(gateway, method, headers=given).body(body).end()
            assert int(going.headers["grpc-status"]) == code, method

    run(tmp_path, test)


def test_stream_without_requests_ends_well(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        going = await stream(gateway).body(b"").end()
        assert going.grpc() == (0, [])

    run(tmp_path, test)
