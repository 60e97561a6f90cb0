"""Microseconds of our own code per request: the ASGI application with a replica that answers at once, no sockets.

``python -m benchmarks.hot_path [--routed] [--profile]``. Shows what a change costs without the noise of a loaded
machine; the transport, the worker and the kernel are not in it. ``--routed``: with an API key, two weighted
deployments, a sticky header and 1 % to a shadow.
"""

from __future__ import annotations

import asyncio
import cProfile
import itertools
import pstats
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import numpy as np

from headrace.core.calls import Batch, Call, ChunkSink
from headrace.core.endpoints import AdmissionSettings, BatchingSettings
from headrace.core.keys import KeyRecord, KeySet, Scope, digest, make_token
from headrace.core.models import Signature, Slots, TensorSpec
from headrace.core.routes import DeploymentRoute, EndpointRoute, RouteTable
from headrace.core.shadows import Shadow
from headrace.core.tensors import DType, Tensor
from headrace.core.traffic import Source, SourceKind, TrafficPolicy
from headrace.gateway.http import InferenceApp
from headrace.gateway.offload import Offload
from headrace.gateway.records import Records
from headrace.gateway.services import Services
from headrace.gateway.settings import GatewaySettings
from headrace.pipeline.auth import Guard
from headrace.pipeline.deployment import Deployment, maker
from headrace.pipeline.router import Router
from headrace.telemetry.logging import Log
from headrace.telemetry.pages import SeriesPage
from headrace.telemetry.recording import RequestRecorder

SIGNATURE = Signature(
    inputs=(TensorSpec("X", DType.FP32, (-1, 30)),),
    outputs=(TensorSpec("label", DType.INT64, (-1,)), TensorSpec("probabilities", DType.FP32, (-1, 2))),
)
ROUTE = DeploymentRoute(
    id="fraud@1",
    version="1",
    platform="onnx",
    signature=SIGNATURE,
    slots=Slots(),
    batching=BatchingSettings(),
    admission=AdmissionSettings(),
    idempotent=True,
    timeout_s=60.0,
    replica_timeout_s=60.0,
    stream_stall_s=30.0,
    replicas=(),
)
NAMES = ("champion", "challenger", "dark")
ROUTED = EndpointRoute(
    "fraud",
    tuple(
        msgspec.structs.replace(ROUTE, id=f"fraud@{number}", version=f"{number}", name=name)
        for number, name in enumerate(NAMES, 1)
    ),
    {"fraud@1": 0.9999, "fraud@2": 0.0001},
    TrafficPolicy(
        weights={"champion": 9999.0, "challenger": 1.0},
        sticky=Source(SourceKind.HEADER, "x-user-id"),
        shadows=(Shadow("dark", 1.0),),
    ),
)
PLAIN = EndpointRoute("fraud", (ROUTE,), {"fraud@1": 1.0})
KEY_ID, TOKEN = make_token(bytes(range(40)))
KEY_SECRET = b"the secret of this program's digests"
BODY = (
    b'{"inputs":[{"name":"X","shape":[1,30],"datatype":"FP32","data":['
    + b",".join(b"%.6f" % (i * 37 % 100 / 17) for i in range(30))
    + b"]}]}"
)


class InstantReplica:
    """Answers every batch on the next turn of the event loop."""

    id = "fraud@1#0"
    alive = True
    draining = False
    outstanding = 0

    def __init__(self, deployment: Deployment) -> None:
        self.batches: dict[int, Batch] = {}
        self._numbers = itertools.count()
        self._deployment = deployment
        self._loop = asyncio.get_running_loop()

    def submit(self, calls: Sequence[Call], now: float, limit: int, *, idempotent: bool, solo: bool = False) -> Batch:
        batch = Batch(next(self._numbers), calls, sum(c.rows for c in calls), now)
        # Busy until it has answered: a replica that is always idle would be given every call by itself.
        self.batches[batch.id] = batch
        self._loop.call_soon(self._finish, batch)
        return batch

    def _finish(self, batch: Batch) -> None:
        label, probabilities = np.zeros(1, np.int64), np.array([[0.25, 0.75]], np.float32)
        for call in batch.calls:
            call.outputs = [Tensor("label", DType.INT64, label), Tensor("probabilities", DType.FP32, probabilities)]
            call.batch_rows = batch.rows
            call.compute = call.wait = 1e-4
        del self.batches[batch.id]
        self._deployment.finished(self, batch, 1e-4, batch.rows)

    def computing(self) -> tuple[float, int] | None:
        return None

    def start_stream(self, call: Call, sink: ChunkSink, credit: int, *, idempotent: bool) -> int:
        raise NotImplementedError

    def grant(self, number: int, chunks: int) -> None: ...

    def cancel(self, number: int) -> None: ...

    def close(self) -> None: ...


def guard(routed: bool) -> Guard:
    made = Guard()
    if routed:
        record = KeyRecord(KEY_ID, "bench", (Scope.PREDICT,), ("fraud",), digest(KEY_SECRET, TOKEN.encode()), 0.0, "me")
        made.follow(KeySet(1, True, KEY_SECRET, (record,)))
    return made


def application(directory: Path, routed: bool) -> tuple[InferenceApp, Records]:
    records = Records(RequestRecorder(SeriesPage(directory, "hot-path")))

    router = Router(maker(asyncio.get_running_loop(), records))
    router.apply(RouteTable(1, 1, (ROUTED if routed else PLAIN,)))
    for deployment in router.endpoints["fraud"].deployments.values():
        deployment.add_replica(InstantReplica(deployment))
    services = Services(
        GatewaySettings(),
        router,
        records,
        Offload(),
        directory,
        Log("bench"),
        guard=guard(routed),
    )
    return InferenceApp(services), records


async def requests(app: InferenceApp, count: int, concurrency: int, routed: bool) -> float:
    """Seconds for ``count`` requests."""
    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": "/v2/models/fraud/infer",
        "raw_path": b"/v2/models/fraud/infer",
        "headers": [
            (b"host", b"127.0.0.1:8000"),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(BODY)),
            *([(b"authorization", f"Bearer {TOKEN}".encode()), (b"x-user-id", b"ada")] if routed else []),
        ],
    }
    message = {"type": "http.request", "body": BODY}
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return message

    async def send(out: Any) -> None:
        sent.append(out)

    async def client() -> None:
        for _ in range(count // concurrency):
            await app(scope, receive, send)
            sent.clear()

    await app(scope, receive, send)
    if sent[0]["status"] != 200 or b"0.75" not in sent[1]["body"]:
        raise SystemExit(f"wrong answer: {sent}")
    started = perf_counter()
    await asyncio.gather(*(client() for _ in range(concurrency)))
    return perf_counter() - started


async def main(profile: bool, routed: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        app, records = application(Path(directory), routed)
        await requests(app, 2000, 16, routed)
        if profile:
            profiler = cProfile.Profile()
            profiler.enable()
            await requests(app, 20_000, 16, routed)
            profiler.disable()
            pstats.Stats(profiler).sort_stats("tottime").print_stats(35)
            return
        for concurrency in (1, 16, 64):
            best = min([await requests(app, 20_000, concurrency, routed) for _ in range(5)])
            print(f"c={concurrency:<3} {best / 20_000 * 1e6:6.2f} µs a request")
        records.flush()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main("--profile" in sys.argv, "--routed" in sys.argv))
