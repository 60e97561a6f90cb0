"""Hostile and unlucky clients over gRPC: frames and messages that are wrong end in a status of the caller's fault."""

from __future__ import annotations

import gzip
import struct
import threading
import time
from collections.abc import Iterator

import grpc
import h2.config
import h2.connection
import h2.events
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests import models
from tests.acceptance.clients.wire import Wire
from tests.acceptance.conftest import no_bugs
from tests.serving import Served, eventually, served

pytestmark = pytest.mark.xdist_group("hostile")

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
MAX_BODY = 2 << 20
CALLERS_FAULT = {"3", "5", "8", "12"}
"""INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED, UNIMPLEMENTED."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(
        f"echo={models.build('echo')}",
        f"cancer={models.build('onnx')}",
        f"counter={models.build('python-stream')}",
        *("--max-body", "2MiB"),
        directory=tmp_path_factory.mktemp("hostile-grpc"),
    ) as running:
        processes = [process.pid for process in running.children("app.gateway") + running.children("replica.worker")]
        yield running
        now = [process.pid for process in running.children("app.gateway") + running.children("replica.worker")]
        assert now == processes, running.log()
        no_bugs(running.log())


@pytest.fixture(scope="module")
def channel(server: Served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as opened:
        yield opened


@pytest.fixture(autouse=True)
def serves_on(channel: grpc.Channel) -> Iterator[None]:
    yield
    started = time.monotonic()
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    assert stub.ModelInfer(good(), timeout=20).raw_output_contents[0] == b"\x01\x02"
    assert time.monotonic() - started < 3


def good() -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name="echo")
    request.inputs.add(name="x", datatype="UINT8", shape=[2])
    request.raw_input_contents.append(b"\x01\x02")
    return request


class Call:
    """A gRPC call by hand, one HTTP/2 connection each."""

    def __init__(self, server: Served, path: str = INFER, **headers: str) -> None:
        self._wire = Wire(server.port)
        self._state = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._state.initiate_connection()
        self.got: dict[str, str] = {}
        self.data = b""
        self.over = False
        given_ = {"content-type": "application/grpc", "te": "trailers"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        first = [(":method", "POST"), (":path", path), (":scheme", "http"), (":authority", "x")]
        self._state.send_headers(1, [*first, *given_.items()])
        self._flush()

    def __enter__(self) -> Call:
        return self

    def __exit__(self, *_: object) -> None:
        self._wire.socket.close()

    def send(self, data: bytes, end: bool = False) -> None:
        while len(data) > 0 or end:
            room = min(self._state.local_flow_control_window(1), self._state.max_outbound_frame_size)
            if data and room <= 0:
                self._read()
                if self.over:
                    return
                continue
            part, data = data[:room], data[room:]
            last = end and not data
            self._state.send_data(1, part, end_stream=last)
            self._flush()
            if last:
                return

    def end(self, data: bytes = b"") -> dict[str, str]:
        """Send the rest and return headers and trailers of the answer."""
        if not self.over:
            self.send(data, end=True)
        while not self.over:
            self._read()
        return self.got

    def _read(self) -> None:
        data = self._wire.socket.recv(1 << 16)
        assert data, f"the connection was closed; got {self.got}"
        for event in self._state.receive_data(data):
            match event:
                case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                    self.got |= dict(event.headers or [])
                case h2.events.DataReceived():
                    self.data += event.data
                    self._state.acknowledge_received_data(event.flow_controlled_length, 1)
                case h2.events.StreamEnded() | h2.events.StreamReset():
                    self.over = True
        self._flush()

    def _flush(self) -> None:
        self._wire.send(self._state.data_to_send())


def framed(message: bytes, flag: int = 0, size: int | None = None) -> bytes:
    return struct.pack(">BI", flag, len(message) if size is None else size) + message


FRAMES = {
    "nothing": b"",
    "half a prefix": b"\0\0",
    "no message": framed(b"", size=5),
    "cut message": framed(good().SerializeToString())[:-3],
    "two messages": framed(good().SerializeToString()) * 2,
    "junk after it": framed(good().SerializeToString()) + b"junk",
    "flag 2": framed(good().SerializeToString(), flag=2),
    "flag 255": framed(good().SerializeToString(), flag=255),
    "compressed without saying how": framed(gzip.compress(good().SerializeToString()), flag=1),
    "not protobuf": framed(b"\xff" * 100),
    "protobuf cut": framed(good().SerializeToString()[:-1]),
    "announces 4 GiB": framed(b"", size=(1 << 32) - 1),
    "announces the limit and a byte": framed(bytes(100), size=MAX_BODY + 1),
    "empty message": framed(b""),
    "JSON": framed(b'{"model_name":"echo"}'),
}


@pytest.mark.parametrize("case", FRAMES)
@pytest.mark.parametrize("path", [INFER, "/inference.GRPCInferenceService/ModelMetadata"])
def test_wrong_frames(server: Served, case: str, path: str) -> None:
    with Call(server, path) as call:
        got = call.end(FRAMES[case])
    assert got[":status"] == "200"
    assert got["content-type"].startswith("application/grpc")
    assert got["grpc-status"] in CALLERS_FAULT, got
    assert got["grpc-message"]


def test_wrong_codings_and_headers(server: Served) -> None:
    message = framed(good().SerializeToString())
    with Call(server, grpc_encoding="br") as call:
        assert call.end(message)["grpc-status"] == "12"
    with Call(server, grpc_encoding="gzip") as call:
        assert call.end(framed(b"no gzip", flag=1))["grpc-status"] == "3"
    with Call(server, grpc_encoding="gzip") as call:
        assert call.end(message)["grpc-status"] == "0"  # flag 0: this message is not compressed
    for timeout in ("", "5", "S", "-5S", "123456789S", "5X", "１S"):
        with Call(server, grpc_timeout=timeout) as call:
            got = call.end(message)
            assert got["grpc-status"] == "3", (timeout, got)
    with Call(server, grpc_timeout="0n") as call:
        assert call.end(message)["grpc-status"] == "4"
    for path in ("/", "/inference.GRPCInferenceService/", "/no.Service/Method", "/" + "x" * 3000):
        with Call(server, path) as call:
            assert call.end(message)["grpc-status"] == "12"


def test_messages_beyond_the_limit(server: Served) -> None:
    (gateway,) = server.children("app.gateway")
    before = gateway.memory_info().rss
    with Call(server) as call:
        got = call.end(framed(bytes(30 << 20)))
    assert got["grpc-status"] == "8"
    assert str(MAX_BODY) in got["grpc-message"]
    packed = gzip.compress(bytes(300 << 20))
    for _ in range(5):
        with Call(server, grpc_encoding="gzip") as call:
            got = call.end(framed(packed, flag=1))
        assert got["grpc-status"] == "8"
        assert str(MAX_BODY) in got["grpc-message"]
    assert gateway.memory_info().rss - before < 60 << 20


def test_a_stream_survives_messages_but_not_broken_frames(server: Served) -> None:
    with Call(server, STREAM) as call:
        got = call.end(framed(b"\xff" * 50) + framed(good().SerializeToString()) + framed(b""))
    assert got["grpc-status"] == "0"
    answers = []
    data = call.data
    while data:
        size = struct.unpack(">I", data[1:5])[0]
        answers.append(service_pb2.ModelStreamInferResponse.FromString(data[5 : 5 + size]))
        data = data[5 + size :]
    assert sorted(bool(answer.error_message) for answer in answers) == [False, True, True]
    with Call(server, STREAM) as call:
        assert call.end(framed(b"", flag=9))["grpc-status"] == "3"
    with Call(server, STREAM) as call:
        assert call.end(framed(bytes(100), size=MAX_BODY + 1))["grpc-status"] == "8"


def test_compressed_messages_on_a_stream(server: Served) -> None:
    """Each is inflated up to the limit, away from everybody else."""
    message = framed(gzip.compress(good().SerializeToString()), flag=1)
    with Call(server, STREAM, grpc_encoding="gzip") as call:
        assert call.end(message * 3)["grpc-status"] == "0"
        assert call.data.count(b"\x32\x02\x01\x02") == 3  # raw_output_contents
    with Call(server, STREAM, grpc_encoding="gzip") as call:
        got = call.end(message + framed(gzip.compress(bytes(300 << 20)), flag=1))
    assert got["grpc-status"] == "8"
    assert str(MAX_BODY) in got["grpc-message"]


def test_dribbled_calls(server: Served) -> None:
    message = framed(good().SerializeToString())
    with Call(server) as call, Call(server, STREAM) as stream:
        for at in range(len(message)):
            call.send(message[at : at + 1])
            stream.send(message[at : at + 1])
        assert call.end()["grpc-status"] == "0"
        assert stream.end()["grpc-status"] == "0"


def test_callers_that_vanish(server: Served) -> None:
    message = framed(good().SerializeToString())
    for at in range(60):
        for path in (INFER, STREAM):
            call = Call(server, path)
            call.send(message[: at % (len(message) + 1)])
            call._wire.reset()


def bits(*parts: bytes) -> bytes:
    return b"".join(parts)


@settings(max_examples=120, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    st.one_of(
        st.binary(max_size=60),
        st.tuples(st.integers(0, 60), st.binary(max_size=6)).map(
            lambda change: bits(
                good().SerializeToString()[: change[0]], change[1], good().SerializeToString()[change[0] :]
            )
        ),
    )
)
def test_mutated_messages(channel: grpc.Channel, message: bytes) -> None:
    for method in (INFER, "/inference.GRPCInferenceService/ModelStatistics", "/grpc.health.v1.Health/Check"):
        call = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
        code = call.future(message, timeout=20).code()
        assert code is grpc.StatusCode.OK or str(code.value[0]) in CALLERS_FAULT, (method, code)


HOSTILE = {
    "shape that overflows": {"shape": [1 << 62, 1 << 62], "datatype": "FP32"},
    "negative shape": {"shape": [-1], "datatype": "FP32"},
    "shape that wraps round": {"shape": [(1 << 63) - 1, 4, 4], "datatype": "FP32"},
    "too many dimensions": {"shape": [1] * 100, "datatype": "UINT8"},
    "unknown datatype": {"shape": [2], "datatype": "FP31"},
    "no datatype": {"shape": [2]},
    "BYTES of a billion": {"shape": [1 << 30], "datatype": "BYTES"},
    "zero times huge": {"shape": [0, 1 << 62], "datatype": "FP32"},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_tensors(channel: grpc.Channel, case: str) -> None:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    for raw in (b"", b"\x01\x02", bytes(4)):
        request = service_pb2.ModelInferRequest(model_name="echo")
        request.inputs.add(name="x", **HOSTILE[case])
        request.raw_input_contents.append(raw)
        for typed in (False, True):
            if typed:
                del request.raw_input_contents[:]
                request.inputs[0].contents.fp32_contents.extend([1.0])
            with pytest.raises(grpc.RpcError) as caught:
                stub.ModelInfer(request, timeout=20)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value
            assert "'x'" in caught.value.details()


def test_many_callers_at_once_that_are_all_wrong(server: Served) -> None:
    """Errors do not pile up anything."""
    (gateway,) = server.children("app.gateway")
    message = bytes(100_000)
    failed: list[grpc.StatusCode] = []

    def attack(count: int) -> None:
        with grpc.insecure_channel(server.address) as opened:
            call = opened.unary_unary(INFER, request_serializer=bytes, response_deserializer=bytes)
            for _ in range(count):
                try:
                    call(b"\xff" + message, timeout=30)
                except grpc.RpcError as error:
                    failed.append(error.code())

    attack(50)
    before = gateway.memory_info().rss
    threads = [threading.Thread(target=attack, args=[200]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [grpc.StatusCode.INVALID_ARGUMENT] * 850
    eventually(lambda: gateway.memory_info().rss - before < 30 << 20)
