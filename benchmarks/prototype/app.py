"""The hot path of Headrace with everything else left out: the yardstick of the REST rows.

ASGI on h2corn, msgspec decode, one frame per batch over a Unix socket to a worker process, encode. No errors, limits,
routing, metrics or deadlines: what Headrace adds on top is what the ratio to this program shows. Served by
``h2corn --app-dir prototype app:app``; ``app.py SOCKET`` is the worker. ``BENCH_MODEL`` names the ONNX file.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

MAX_BATCH = 64
MAX_OUTSTANDING = 2
FEATURES = 30
HEADER = struct.Struct("<II")  # bytes that follow, rows
JSON_TYPE = (b"content-type", b"application/json")


class Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Request(msgspec.Struct):
    inputs: list[Tensor]


decode = msgspec.json.Decoder(Request).decode
encode = msgspec.json.Encoder().encode

Result = tuple[np.ndarray, np.ndarray]
Waiting = list[tuple[np.ndarray, asyncio.Future[Result]]]


class WorkerLink(asyncio.Protocol):
    """Collects what arrives in one turn of the loop into a batch; at most two batches are outstanding."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.received = bytearray()
        self.outstanding: list[Waiting] = []
        self.waiting: Waiting = []
        self.scheduled = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def run(self, rows: np.ndarray) -> asyncio.Future[Result]:
        result: asyncio.Future[Result] = self.loop.create_future()
        self.waiting.append((rows, result))
        self._schedule()
        return result

    def _schedule(self) -> None:
        if self.waiting and not self.scheduled and len(self.outstanding) < MAX_OUTSTANDING:
            self.scheduled = True
            self.loop.call_soon(self._send_batch)

    def _send_batch(self) -> None:
        self.scheduled = False
        batch, self.waiting = self.waiting[:MAX_BATCH], self.waiting[MAX_BATCH:]
        if not batch:
            return
        self.outstanding.append(batch)
        payload = b"".join([rows.tobytes() for rows, _ in batch])
        self.transport.write(HEADER.pack(len(payload), sum(len(rows) for rows, _ in batch)) + payload)
        self._schedule()

    def data_received(self, data: bytes) -> None:
        received = self.received
        received += data
        while len(received) >= HEADER.size:
            length, rows = HEADER.unpack_from(received)
            if len(received) < HEADER.size + length:
                break
            payload = bytes(received[HEADER.size : HEADER.size + length])
            del received[: HEADER.size + length]
            self._answer(payload, rows)
        self._schedule()

    def _answer(self, payload: bytes, rows: int) -> None:
        labels = np.frombuffer(payload, np.int64, rows)
        probabilities = np.frombuffer(payload, np.float32, rows * 2, rows * 8).reshape(rows, 2)
        start = 0
        for sent, result in self.outstanding.pop(0):
            end = start + len(sent)
            if not result.done():
                result.set_result((labels[start:end], probabilities[start:end]))
            start = end


def worker(path: str) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        connection, _ = listener.accept()
    with connection, connection.makefile("rb", 1 << 20) as frames:
        while len(header := frames.read(HEADER.size)) == HEADER.size:
            length, rows = HEADER.unpack(header)
            inputs = np.frombuffer(frames.read(length), np.float32).reshape(rows, FEATURES)
            labels, probabilities = session.run(None, {"input": inputs})
            answer = labels.tobytes() + probabilities.tobytes()
            connection.sendall(HEADER.pack(len(answer), rows) + answer)


async def start_worker() -> WorkerLink:
    path = Path(tempfile.mkdtemp(prefix="prototype-")) / "worker.sock"
    subprocess.Popen([sys.executable, __file__, str(path)])  # noqa: ASYNC220 - nothing is served yet
    loop = asyncio.get_running_loop()
    while True:
        try:
            _, link = await loop.create_unix_connection(WorkerLink, str(path))
            return link
        except OSError:
            await asyncio.sleep(0.05)


link: WorkerLink


Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    message = await receive()
    body = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    tensor = decode(body).inputs[0]
    labels, probabilities = await link.run(np.array(tensor.data, dtype=np.float32).reshape(tensor.shape))
    answer = encode(
        {
            "model_name": "fraud",
            "model_version": "1",
            "outputs": [
                {"name": "label", "datatype": "INT64", "shape": list(labels.shape), "data": labels.tolist()},
                {
                    "name": "probabilities",
                    "datatype": "FP32",
                    "shape": list(probabilities.shape),
                    "data": probabilities.ravel().tolist(),
                },
            ],
        }
    )
    headers = [JSON_TYPE, (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def lifespan(receive: Receive, send: Send) -> None:
    global link
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            link = await start_worker()
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return


if __name__ == "__main__":
    worker(sys.argv[1])
