"""The end of a server, asked for and under load: not ready, then closed, nothing lost, nothing left behind."""

from __future__ import annotations

import json
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests import models
from tests.acceptance import grpc_calls, saboteurs
from tests.acceptance.load import Answer, Load, infer_body, output, post
from tests.acceptance.processes import all_end, descendants, runtime_directory
from tests.serving import Served, eventually, served

SLOW_BODY = json.dumps(json.loads(infer_body(5.0)) | {"parameters": {"sleep_ms": 1500}}).encode()
INFER = "/v2/models/m/infer"


class Leftovers:
    """What must be gone when a server has ended."""

    def __init__(self, server: Served) -> None:
        self._family = descendants(server.process.pid)
        self._directory = runtime_directory(server)
        self._ports = (server.port, int(server.management_url.rpartition(":")[2]))
        assert self._directory.exists()

    def none(self) -> bool:
        return all_end(self._family) and not self._directory.exists() and not any(map(accepts, self._ports))


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class GrpcLoad(threading.Thread):
    """Calls again and again over one channel until nobody listens any more; anything else that fails was lost."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self._address = address
        self.answered = 0
        self.lost: list[str] = []

    def run(self) -> None:
        with grpc_calls.stub(self._address) as stub:
            while True:
                try:
                    response = stub.ModelInfer(grpc_calls.request("m", float(self.answered)), timeout=20)
                except grpc.RpcError as error:
                    if "failed to connect to all addresses" not in error.details():
                        self.lost.append(f"{error.code()} {error.details()}")
                    return
                if response.model_name != "m":
                    self.lost.append("a wrong answer")
                self.answered += 1


@pytest.mark.parametrize(("gateways", "number"), [(1, signal.SIGTERM), (4, signal.SIGINT)])
def test_the_end_under_load(tmp_path: Path, gateways: int, number: signal.Signals) -> None:
    model = saboteurs.write(tmp_path, saboteurs.DOUBLE)
    flags = ("--gateways", str(gateways), "--drain-delay", "1s")
    with served(model, *flags, directory=tmp_path / "run") as server:
        leftovers = Leftovers(server)
        over_grpc = [GrpcLoad(server.address) for _ in range(3)]
        for caller in over_grpc:
            caller.start()
        with Load(server.address, "m", clients=6) as load:
            load.wait_for(100)
            eventually(lambda: all(caller.answered > 10 for caller in over_grpc))
            signalled = time.monotonic()
            server.process.send_signal(number)
            server.wait_event("Draining")
            # Balancers see it and stop sending; who still comes is answered, on a connection that then closes.
            eventually(lambda: httpx.get(f"{server.url}/v2/health/ready").status_code == 503, timeout=0.9)
            eventually(lambda: httpx.get(f"{server.management_url}/readyz").status_code == 503, timeout=0.9)
            answer = post(server.address, INFER, infer_body(1.0))
            assert answer.status == 200
            assert answer.headers["connection"] == "close"
            assert httpx.get(f"{server.url}/v2/health/live").status_code == 200
            with httpx.Client(http1=False, http2=True) as over_http2:
                # HTTP/2 knows no such header, and clients refuse answers that have it.
                live = over_http2.get(f"{server.url}/v2/health/live")
                assert (live.status_code, live.http_version) == (200, "HTTP/2")
                assert "connection" not in live.headers
            assert server.process.wait(30) == 0
            ended = time.monotonic()
        for caller in over_grpc:
            caller.join(30)
        assert 1.0 < ended - signalled < 15
        assert {answer.error.partition(":")[0] for answer in load.failed()} <= {"ConnectionRefusedError"}
        assert all(output(a.document) == [2 * a.number] for a in load.answers if a.status == 200)
        assert any(a.status == 200 and a.at > signalled + 0.5 for a in load.answers)
        assert [caller.lost for caller in over_grpc] == [[], [], []]
        assert leftovers.none()
        assert server.wait_event("Stopped")["exit_code"] == 0


def started(target: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=target)
    thread.start()
    return thread


def test_what_was_accepted_is_finished(tmp_path: Path) -> None:
    """A slow computation, a body that is still on its way; idle connections hold nothing up."""
    model = saboteurs.write(tmp_path, saboteurs.SABOTEUR)
    trace = tmp_path / "ran"
    with served(model, directory=tmp_path / "run", environment={"RAN": str(trace)}) as server:
        leftovers = Leftovers(server)
        idle = httpx.Client()
        assert idle.get(f"{server.url}/v2").status_code == 200
        answers: list[Answer] = []
        codes: list[grpc.StatusCode] = []

        def over_grpc() -> None:
            with grpc_calls.stub(server.address) as stub:
                request = grpc_calls.request("m", 6.0, parameters={"sleep_ms": 1500})
                codes.append(stub.ModelInfer.future(request).code())

        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as half:
            body = infer_body(7.0)
            half.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:9])
            callers = [started(lambda: answers.append(post(server.address, INFER, SLOW_BODY)))]
            eventually(lambda: 5.0 in saboteurs.ran(trace))
            callers.append(started(over_grpc))
            eventually(lambda: in_flight(server) >= 2)
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            server.wait_event("Draining")
            half.sendall(body[9:])
            answered = b""
            while data := half.recv(65536):
                answered += data
        assert answered.startswith(b"HTTP/1.1 200 ")
        assert b'"data":[14.0]' in answered
        for caller in callers:
            caller.join(30)
        assert [answer.status for answer in answers] == [200]
        assert codes == [grpc.StatusCode.OK]
        assert server.process.wait(30) == 0
        assert time.monotonic() - began < 15
        idle.close()
        assert leftovers.none()


def in_flight(server: Served) -> int:
    load = httpx.get(f"{server.management_url}/api/v1/endpoints/m").json()["deployments"][0]["load"]
    return int(load["in_flight"])


def test_a_stream_that_has_begun_is_finished(tmp_path: Path) -> None:
    """Over SSE and over gRPC, whether its caller has ended its side or may ask for more."""
    model = models.build("python-stream", tmp_path / "model")
    source = model.read_text().replace("yield word", "yield word; time.sleep(0.1)")
    model.write_text(f"import time\n{source}")
    with served(model, directory=tmp_path / "run") as server, grpc_calls.stub(server.address) as stub:
        leftovers = Leftovers(server)
        hold = threading.Event()

        def requests() -> Iterator[object]:
            yield grpc_calls.prompt("counter", "a b c", times=5)
            hold.wait(60)

        half_closed = stub.ModelStreamInfer(iter([grpc_calls.prompt("counter", "a b c", times=5)]))
        open_ended = stub.ModelStreamInfer(requests())
        url, body = f"{server.url}/v2/models/counter/generate_stream", {"prompt": "a b c", "times": 5}
        with httpx.stream("POST", url, json=body, timeout=60) as response:
            lines = response.iter_lines()
            next(lines), next(half_closed), next(open_ended)
            server.process.send_signal(signal.SIGTERM)
            assert len([line for line in lines if line]) == 14
        assert len(list(half_closed)) == 14
        rest = []
        with pytest.raises(grpc.RpcError) as ended:
            rest.extend(answer for answer in open_ended)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "shutting down" in ended.value.details()
        assert len(rest) == 14
        hold.set()
        assert server.process.wait(30) == 0
        assert leftovers.none()


def test_open_streams_without_work_hold_nothing_up(tmp_path: Path) -> None:
    """A health watch is told NOT_SERVING; it and a ModelStreamInfer call that asks for nothing are ended."""
    model = saboteurs.write(tmp_path, saboteurs.DOUBLE)
    with (
        served(model, "--drain", "30s", directory=tmp_path / "run") as server,
        grpc.insecure_channel(server.address) as channel,
        grpc_calls.stub(server.address) as stub,
    ):
        leftovers = Leftovers(server)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        hold = threading.Event()

        def requests() -> object:
            yield grpc_calls.request("m", 4.0)
            hold.wait(60)

        stream = stub.ModelStreamInfer(requests())
        assert next(stream).infer_response.model_name == "m"
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert server.process.wait(30) == 0
        assert time.monotonic() - began < 12
        hold.set()
        with pytest.raises(grpc.RpcError) as ended:
            next(stream)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert leftovers.none()


def test_a_model_that_never_ends_is_bounded_by_drain(tmp_path: Path) -> None:
    """What was accepted and cannot be finished, computed or waiting, is answered all the same, and it is said."""
    model = saboteurs.write(tmp_path, saboteurs.SABOTEUR)
    trace = tmp_path / "ran"
    with served(model, "--drain", "1s", directory=tmp_path / "run", environment={"RAN": str(trace)}) as server:
        leftovers = Leftovers(server)
        answers: list[Answer] = []
        refusals: list[tuple[grpc.StatusCode, str]] = []

        def over_grpc() -> None:
            with grpc_calls.stub(server.address) as stub:
                call = stub.ModelInfer.future(grpc_calls.request("m", 1.0))
                refusals.append((call.code(), call.details()))

        callers = [started(lambda: answers.append(post(server.address, INFER, infer_body(saboteurs.HANG))))]
        eventually(lambda: saboteurs.HANG in saboteurs.ran(trace))
        callers.append(started(lambda: answers.append(post(server.address, INFER, infer_body(1.0)))))
        callers.append(started(over_grpc))
        eventually(lambda: in_flight(server) == 3)
        began = time.monotonic()
        assert server.stop(timeout=30) == 0
        assert 1.0 < time.monotonic() - began < 15
        for caller in callers:
            caller.join(30)
        assert [answer.status for answer in answers] == [503, 503]
        assert all("the server is shutting down" in answer.document["error"] for answer in answers)
        assert [code for code, _ in refusals] == [grpc.StatusCode.UNAVAILABLE]
        assert "the server is shutting down" in refusals[0][1]
        assert server.wait_event("RequestsCut")["requests"] == 3
        assert leftovers.none()


def test_a_stream_that_never_ends_is_told_when_drain_is_over(tmp_path: Path) -> None:
    model = models.build("python-stream", tmp_path / "model")
    source = model.read_text().replace("yield word", "yield word; time.sleep(1000)")
    model.write_text(f"import time\n{source}")
    with served(model, "--drain", "1s", directory=tmp_path / "run") as server:
        url, body = f"{server.url}/v2/models/counter/generate_stream", {"prompt": "a b c", "times": 5}
        with httpx.stream("POST", url, json=body, timeout=60) as response:
            lines = (line for line in response.iter_lines() if line)
            assert "error" not in next(lines)
            server.process.send_signal(signal.SIGTERM)
            (last,) = lines
        assert "the server is shutting down" in json.loads(last.removeprefix("data: "))["error"]
        assert server.process.wait(30) == 0
        assert server.wait_event("RequestsCut")["requests"] == 1


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    model = saboteurs.write(tmp_path, saboteurs.SABOTEUR)
    trace = tmp_path / "ran"
    flags = ("--drain", "60s", "--gateways", "2")
    with served(model, *flags, directory=tmp_path / "run", environment={"RAN": str(trace)}) as server:
        leftovers = Leftovers(server)
        caller = started(lambda: post(server.address, INFER, infer_body(saboteurs.HANG)))
        eventually(lambda: saboteurs.HANG in saboteurs.ran(trace))
        server.process.send_signal(signal.SIGINT)
        server.wait_event("Draining")
        began = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        # What was accepted is lost: that is no success.
        assert server.process.wait(30) == 1
        assert time.monotonic() - began < 5
        assert server.wait_event("Stopped")["exit_code"] == 1
        caller.join(30)
        assert leftovers.none()


@pytest.mark.parametrize("moment", ["at once", "while a model loads"])
def test_a_signal_during_the_start(tmp_path: Path, moment: str) -> None:
    source = saboteurs.SLOW_TO_LOAD.replace("sleep(1.0)", "sleep(100)")
    model = saboteurs.write(tmp_path, source)
    with (
        tempfile.TemporaryDirectory() as folder,
        served(model, directory=tmp_path / "run", environment={"TMPDIR": folder}, wait=False) as server,
    ):
        scratch = Path(folder)
        if moment == "at once":
            eventually(lambda: list(scratch.glob("headrace-*/control.sock")), pause=0.001)
        else:
            server.wait_event("ModelInspected")
            eventually(lambda: server.children("replica.worker"))
        family = descendants(server.process.pid)
        assert server.stop(timeout=30) == 0
        assert all_end(family)
        assert not any(scratch.iterdir())
