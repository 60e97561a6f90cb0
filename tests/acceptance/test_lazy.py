"""Deployments that start on their first request, whatever the protocol; nothing is lost while they start."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.acceptance import saboteurs
from tests.acceptance.load import ask, output
from tests.serving import Served, eventually, served


def serve(tmp_path: Path, *flags: str) -> tuple[object, Path]:
    slow = saboteurs.write(tmp_path, saboteurs.SLOW_TO_LOAD)
    bad = tmp_path / "bad.py"
    bad.write_text(saboteurs.DOUBLE + "\n    def load(self):\n        raise OSError('no table')\n")
    config = tmp_path / "headrace.yaml"
    config.write_text(
        f"endpoints:\n  slow: {{model: {slow}, lazy: true}}\n  bad: {{model: {bad}, lazy: true}}\n"
        f"  other: {{model: {slow}, lazy: true}}\ntrust: [{slow}, {bad}]\n"
    )
    return served("--config", config, *flags, directory=tmp_path / "run"), config


def workers(server: Served) -> int:
    return len(server.children("replica.worker"))


def test_the_first_requests_start_it_and_are_all_answered(tmp_path: Path) -> None:
    running, _ = serve(tmp_path, "--gateways", "2")
    with running as server:  # type: ignore[attr-defined]
        assert workers(server) == 0
        assert httpx.get(f"{server.url}/v2/health/ready").status_code == 200
        assert httpx.get(f"{server.url}/v2/models/slow/ready").status_code == 200
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda n: ask(server.address, "slow", [float(n)]), range(12)))
        assert [output(answer.document) for answer in answers] == [[2.0 * n] for n in range(12)]
        assert workers(server) == 1, "the others still sleep"
        failed = ask(server.address, "bad", [1.0])
        assert failed.status == 503
        assert "OSError: no table" in failed.message


def test_grpc_starts_it_too(tmp_path: Path) -> None:
    running, _ = serve(tmp_path)
    with running as server, triton.InferenceServerClient(server.address) as client:  # type: ignore[attr-defined]
        assert client.is_model_ready("slow")
        given = triton.InferInput("x", [2], "FP32")
        given.set_data_from_numpy(np.array([1, 2], np.float32))
        assert client.infer("slow", [given]).as_numpy("y").tolist() == [2.0, 4.0]
        with pytest.raises(InferenceServerException, match="DEADLINE_EXCEEDED"):
            client.infer("other", [given], client_timeout=0.2)
        eventually(lambda: workers(server) == 2)
        assert client.infer("other", [given]).as_numpy("y").tolist() == [2.0, 4.0]


def test_a_caller_with_little_time_is_told_and_the_model_starts_nevertheless(tmp_path: Path) -> None:
    running, _ = serve(tmp_path)
    with running as server:  # type: ignore[attr-defined]
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [4.0]}]}
        url = f"{server.url}/v2/models/slow/infer"
        late = httpx.post(url, json=body, headers={"x-request-timeout-ms": "100"})
        assert late.status_code == 504
        assert "it goes on starting" in late.json()["error"]
        eventually(lambda: workers(server) == 1)
        assert httpx.post(url, json=body, timeout=30).json()["outputs"][0]["data"] == [8.0]


def test_it_stays_awake_when_the_controller_dies(tmp_path: Path) -> None:
    running, _ = serve(tmp_path)
    with running as server:  # type: ignore[attr-defined]
        assert ask(server.address, "slow", [1.0]).status == 200
        (controller,) = server.children("app.controller")
        os.kill(controller.pid, signal.SIGKILL)
        eventually(lambda: [c.pid for c in server.children("app.controller")] not in ([], [controller.pid]))
        assert ask(server.address, "other", [1.0]).status == 200
        assert workers(server) == 2
