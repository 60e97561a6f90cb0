"""The whole way in a minute: train on real data, serve, ask over REST and gRPC, measure. ``make demo`` runs this."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import tritonclient.grpc as triton
import xgboost
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

FOLDER = Path("demo-models")
CONNECTIONS = 16
SECONDS = 3.0


def main() -> None:
    rows, labels = train(FOLDER / "cancer.ubj")
    with serve(FOLDER / "cancer.ubj") as url:
        ask_rest(url, rows, labels)
        ask_grpc(url, rows)
        measure(url, rows)
    print("\nGo on with:\n\n    .venv/bin/headrace serve demo-models/cancer.ubj\n")


def train(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Train on the Wisconsin breast-cancer set (569 biopsies, 30 measurements); returns held-out rows and labels."""
    data, labels = load_breast_cancer(return_X_y=True)
    kept, held, kept_labels, held_labels = train_test_split(
        data.astype(np.float32), labels, test_size=0.2, random_state=0
    )
    started = time.perf_counter()
    model = xgboost.XGBClassifier(n_estimators=100, max_depth=4).fit(kept, kept_labels)
    path.parent.mkdir(exist_ok=True)
    model.save_model(path)
    accuracy = float((model.predict(held) == held_labels).mean())
    print(f"trained   XGBoost on {len(kept)} biopsies in {time.perf_counter() - started:.2f} s;", end=" ")
    print(f"{accuracy:.1%} right on {len(held)} it has not seen; saved as {path}")
    return held, held_labels


@contextmanager
def serve(path: Path) -> Iterator[str]:
    """``headrace serve`` on free ports; gives the URL."""
    command = [sys.executable, "-m", "headrace.cli.main", "serve", str(path), "--no-auth"]
    started = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--port", "0", "--management-port", "0", "--json"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            event = json.loads(line)
            if event["type"] == "Serving":
                print(f"serving   {event['url']} (REST and gRPC) after {time.perf_counter() - started:.2f} s")
                yield event["url"]
                break
        else:
            raise SystemExit("headrace serve ended before it served; its log is above")
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def ask_rest(url: str, rows: np.ndarray, labels: np.ndarray) -> None:
    """Plain JSON, as curl would send it."""
    connection = HTTPConnection(urlsplit(url).netloc)
    body = json.dumps({"instances": rows[:3].tolist()})
    connection.request("POST", "/v1/models/cancer:predict", body, {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    print("REST      POST /v1/models/cancer:predict")
    for prediction, truth in zip(answer["predictions"], labels[:3].tolist(), strict=True):
        print(f"            {prediction}   (truth: {truth})")


def ask_grpc(url: str, rows: np.ndarray) -> None:
    """NVIDIA's own client for Triton, unchanged."""
    client = triton.InferenceServerClient(urlsplit(url).netloc)
    name = client.get_model_metadata("cancer").inputs[0].name
    tensor = triton.InferInput(name, list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows)
    result = client.infer("cancer", [tensor])
    chances = result.as_numpy("probabilities")
    client.close()
    print(f"gRPC      tritonclient: {len(chances)} rows in one call, probabilities of the first: {chances[0]}")


def measure(url: str, rows: np.ndarray) -> None:
    """Latency of a lone caller and throughput of several, one row a request, from this Python process."""
    host, port = urlsplit(url).netloc.split(":")
    body = json.dumps({"instances": rows[:1].tolist()}).encode()
    head = f"POST /v1/models/cancer:predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    lone = asyncio.run(load(host, int(port), head + body, connections=1))
    many = asyncio.run(load(host, int(port), head + body, connections=CONNECTIONS))
    for name, times in (("1 caller", lone), (f"{CONNECTIONS} callers", many)):
        ordered = sorted(times)
        p99 = ordered[int(len(ordered) * 0.99)]
        print(
            f"measured  {name:>10}: {len(times) / SECONDS:7,.0f} requests/s,"
            f" p50 {statistics.median(ordered) * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms"
        )


async def load(host: str, port: int, request: bytes, connections: int) -> list[float]:
    """Seconds per request of closed-loop callers on kept-alive connections; every answer must be a 200."""
    until = time.perf_counter() + SECONDS
    taken: list[float] = []

    async def caller() -> None:
        reader, writer = await asyncio.open_connection(host, port)
        while (began := time.perf_counter()) < until:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"unexpected answer: {head!r}")
            length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
            await reader.readexactly(int(length))
            taken.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*(caller() for _ in range(connections)))
    return taken


if __name__ == "__main__":
    main()
