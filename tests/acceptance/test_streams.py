"""Streams: side by side, with readers who stall or leave, with errors in the middle, over SSE and gRPC."""

from __future__ import annotations

import json
import queue
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import psutil
import pytest

from tests.acceptance import grpc_calls, saboteurs
from tests.serving import Served, eventually, served

pytestmark = pytest.mark.xdist_group("streams")

STREAMER = '''\
import os
import time

import headrace

MARKS = os.environ["RAN"]


class Streamer(headrace.Model):
    """Yields ``prompt-0``, ``prompt-1``, …; each chunk is ``size`` letters longer. Notes how a stream ends."""

    def predict(
        self, prompt: headrace.Strings, count: int = 3, pause_ms: int = 0, size: int = 0, fail_at: int = -1
    ) -> {"text": headrace.Strings}:
        name = prompt[0]
        how = "closed"
        try:
            for number in range(count):
                if number == fail_at:
                    raise ValueError(f"no chunk {number}")
                yield f"{name}-{number}" + "x" * size
                time.sleep(pause_ms / 1e3)
            how = "finished"
        except GeneratorExit:
            how = "left"
            raise
        finally:
            with open(MARKS, "a") as file:
                file.write(f"{name} {how}\\n")
'''

STALL_S = 1.5


class Streaming:
    def __init__(self, server: Served, marks: Path) -> None:
        self.server = server
        self._marks = marks

    def ends(self) -> dict[str, str]:
        """Prompt → how its generator ended."""
        lines = self._marks.read_text().splitlines() if self._marks.exists() else []
        return dict(line.rsplit(" ", 1) for line in lines)

    def open_streams(self) -> int:
        text = httpx.get(f"{self.server.management_url}/metrics").text
        found = [line for line in text.splitlines() if line.startswith("headrace_open_streams{")]
        return sum(int(float(line.rpartition(" ")[2])) for line in found)


@pytest.fixture(scope="module")
def streaming(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Streaming]:
    folder = tmp_path_factory.mktemp("streams")
    model = saboteurs.write(folder, STREAMER)
    run = folder / "run"
    run.mkdir()
    (run / "headrace.yaml").write_text(f"stream_stall: {STALL_S}s\nreplica_timeout: 2s\n")
    marks = folder / "marks"
    with served(model, directory=run, environment={"RAN": str(marks)}) as server:
        yield Streaming(server, marks)


def read_events(url: str, prompt: str, **parameters: int) -> list[str]:
    """Texts of a whole stream over SSE."""
    body = {"prompt": prompt, **parameters}
    with httpx.stream("POST", f"{url}/v2/models/m/generate_stream", json=body, timeout=60) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        documents = [json.loads(line.removeprefix("data: ")) for line in response.iter_lines() if line]
    return [document.get("text", document.get("error", "")) for document in documents]


def read_messages(address: str, prompt: str, **parameters: int) -> list[str]:
    """The same over gRPC."""
    with grpc_calls.stub(address) as stub:
        responses = stub.ModelStreamInfer(iter([grpc_calls.prompt("m", prompt, **parameters)]), timeout=60)
        return [response.error_message or text_of(response.infer_response) for response in responses]


def text_of(response: object) -> str:
    tensor = response.outputs[0]  # type: ignore[attr-defined]
    if tensor.contents.bytes_contents:
        return str(tensor.contents.bytes_contents[0].decode())
    raw = response.raw_output_contents[0]  # type: ignore[attr-defined]
    return str(raw[4:].decode())


def expected(prompt: str, count: int) -> list[str]:
    return [f"{prompt}-{number}" for number in range(count)]


def stall_over_http1(port: int, prompt: str) -> socket.socket:
    """Asks for gigabytes over HTTP/1.1 and reads nothing."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.connect(("127.0.0.1", port))
    body = json.dumps({"prompt": prompt, "count": 1_000_000, "size": 100_000}).encode()
    head = f"POST /v2/models/m/generate_stream HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    one.sendall(head.encode() + body)
    return one


def test_64_streams_with_a_reader_that_stalls(streaming: Streaming) -> None:
    """63 readers over both protocols get every chunk in order while one reads nothing; that one is cancelled after
    ``stream_stall``, its slot is given back and memory stays where it was."""
    server = streaming.server
    gateway, worker = server.children("app.gateway")[0], server.children("replica.worker")[0]
    read_events(server.url, "warm", count=50)
    before = resident(gateway), resident(worker)
    results: queue.Queue[tuple[str, list[str]]] = queue.Queue()

    def read(number: int) -> None:
        prompt = f"reader{number}"
        options = {"count": 150, "pause_ms": 20}
        if number % 2:
            results.put((prompt, read_events(server.url, prompt, **options)))
        else:
            results.put((prompt, read_messages(server.address, prompt, **options)))

    with stall_over_http1(server.port, "stalled"):
        readers = [threading.Thread(target=read, args=[number]) for number in range(63)]
        for reader in readers:
            reader.start()
        eventually(lambda: streaming.open_streams() == 64, timeout=15)
        peak = 0
        while any(reader.is_alive() for reader in readers):
            peak = max(peak, resident(gateway) - before[0], resident(worker) - before[1])
            time.sleep(0.05)
        eventually(lambda: streaming.ends().get("stalled") == "left")
    assert results.qsize() == 63
    while not results.empty():
        prompt, texts = results.get()
        assert texts == expected(prompt, 150)
    assert peak < 100 << 20
    eventually(lambda: streaming.open_streams() == 0)
    assert read_events(server.url, "after", count=2) == expected("after", 2)
    assert server.children("replica.worker")[0].pid == worker.pid


def resident(process: psutil.Process) -> int:
    return int(process.memory_info().rss)


def test_a_grpc_reader_that_stalls(streaming: Streaming) -> None:
    with grpc_calls.stub(streaming.server.address) as stub:
        request = grpc_calls.prompt("m", "stalled-grpc", count=1_000_000, size=100_000)
        call = stub.ModelStreamInfer(iter([request]))
        first = next(call)
        assert text_of(first.infer_response).startswith("stalled-grpc-0")
        eventually(lambda: streaming.ends().get("stalled-grpc") == "left")
        assert read_messages(streaming.server.address, "beside", count=2) == expected("beside", 2)
        call.cancel()
    eventually(lambda: streaming.open_streams() == 0)


def test_more_streams_than_slots_wait_for_one(streaming: Streaming) -> None:
    """64 run side by side; the 65th is answered when one has ended."""
    server = streaming.server
    results: queue.Queue[list[str]] = queue.Queue()
    readers = [
        threading.Thread(target=lambda n=n: results.put(read_events(server.url, f"many{n}", count=5, pause_ms=100)))
        for n in range(80)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
    assert sorted(texts[-1] for texts in results.queue) == sorted(f"many{n}-4" for n in range(80))


@pytest.mark.parametrize("protocol", ["sse", "grpc"])
def test_a_reader_who_leaves_stops_the_generator(streaming: Streaming, protocol: str) -> None:
    server, prompt = streaming.server, f"leaver-{protocol}"
    if protocol == "sse":
        body = {"prompt": prompt, "count": 100_000, "pause_ms": 10}
        with httpx.stream("POST", f"{server.url}/v2/models/m/generate_stream", json=body) as response:
            next(response.iter_lines())
    else:
        with grpc_calls.stub(server.address) as stub:
            call = stub.ModelStreamInfer(iter([grpc_calls.prompt("m", prompt, count=100_000, pause_ms=10)]))
            next(call)
            call.cancel()
    eventually(lambda: streaming.ends().get(prompt) == "left", timeout=5)
    eventually(lambda: streaming.open_streams() == 0, timeout=5)


@pytest.mark.parametrize("protocol", ["sse over HTTP/2", "grpc"])
def test_a_reader_who_leaves_while_the_model_is_silent(streaming: Streaming, protocol: str) -> None:
    """Nothing is sent that could fail: the disconnect itself is seen. (Over HTTP/1.1 the server of the port tells of
    none: there the next chunk meets it.)"""
    server, prompt = streaming.server, f"silent-{protocol[:3]}"
    if protocol == "grpc":
        with grpc_calls.stub(server.address) as stub:
            call = stub.ModelStreamInfer(iter([grpc_calls.prompt("m", prompt, count=3, pause_ms=1500)]))
            next(call)
            eventually(lambda: streaming.open_streams() == 1)
            call.cancel()
            eventually(lambda: streaming.open_streams() == 0, timeout=1.2)
    else:
        url, body = f"{server.url}/v2/models/m/generate_stream", {"prompt": prompt, "count": 3, "pause_ms": 1500}
        with httpx.Client(http1=False, http2=True) as client, client.stream("POST", url, json=body) as response:
            next(response.iter_lines())
            eventually(lambda: streaming.open_streams() == 1)
        eventually(lambda: streaming.open_streams() == 0, timeout=1.2)
    eventually(lambda: streaming.ends().get(prompt) == "left", timeout=5)


@pytest.mark.parametrize("fail_at", [0, 2])
def test_an_error_in_a_stream(streaming: Streaming, fail_at: int) -> None:
    """Before the first chunk it is the status; later it is the last event. gRPC tells it in a message."""
    server, prompt = streaming.server, f"fails-at-{fail_at}"
    over_grpc = read_messages(server.address, prompt, fail_at=fail_at, count=5)
    assert over_grpc[:-1] == expected(prompt, fail_at)
    assert f"ValueError: no chunk {fail_at}" in over_grpc[-1]
    if fail_at:
        over_sse = read_events(server.url, prompt, fail_at=fail_at, count=5)
        assert over_sse[:-1] == expected(prompt, fail_at)
        assert f"ValueError: no chunk {fail_at}" in over_sse[-1]
    else:
        body = {"prompt": prompt, "fail_at": 0}
        response = httpx.post(f"{server.url}/v2/models/m/generate_stream", json=body)
        assert response.status_code == 500
        assert "ValueError: no chunk 0" in response.json()["error"]


def test_requests_of_one_grpc_stream_are_answered_side_by_side(streaming: Streaming) -> None:
    """An error of one leaves the others alone."""
    requests = [
        grpc_calls.prompt("m", "slow", count=3, pause_ms=200),
        grpc_calls.prompt("m", "broken", count=3, fail_at=1),
        grpc_calls.prompt("m", "quick", count=3),
    ]
    with grpc_calls.stub(streaming.server.address) as stub:
        answers = list(stub.ModelStreamInfer(iter(requests), timeout=60))
    texts = [text_of(a.infer_response) for a in answers if not a.error_message]
    assert [text for text in texts if text.startswith("slow")] == expected("slow", 3)
    assert [text for text in texts if text.startswith("quick")] == expected("quick", 3)
    assert [text for text in texts if text.startswith("broken")] == expected("broken", 1)
    assert texts.index("quick-2") < texts.index("slow-2")
    assert ["no chunk 1" in a.error_message for a in answers].count(True) == 1


def test_a_long_stream_is_no_hang(streaming: Streaming) -> None:
    """Its chunks come sooner than ``replica_timeout``, all of it does not; a chunk that does not come is a hang."""
    server = streaming.server
    (worker,) = server.children("replica.worker")
    assert len(read_events(server.url, "long", count=12, pause_ms=250)) == 12
    assert [p.pid for p in server.children("replica.worker")] == [worker.pid]

    beside: queue.Queue[list[str]] = queue.Queue()
    reader = threading.Thread(
        target=lambda: beside.put(read_events(server.url, "victim", count=1000, pause_ms=10)), daemon=True
    )
    reader.start()
    hung = read_events(server.url, "hangs", count=2, pause_ms=60_000)
    assert hung[0] == "hangs-0"
    assert "died while it streamed" in hung[1]
    reader.join(30)
    # Never tried again after its first chunk: what was read stands.
    victim = beside.get(timeout=10)
    assert victim[:5] == expected("victim", 5)
    assert "died while it streamed" in victim[-1]
    event = server.wait_event("ReplicaRestarted")
    assert "hang: a batch ran for" in event["reason"]
    assert eventually(lambda: read_events(server.url, "again", count=1) == ["again-0"])


def test_a_killed_replica_ends_its_streams_with_an_error(streaming: Streaming) -> None:
    server = streaming.server
    with grpc_calls.stub(server.address) as stub:
        call = stub.ModelStreamInfer(iter([grpc_calls.prompt("m", "killed", count=1000, pause_ms=20)]), timeout=60)
        next(call)
        (worker,) = server.children("replica.worker")
        worker.kill()
        rest = list(call)
    assert "died while it streamed" in rest[-1].error_message
    server.wait_event("ReplicaRestarted")


def test_deadlines_of_streams(streaming: Streaming) -> None:
    """A caller's deadline bounds the whole stream; the default one only the wait for its first chunk."""
    with grpc_calls.stub(streaming.server.address) as stub:
        call = stub.ModelStreamInfer(iter([grpc_calls.prompt("m", "late", count=1000, pause_ms=20)]), timeout=0.5)
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    eventually(lambda: streaming.ends().get("late") == "left", timeout=5)
    body = {"prompt": "late-sse", "count": 1000, "pause_ms": 20}
    url, headers = f"{streaming.server.url}/v2/models/m/generate_stream", {"x-request-timeout-ms": "500"}
    began = time.monotonic()
    with httpx.stream("POST", url, json=body, headers=headers, timeout=30) as response:
        lines = [line for line in response.iter_lines() if line]
    assert time.monotonic() - began < 5
    assert "deadline" in json.loads(lines[-1].removeprefix("data: "))["error"]
    eventually(lambda: streaming.ends().get("late-sse") == "left", timeout=5)
