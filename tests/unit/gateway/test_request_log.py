"""Request logs of gateways: every answered request is in them before its answer leaves, whatever the protocol, and a
full disk fails no request."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
from tritonclient.grpc import service_pb2

from headrace.core import errors, request_log
from headrace.core.fallbacks import DeploymentFallback
from headrace.core.models import SlotKind, Slots
from headrace.core.request_log import Answered, Entry, Lost, SegmentHeader, Shares
from headrace.core.routes import EndpointRoute, RequestLogRoute, RouteTable
from headrace.core.tensors import Tensor
from headrace.core.traffic import TrafficPolicy
from headrace.gateway import request_log as writing
from headrace.gateway.request_log import EndpointLog, RequestLogs, Segment
from headrace.protocols import grpc_frames
from headrace.telemetry.logging import Log
from headrace.telemetry.pages import SeriesPage
from headrace.telemetry.recording import RequestRecorder
from tests.fakes import ROWS, ComputingReplica, deployment_route, until
from tests.gateways import Exchange, Gateway, doubled, run

HEAD = SegmentHeader("m", "x1", 0)
CHAMPION, CHALLENGER = (
    deployment_route(id=f"m@{version}", version=version, name=name)
    for version, name in (("1", "champion"), ("2", "challenger"))
)


def entries(folder: Path) -> list[Entry]:
    found: list[Entry] = []
    for path in sorted(folder.glob("*.requests")):
        content = path.read_bytes()
        head = request_log.read_header(content)
        assert head is not None
        found += [entry for entry, _ in request_log.read(content, head[1])]
    return found


def answered(folder: Path) -> list[tuple[str, str, bool]]:
    return [(e.request_id, e.arm, e.pinned) for e in entries(folder) if isinstance(e, Answered)]


class Disk:
    """Gives room for ``free`` segments."""

    def __init__(self, free: int, size: int = 4096) -> None:
        self.free = free
        self.size = size

    def __call__(self, route: RequestLogRoute, head: SegmentHeader) -> Segment:
        if not self.free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.free -= 1
        return Segment(route, head, self.size)


def log(folder: Path, disk: Disk, waiting_bytes: int = 1 << 20) -> EndpointLog:
    recorder = RequestRecorder(SeriesPage(folder.parent, "gateway-0"))
    made = EndpointLog(
        RequestLogRoute("x1", str(folder)),
        HEAD,
        recorder,
        Log("test"),
        make_segment=disk,
        waiting_bytes=waiting_bytes,
    )
    made.follow(EndpointRoute("m", (CHAMPION, CHALLENGER), {"m@1": 3.0, "m@2": 1.0}))
    return made


def test_every_segment_says_which_shares_are_in_force(tmp_path: Path) -> None:
    made = log(tmp_path / "log", Disk(100))
    for number in range(200):
        made.note(f"{number:040}", CHAMPION, False, False)
        made.tend(0.0)
    made.close()
    found = entries(tmp_path / "log")
    shares = [entry for entry in found if isinstance(entry, Shares)]
    assert len(shares) == len(list((tmp_path / "log").glob("*.requests"))) > 1
    assert set(map(str, shares)) == {str(Shares({"champion": 0.75, "challenger": 0.25}))}
    assert [e.request_id for e in found if isinstance(e, Answered)] == [f"{n:040}" for n in range(200)]


def test_a_full_disk_delays_the_log_and_loses_nothing(tmp_path: Path) -> None:
    disk = Disk(0)
    made = log(tmp_path / "log", disk)
    for number in range(300):
        made.note(f"{number:040}", CHALLENGER, False, False)
    assert made.waiting_bytes > 300 * 40
    disk.free = 100
    now = time.monotonic()
    made.tend(now)
    assert not entries(tmp_path / "log"), "it is not asked for room at every tick"
    made.tend(now + 2)
    assert made.waiting_bytes == 0
    made.close()
    assert [id for id, _, _ in answered(tmp_path / "log")] == [f"{n:040}" for n in range(300)]


def test_what_a_full_disk_loses_is_counted_and_told(tmp_path: Path) -> None:
    disk = Disk(0)
    made = log(tmp_path / "log", disk, waiting_bytes=1000)
    for number in range(100):
        made.note(f"{number:040}", CHAMPION, False, False)
    disk.free = 10
    made.tend(time.monotonic() + 2)
    made.close()
    (lost,) = [entry for entry in entries(tmp_path / "log") if isinstance(entry, Lost)]
    assert lost.count + len(answered(tmp_path / "log")) == 100
    page = made._recorder._page
    assert page.cells(("request_log_lost_total",), 1)[0] == lost.count
    assert page.cells(("request_log_failures_total",), 1)[0] == 1


def test_an_ended_log_takes_nothing(tmp_path: Path) -> None:
    made = log(tmp_path / "log", Disk(1))
    made.close()
    made.note("late", CHAMPION, False, False)
    assert not answered(tmp_path / "log")


def test_ids_of_any_length_and_kind(tmp_path: Path) -> None:
    made = log(tmp_path / "log", Disk(1, 1 << 20))
    made.note("ü" * 100_000, CHAMPION, False, False)
    made.note("\ud800", CHAMPION, False, False)
    made.close()
    assert [len(id) for id, _, _ in answered(tmp_path / "log")] == [256, 1]


# --- through the whole gateway ---


def follow(gateway: Gateway, folder: Path, **more: Any) -> RequestLogs:
    """An experiment on endpoint ``m`` with two deployments; chance always says champion."""
    policy = TrafficPolicy({"champion": 1.0, "challenger": 1.0}, overrides=("X-Headrace-Deployment",), **more)
    for deployment in gateway.deploy(CHAMPION, CHALLENGER, traffic={"m@1": 0.5, "m@2": 0.5}, policy=policy):
        deployment.add_replica(ComputingReplica(deployment, doubled))
    logs = RequestLogs(gateway.services.router, 0, gateway._recorder, gateway.services.log)
    route = EndpointRoute(
        "m", (CHAMPION, CHALLENGER), {"m@1": 0.5, "m@2": 0.5}, policy, log=RequestLogRoute("x1", str(folder))
    )
    logs.follow(RouteTable(1, 1, (route,)))
    return logs


BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}


async def post(client: httpx.AsyncClient, path: str, body: Any = BODY, **headers: str) -> httpx.Response:
    return await client.post(path, json=body, headers={k.replace("_", "-"): v for k, v in headers.items()})


def test_every_answer_of_rest_is_in_the_log(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        logs = follow(gateway, tmp_path / "log")
        async with gateway.client() as client:
            mine = await post(client, "/v2/models/m/infer", x_request_id="mine")
            assert mine.headers["x-request-id"] == "mine"
            assert answered(tmp_path / "log") == [("mine", "champion", False)], "no timer has passed"
            other = await post(client, "/v1/models/m:predict", {"instances": [[1, 2]]})
            await post(client, "/v2/models/m/infer", x_request_id="named", x_headrace_deployment="challenger")
            await post(client, "/v2/models/m/versions/2/infer", x_request_id="version")
            refused = await post(client, "/v2/models/m/infer", {"inputs": []}, x_request_id="refused")
            assert refused.status_code == 400
        assert answered(tmp_path / "log")[1:] == [
            (other.headers["x-request-id"], "champion", False),
            ("named", "challenger", True),
            ("version", "challenger", True),
        ]
        logs.close()

    run(tmp_path, test)


def test_answers_of_grpc_are_in_the_log(tmp_path: Path) -> None:
    request = service_pb2.ModelInferRequest(model_name="m", id="theirs")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    tensor.contents.fp32_contents.extend([1.0, 2.0])
    frame = grpc_frames.frame(request.SerializeToString())

    async def test(gateway: Gateway) -> None:
        logs = follow(gateway, tmp_path / "log")
        for method, headers in (("ModelInfer", {"x-request-id": "unary"}), ("ModelStreamInfer", {})):
            path = f"/inference.GRPCInferenceService/{method}"
            call = Exchange(gateway, path, headers={"content-type": "application/grpc", **headers}).body(frame)
            assert (await call.end()).grpc()[0] == 0
        assert answered(tmp_path / "log") == [("unary", "champion", False), ("theirs", "champion", False)]
        logs.close()

    run(tmp_path, test)


def test_an_experiment_that_ends_ends_the_log(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        logs = follow(gateway, tmp_path / "log")
        async with gateway.client() as client:
            logs.follow(RouteTable(2, 1, (EndpointRoute("m", (CHAMPION, CHALLENGER), {"m@1": 1.0}),)))
            assert (await post(client, "/v2/models/m/infer")).status_code == 200
        assert not answered(tmp_path / "log")
        assert not logs._logs

    run(tmp_path, test)


def test_segments_are_large_enough_to_be_rare() -> None:
    """At ten thousand requests a second and gateway one lasts for seconds."""
    entry = request_log.answered("0" * 49, b"challenger", 0.0, False, False)
    assert writing.SEGMENT_BYTES / len(entry) > 40_000


def test_what_a_fallback_answers_is_the_arms_that_failed(tmp_path: Path) -> None:
    def failing(arrays: list[Any]) -> Any:
        raise errors.ModelRaised("no such row")

    async def test(gateway: Gateway) -> None:
        logs = follow(gateway, tmp_path / "log", fallback=(DeploymentFallback("challenger"),))
        (champion,) = [d for d in gateway.services.router.endpoints["m"].choices if d.route.name == "champion"]
        champion.replicas.clear()
        champion.add_replica(ComputingReplica(champion, failing))
        async with gateway.client() as client:
            answer = await post(client, "/v2/models/m/infer", x_request_id="rescued")
        assert answer.headers["x-headrace-fallback"] == "challenger"
        (entry,) = [e for e in entries(tmp_path / "log") if isinstance(e, Answered)]
        assert (entry.request_id, entry.arm, entry.fallback) == ("rescued", "champion", True)
        logs.close()

    run(tmp_path, test)


def test_a_stream_is_in_the_log_before_its_first_event(tmp_path: Path) -> None:
    def chunks(arrays: list[Any]) -> Iterator[list[Tensor]]:
        yield doubled(arrays)

    async def test(gateway: Gateway) -> None:
        streams = {"signature": msgspec.structs.replace(ROWS, streaming=True), "slots": Slots(SlotKind.CONCURRENT, 4)}
        gateway.serve(chunks=chunks, name="champion", **streams)
        logs = RequestLogs(gateway.services.router, 0, gateway._recorder, gateway.services.log)
        route = gateway.services.router.endpoints["m"].deployments["1"].route
        log_route = RequestLogRoute("x1", str(tmp_path / "log"))
        logs.follow(RouteTable(1, 1, (EndpointRoute("m", (route,), {"m@1": 1.0}, log=log_route),)))
        body = b'{"x": [[1.0, 2.0]]}'
        going = Exchange(gateway, "/v2/models/m/generate_stream", headers={"x-request-id": "stream"}).body(body)
        going.send_blocked.clear()
        await until(lambda: bool(answered(tmp_path / "log")))
        assert not going.sent
        going.send_blocked.set()
        assert (await going.end()).status == 200
        assert answered(tmp_path / "log") == [("stream", "champion", False)]
        logs.close()

    run(tmp_path, test)
