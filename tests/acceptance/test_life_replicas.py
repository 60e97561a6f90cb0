"""Replicas killed under load: nobody notices, readiness tells the truth, and what may not run twice does not."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import psutil
import pytest

from tests import models
from tests.acceptance import saboteurs
from tests.acceptance.load import Answer, Load, ask, output
from tests.acceptance.processes import pids
from tests.acceptance.readiness import readiness
from tests.serving import Served, eventually, served


def doubled(answers: list[Answer]) -> bool:
    """Every answer is the right one."""
    return all(answer.status == 200 and output(answer.document) == [2 * answer.number] for answer in answers)


def ready_replicas(server: Served) -> int:
    replicas = httpx.get(f"{server.management_url}/api/v1/replicas").json()["replicas"]
    return sum(r["state"] == "ready" and not r["unreachable_from"] for r in replicas)


@pytest.mark.parametrize(("replicas", "gateways"), [(2, 1), (2, 2), (1, 1)])
def test_a_killed_replica_costs_no_request(tmp_path: Path, replicas: int, gateways: int) -> None:
    """With one replica too: what it computed is computed again, what waits waits for the next one."""
    model = saboteurs.write(tmp_path, saboteurs.DOUBLE)
    flags = ("--replicas", str(replicas), "--gateways", str(gateways))
    with served(model, *flags, directory=tmp_path / "run") as server:
        with Load(server.address, "m", clients=8) as load:
            for turn in range(4):
                load.wait_for(150)
                victim = server.children("replica.worker")[turn % replicas]
                victim.kill()
                event = server.wait_event("ReplicaRestarted")
                assert "SIGKILL" in event["reason"]
                eventually(lambda: ready_replicas(server) == replicas)
            load.wait_for(150)
        assert doubled(load.answers), load.failed()[:5]
        restarts = httpx.get(f"{server.management_url}/metrics").text
        assert 'headrace_replica_restarts_total{model="m",reason="signal",version="1"} 4' in restarts


def test_readiness_follows_the_only_replica(tmp_path: Path) -> None:
    model = saboteurs.write(tmp_path, saboteurs.SLOW_TO_LOAD)
    with served(model, directory=tmp_path / "run") as server, readiness(server.url) as ready:
        assert ready.all()
        (worker,) = server.children("replica.worker")
        worker.kill()
        eventually(ready.none, timeout=5, pause=0.005)
        # It waits for the replica that is being loaded, and is answered.
        answer = ask(server.address, "m", 4.0)
        assert (answer.status, output(answer.document)) == (200, [8.0])
        assert answer.seconds > 0.2
        eventually(ready.all)


def test_a_request_that_waits_for_a_restart_keeps_its_deadline(tmp_path: Path) -> None:
    model = saboteurs.write(tmp_path, saboteurs.SLOW_TO_LOAD)
    with served(model, directory=tmp_path / "run") as server:
        (worker,) = server.children("replica.worker")
        worker.kill()
        server.wait_event("ReplicaRestarted")
        answer = ask(server.address, "m", 4.0, x_request_timeout_ms="200")
        assert answer.status == 504
        assert answer.seconds < 0.9
        assert eventually(lambda: ask(server.address, "m", 5.0).status == 200)


@pytest.mark.parametrize("how", ["setting", "class"])
def test_a_model_that_is_not_idempotent_is_never_run_again(tmp_path: Path, how: str) -> None:
    source = saboteurs.SABOTEUR
    run = tmp_path / "run"
    run.mkdir()
    if how == "class":
        source = source.replace("    def predict", "    idempotent = False\n\n    def predict")
    else:
        (run / "headrace.yaml").write_text("idempotent: false\n")
    model = saboteurs.write(tmp_path, source)
    trace = tmp_path / "ran"
    with served(model, directory=run, environment={"RAN": str(trace)}) as server:
        begun = len(saboteurs.ran(trace))
        answers: list[Answer] = []
        caller = threading.Thread(target=lambda: answers.append(ask(server.address, "m", saboteurs.HANG)))
        caller.start()
        eventually(lambda: saboteurs.HANG in saboteurs.ran(trace))
        (worker,) = server.children("replica.worker")
        worker.kill()
        caller.join(30)
        assert answers[0].status == 500
        assert "not idempotent" in answers[0].message
        assert ask(server.address, "m", 3.0).status == 200
        assert [x for x in saboteurs.ran(trace)[begun:] if x == saboteurs.HANG] == [saboteurs.HANG]


def test_restarts_slow_down_only_while_nothing_is_computed(tmp_path: Path) -> None:
    """A replica that dies while it loads is tried again with growing pauses and given up after five attempts; the model
    beside it serves on."""
    dying = saboteurs.write(
        tmp_path, "import os\nimport headrace\nos._exit(3)\nclass Dying(headrace.Model): pass\n", "dying"
    )
    fine = saboteurs.write(tmp_path, saboteurs.DOUBLE, "fine")
    with served(dying, fine, directory=tmp_path / "run", wait=False) as server:
        restarts = [server.wait_event("ReplicaRestarted") for _ in range(4)]
        failed = server.wait_event("ModelFailed")
        serving = server.wait_event("Serving")
        server.url = serving["url"]
        assert all(event["replica"].startswith("dying@1#") for event in restarts)
        assert failed["endpoint"] == "dying"
        assert "exited with code 3 while loading, 5 times in a row" in failed["reason"]
        assert ask(server.address, "fine", 1.0).status == 200
        answer = ask(server.address, "dying", 1.0)
        assert answer.status == 503
        assert "exited with code 3" in answer.message


def test_a_replica_that_dies_between_requests_comes_back_by_itself(tmp_path: Path) -> None:
    model = saboteurs.write(tmp_path, saboteurs.DOUBLE)
    with served(model, "--replicas", "2", directory=tmp_path / "run") as server:
        before = pids(server, "replica.worker")
        victim = psutil.Process(min(before))
        victim.kill()
        eventually(lambda: len(pids(server, "replica.worker") - {victim.pid}) == 2 and ready_replicas(server) == 2)
        assert len(before & pids(server, "replica.worker")) == 1


def test_a_model_file_that_was_overwritten_is_not_served_under_the_old_version(tmp_path: Path) -> None:
    """A replica that starts again refuses it, and says why; the one that runs serves on."""
    path = models.build("onnx", tmp_path / "model")
    body = {"inputs": [{"name": "X", "shape": [1, 30], "datatype": "FP32", "data": [1.0] * 30}]}
    with served(f"m={path}", "--replicas", "2", directory=tmp_path / "run") as server:
        right = httpx.post(f"{server.url}/v2/models/m/infer", json=body).raise_for_status().json()["outputs"]
        path.write_bytes(models.build("onnx-regression").read_bytes())
        server.children("replica.worker")[0].kill()
        failed = server.wait_event("ModelFailed")
        assert "changed after it was inspected" in failed["reason"]
        assert ready_replicas(server) == 1
        for _ in range(20):
            again = httpx.post(f"{server.url}/v2/models/m/infer", json=body).raise_for_status().json()
            assert again["outputs"] == right
