"""Memory limits, thread shares and packed workers, in real processes."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil

from tests import models
from tests.acceptance import saboteurs
from tests.acceptance.load import Load, ask, infer_body, output, post
from tests.acceptance.processes import pids
from tests.serving import eventually, served

MIB = 1 << 20

HOARDER = '''\
import mmap

import headrace


class Hoarder(headrace.Model):
    """Negative input: takes memory that no limit inside the process sees, as shared mappings of frameworks do."""

    held = []

    def predict(self, x: headrace.Float32) -> {"y": headrace.Float32}:
        if x[0] < 0:
            self.held.append(mmap.mmap(-1, 512 << 20))
            for page in range(0, 512 << 20, 4096):
                self.held[-1][page] = 1
        return {"y": x * 2}
'''

THREADS = """\
import os

import headrace


class Threads(headrace.Model):
    def predict(self, x: headrace.Float32) -> {"y": headrace.Strings}:
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        return {"y": [",".join(os.environ.get(name, "") for name in names)] * len(x)}
"""


def test_a_replica_that_outgrows_its_memory(tmp_path: Path) -> None:
    """The supervisor sees it, ends it and calls it by its name, in event, metrics and API; the model comes back."""
    hoarder = saboteurs.write(tmp_path, HOARDER, "hoarder")
    fine = saboteurs.write(tmp_path, saboteurs.DOUBLE, "fine")
    run = tmp_path / "run"
    run.mkdir()
    settings = {"hoarder": {"model": str(hoarder), "resources": {"memory": "300MiB"}}, "fine": {"model": str(fine)}}
    (run / "headrace.yaml").write_text(json.dumps({"endpoints": settings}))
    with served(directory=run) as server, Load(server.address, "fine", clients=2, pause=0.005) as load:
        answer = ask(server.address, "hoarder", -1.0)
        event = server.wait_event("ReplicaRestarted")
        assert event["replica"].startswith("hoarder@1#")
        assert event["reason"].startswith("out of memory: it used ")
        assert event["reason"].endswith("the limit is 300 MiB")
        # It may have answered before it was ended; if not, it was tried twice.
        assert answer.status in (200, 500)
        eventually(lambda: ask(server.address, "hoarder", 2.0).status == 200)
        metrics = httpx.get(f"{server.management_url}/metrics").text
        assert 'headrace_replica_restarts_total{model="hoarder",reason="out_of_memory",version="1"}' in metrics
        events = httpx.get(f"{server.management_url}/api/v1/events").json()["events"]
        assert any("out of memory" in e.get("reason", "") for e in events)
        load.stop()
        assert not load.failed()


def test_an_allocation_that_the_limit_refuses(tmp_path: Path) -> None:
    """It fails inside the model, as a MemoryError of that request alone: nobody has to die."""
    model = saboteurs.write(tmp_path, saboteurs.SABOTEUR)
    with served(model, "--memory", "1GiB", directory=tmp_path / "run") as server:
        workers = pids(server, "replica.worker")
        answer = ask(server.address, "m", saboteurs.ALLOCATE)
        assert answer.status == 500
        assert "the model ran out of memory" in answer.message
        assert output(ask(server.address, "m", 3.0).document) == [6.0]
        assert pids(server, "replica.worker") == workers


def test_requests_that_do_not_fit_together_in_memory(tmp_path: Path) -> None:
    """Each of them does alone, and is computed so; one that never fits is told so. Nobody waits for a deadline."""
    model = saboteurs.write(tmp_path, saboteurs.IDENTITY)
    flags = ("--memory", "130MiB", "--timeout", "15s", "--max-queue-delay-ms", "1s", "--max-body", "200MiB")
    with served(model, *flags, directory=tmp_path / "run") as server:
        url = f"{server.url}/v2/models/m/infer"
        started = time.monotonic()
        with ThreadPoolExecutor(6) as pool:
            answers = [a.result() for a in [pool.submit(wide, url, number) for number in range(6)]]
        assert time.monotonic() - started < 15
        for number, answer in enumerate(answers):
            assert answer.status_code == 200, answer.text
            assert answer.content.endswith(np.full(4, number, np.float32).tobytes())
        assert wide(url, 8, 32_000_000).json()["error"].startswith("the replica ran out of memory: it has no room")
        assert wide(url, 7).status_code == 200
        server.stop()
        server.wait_event("Stopped")
        restarts = [event["reason"] for event in server.events if event["type"] == "ReplicaRestarted"]
        assert all(reason.startswith("out of memory") for reason in restarts)


def wide(url: str, value: float, width: int = 4_000_000) -> httpx.Response:
    """Ask with ``width`` numbers (16 MB unless told), as bytes both ways."""
    raw = np.full((1, width), value, np.float32).tobytes()
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, width], "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return httpx.post(url, content=head + raw, headers={"Inference-Header-Content-Length": str(len(head))}, timeout=60)


def test_a_model_that_does_not_fit_says_so(tmp_path: Path) -> None:
    source = saboteurs.DOUBLE + "\n    def load(self):\n        self.table = bytearray(2 << 30)\n"
    model = saboteurs.write(tmp_path, source)
    fine = saboteurs.write(tmp_path, saboteurs.DOUBLE, "fine")
    run = tmp_path / "run"
    run.mkdir()
    settings = {"m": {"model": str(model), "resources": {"memory": "500MiB"}}, "fine": {"model": str(fine)}}
    (run / "headrace.yaml").write_text(json.dumps({"endpoints": settings}))
    with served(directory=run) as server:
        failed = next(event for event in server.events if event["type"] == "ModelFailed")
        assert failed["endpoint"] == "m"
        assert "MemoryError" in failed["reason"]
        assert ask(server.address, "fine", 1.0).status == 200


def test_threads_are_shared_out(tmp_path: Path) -> None:
    """What is asked for is in the environment before the framework is imported; per endpoint over the default."""
    one, two = saboteurs.write(tmp_path, THREADS, "one"), saboteurs.write(tmp_path, THREADS, "two")
    run = tmp_path / "run"
    run.mkdir()
    endpoints = {"one": {"model": str(one), "threads": 3}, "two": {"model": str(two)}}
    (run / "headrace.yaml").write_text(json.dumps({"threads": 1, "endpoints": endpoints}))
    with served(directory=run) as server:
        assert output(ask(server.address, "one", 1.0).document) == ["3,3,3"]
        assert output(ask(server.address, "two", 1.0).document) == ["1,1,1"]


def test_packed_models_share_a_process(tmp_path: Path) -> None:
    """Models of one runtime and trust class live in one worker; Python files, which are code, keep their own. When the
    shared one dies all of them come back, and no request is lost."""
    onnx = [
        f"{name}={models.build(kind, tmp_path / name)}"
        for name, kind in (("a", "onnx-regression"), ("b", "onnx"), ("c", "onnx-int64"))
    ]
    code = saboteurs.write(tmp_path, saboteurs.DOUBLE, "code")
    with served(*onnx, code, "--isolation", "packed", directory=tmp_path / "run") as server:
        assert len(pids(server, "replica.worker")) == 2
        replicas = httpx.get(f"{server.management_url}/api/v1/replicas").json()["replicas"]
        shared = {r["address"] for r in replicas if r["endpoint"] in "abc"}
        assert len(shared) == 1
        assert all(works(server.url, name) for name in "abc")

        with Load(server.address, "code", clients=2, pause=0.005) as load:
            before = pids(server, "replica.worker")
            victim = next(
                process
                for process in server.children("replica.worker")
                if f"{next(iter(shared)).removeprefix('unix:').removesuffix('.sock')}.json" in process.cmdline()
            )
            victim.kill()
            restarts = [server.wait_event("ReplicaRestarted") for _ in range(3)]
            assert {event["replica"][0] for event in restarts} == set("abc")
            assert all(works(server.url, name) for name in "abc")
            assert len(pids(server, "replica.worker")) == 2
            assert len(pids(server, "replica.worker") & before) == 1
        assert not load.failed()


def works(url: str, name: str) -> bool:
    """Ask one of the models above with inputs of its kind; it waits for a replica when there is none."""
    kind = {"a": "onnx-regression", "b": "onnx", "c": "onnx-int64"}[name]
    inputs = [
        {
            "name": key,
            "datatype": "INT64" if array.dtype.kind == "i" else "FP32",
            "shape": list(array.shape),
            "data": array.ravel().tolist(),
        }
        for key, array in models.inputs(kind, 2).items()
    ]
    answer = httpx.post(f"{url}/v2/models/{name}/infer", json={"inputs": inputs}, timeout=30)
    assert answer.status_code == 200, answer.text
    return bool(answer.json()["outputs"])


def test_a_packed_model_that_cannot_be_loaded_leaves_its_neighbours(tmp_path: Path) -> None:
    good = models.build("onnx-regression", tmp_path / "good")
    bad = tmp_path / "bad.onnx"
    damaged = bytearray(models.build("onnx", tmp_path / "source").read_bytes())
    damaged = damaged.replace(b"TreeEnsembleClassifier", b"TreeEnsembleClassifieX")
    bad.write_bytes(damaged)
    with served(f"a={good}", f"bad={bad}", "--isolation", "packed", directory=tmp_path / "run") as server:
        failed = next(event for event in server.events if event["type"] == "ModelFailed")
        assert failed["endpoint"] == "bad"
        assert "TreeEnsembleClassifieX" in failed["reason"]
        assert works(server.url, "a")
        assert psutil.pid_exists(next(iter(pids(server, "replica.worker"))))
        answer = post(server.address, "/v2/models/bad/infer", infer_body(1.0, "X"))
        assert answer.status == 503
