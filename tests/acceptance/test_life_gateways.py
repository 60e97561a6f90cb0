"""Gateways and the codec process, killed: the others serve on, connections that wait are served by the successor."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
from pathlib import Path

import httpx
import psutil

from tests.acceptance import saboteurs
from tests.acceptance.load import Answer, Load, ask, output, post
from tests.acceptance.readiness import readiness
from tests.serving import Served, eventually, served

CLIENTS = 8


def gateways_that_report(server: Served) -> set[int]:
    batching = httpx.get(f"{server.management_url}/api/v1/deployments/m@1/batching").json()
    return {gateway["gateway"] for gateway in batching["gateways"]}


def test_two_gateways_one_killed_under_load(tmp_path: Path) -> None:
    """Only what was on its way in the dead one can be lost, and only as a broken connection."""
    model = saboteurs.write(tmp_path, saboteurs.DOUBLE)
    with served(model, "--gateways", "2", directory=tmp_path / "run") as server:
        assert len(server.children("app.gateway")) == 2
        workers = {process.pid for process in server.children("replica.worker")}
        with Load(server.address, "m", clients=CLIENTS) as load:
            for _ in range(2):
                load.wait_for(200)
                victim = server.children("app.gateway")[0]
                victim.kill()
                eventually(
                    lambda victim=victim: len({p.pid for p in server.children("app.gateway")} - {victim.pid}) == 2
                )
                eventually(lambda: gateways_that_report(server) == {0, 1})
            load.wait_for(200)
        lost = load.failed()
        assert all(answer.status == 0 for answer in lost), lost[:5]
        assert len(lost) <= 2 * CLIENTS
        assert all(output(a.document) == [2 * a.number] for a in load.answers if a.status == 200)
        assert {process.pid for process in server.children("replica.worker")} == workers


def test_connections_that_wait_for_a_killed_gateway_are_served_by_the_next_one(tmp_path: Path) -> None:
    """The supervisor holds the listening socket, so the kernel keeps them."""
    model = saboteurs.write(tmp_path, saboteurs.DOUBLE)
    with served(model, directory=tmp_path / "run") as server:
        (gateway,) = server.children("app.gateway")
        gateway.send_signal(signal.SIGSTOP)
        # A stop takes a moment, and its threads accept until then.
        eventually(lambda: all_stopped(gateway.pid))
        answers: list[Answer] = []
        callers = [
            threading.Thread(target=lambda n=n: answers.append(ask(server.address, "m", float(n)))) for n in range(20)
        ]
        for caller in callers:
            caller.start()
        eventually(lambda: waiting_connections(server.port) >= 20)
        gateway.kill()
        for caller in callers:
            caller.join(30)
        assert [answer.status for answer in answers] == [200] * 20
        assert sorted(output(a.document)[0] for a in answers) == [2.0 * n for n in range(20)]
        with readiness(server.url) as ready:
            assert ready.all()


def all_stopped(pid: int) -> bool:
    """Every thread of the process has stopped."""
    states = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()]
    return set(states) == {"T"}


def waiting_connections(port: int) -> int:
    """Connections in the kernel's accept queue of this port (``rx_queue`` of a listening socket)."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
            return int(fields[4].rpartition(":")[2], 16)
    return 0


def test_a_killed_gateway_frees_what_it_asked_of_replicas(tmp_path: Path) -> None:
    """Requests of a dead gateway that only waited in the worker are not computed."""
    trace = tmp_path / "ran"
    model = saboteurs.write(tmp_path, saboteurs.ONE_AT_A_TIME)
    with served(model, directory=tmp_path / "run", environment={"RAN": str(trace)}) as server:
        with Load(server.address, "m", clients=32, count=32) as load:
            eventually(lambda: load.answers)
            (gateway,) = server.children("app.gateway")
            gateway.kill()
        assert all(answer.status in (200, 0) for answer in load.answers)
        assert ask(server.address, "m", 99.0).status == 200
        assert len(load.failed()) > 10
        broken = {float(answer.number) for answer in load.failed()}
        # What was running or next in the worker when the gateway died, at most.
        assert len(broken & set(saboteurs.ran(trace))) <= 2


def wide_body(columns: int) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, columns], "data": [n % 100 for n in range(columns)]}
    return json.dumps({"inputs": [tensor]}).encode()


LARGE = wide_body(100_000)
INFER = "/v2/models/m/infer"


def test_the_codec_process_killed_with_large_bodies_in_it(tmp_path: Path) -> None:
    model = saboteurs.write(tmp_path, saboteurs.WIDE)
    with served(model, directory=tmp_path / "run") as server:
        assert post(server.address, INFER, LARGE).status == 200
        (codec,) = server.children("gateway.codec_process")
        codec.send_signal(signal.SIGSTOP)
        answers: list[Answer] = []
        callers = [threading.Thread(target=lambda: answers.append(post(server.address, INFER, LARGE))) for _ in "abc"]
        for caller in callers:
            caller.start()
        # Small requests do not wait for it.
        assert output(post(server.address, INFER, wide_body(3)).document) == [0.0, 2.0, 4.0]
        codec.kill()
        for caller in callers:
            caller.join(60)
        assert [answer.status for answer in answers] == [200] * 3
        assert all(output(answer.document) == [2 * (n % 100) for n in range(100_000)] for answer in answers)
        assert {process.pid for process in server.children("gateway.codec_process")} != {codec.pid}


def test_a_body_that_kills_every_codec_process_is_an_error_of_its_caller(tmp_path: Path) -> None:
    model = saboteurs.write(tmp_path, saboteurs.WIDE)
    with served(model, directory=tmp_path / "run") as server:
        ended = threading.Event()
        killer = threading.Thread(target=_kill_codecs, args=[server, ended])
        killer.start()
        try:
            answer = post(server.address, INFER, LARGE)
        finally:
            ended.set()
            killer.join()
        assert answer.status == 500
        assert "died twice" in answer.message
        assert post(server.address, INFER, LARGE).status == 200


def _kill_codecs(server: Served, ended: threading.Event) -> None:
    while not ended.is_set():
        for process in server.children("gateway.codec_process"):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def test_half_a_request_does_not_keep_the_next_gateway_from_the_port(tmp_path: Path) -> None:
    model = saboteurs.write(tmp_path, saboteurs.DOUBLE)
    with served(model, directory=tmp_path / "run") as server:
        half = socket.create_connection(("127.0.0.1", server.port))
        half.sendall(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        for _ in range(3):
            (gateway,) = eventually(lambda: server.children("app.gateway"))
            gateway.kill()
            eventually(lambda gateway=gateway: [p for p in server.children("app.gateway") if p.pid != gateway.pid])
        assert ask(server.address, "m", 1.0).status == 200
        with contextlib.suppress(ConnectionResetError):
            assert half.recv(100) == b""
        half.close()
        assert json.loads(httpx.get(f"{server.url}/v2").content)["name"]
