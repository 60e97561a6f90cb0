"""Rollouts of models that stream: judged by how streams end and when they begin, not by how long they go on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import headrace
from tests.acceptance.load import Load
from tests.serving import eventually, served

VERSION = """\
import time
import headrace

class Model(headrace.Model):
    def load(self):
        self.count = 0

    def predict(self, x: headrace.Float32) -> {{"y": headrace.Float32}}:
        self.count += 1
        failing = {bad_every} and self.count % {bad_every} == 0
        time.sleep({first_s})
        for number in range({responses}):
            if failing and number == 1:
                raise ValueError("in the middle")
            yield {{"y": x + {step} * number}}
            time.sleep({pause_s})
"""
QUICK: dict[str, Any] = {"block_s": 0.6, "block_requests": 5, "false_alarm": 0.05, "false_pass": 0.2}


def push(state: Path, folder: Path, golden: Path | None = None, **version: float) -> int:
    """Another version of ``m``; returns its number."""
    folder.mkdir(parents=True)
    path = folder / "model.py"
    fields = {"bad_every": 0, "first_s": 0.01, "responses": 3, "pause_s": 0.002, "step": 1, **version}
    path.write_text(VERSION.format(**fields))
    more = [] if golden is None else ["--golden", golden]
    done = command("models", "push", "m", path, "--trust", "--state", state, "--json", *more)
    return int(json.loads(done)[0]["version"]["number"])


def command(*arguments: object) -> str:
    """What a command that must succeed prints."""
    line = [sys.executable, "-m", "headrace.cli.main", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, check=True, text=True, timeout=60).stdout


@contextmanager
def rolling_out(tmp_path: Path, **version: float) -> Iterator[tuple[headrace.Client, Load]]:
    """A rollout from ``m@1`` to a version like that, which differs from it in nothing else, under load."""
    state = tmp_path / "state"
    push(state, tmp_path / "1")
    push(state, tmp_path / "2", **version)
    arguments = ("m@1", "--state", state, "--gateways", "2")
    with (
        served(*arguments, directory=tmp_path / "run") as server,
        headrace.Client(server.url, management_url=server.management_url, retries=0) as client,
        Load(
            server.address,
            "m",
            clients=8,
            operation="generate_stream",
            body=lambda value: json.dumps({"x": [value]}).encode(),
        ) as load,
    ):
        client.rollouts.start("m", "2", canary="50", bake_s=0.5, final_bake_s=0.5, max_step_s=60.0, analysis=QUICK)
        yield client, load


def ends(client: headrace.Client) -> tuple[str, str]:
    """How the rollout ended, and why."""
    eventually(lambda: client.rollouts.status("m").phase in ("done", "rolled_back", "paused"), timeout=90)
    status = client.rollouts.status("m")
    return str(status.phase), status.reason


def test_a_version_that_fails_in_the_middle_of_streams_is_rolled_back(tmp_path: Path) -> None:
    with rolling_out(tmp_path, bad_every=4) as (client, load):
        phase, reason = ends(client)
    assert phase == "rolled_back"
    assert reason.startswith("errors: "), reason
    assert load.failed() == [], "every stream had begun: its status was 200"


def test_a_version_that_begins_to_answer_three_times_as_late_is_rolled_back(tmp_path: Path) -> None:
    with rolling_out(tmp_path, first_s=0.03) as (client, _):
        phase, reason = ends(client)
    assert phase == "rolled_back"
    assert reason.startswith("latency p"), reason


def test_a_version_that_answers_at_greater_length_is_promoted(tmp_path: Path) -> None:
    with rolling_out(tmp_path, responses=20) as (client, load):
        phase, reason = ends(client)
    assert phase == "done", reason
    assert load.failed() == []


def test_golden_requests_of_streams_let_the_same_version_pass_and_keep_another_from_traffic(tmp_path: Path) -> None:
    state, golden = tmp_path / "state", tmp_path / "golden.jsonl"
    push(state, tmp_path / "1")
    with (
        served("m@1", "--state", state, directory=tmp_path / "run") as server,
        headrace.Client(server.url, management_url=server.management_url, retries=0) as client,
    ):
        asking = ("predict", "m", "--url", server.url, "--version", 1, "--stream", "--record", golden)
        printed = command(*asking, "--data", '{"x": [0.5]}')
        assert [json.loads(line)["y"] for line in printed.splitlines()] == [0.5, 1.5, 2.5]
        push(state, tmp_path / "2", golden)
        push(state, tmp_path / "3", golden, step=2)
        push(state, tmp_path / "4", golden, responses=10**9)
        client.rollouts.start("m", "2", canary="50", bake_s=600.0)
        eventually(lambda: client.rollouts.status("m").phase == "step")
        client.rollouts.abort("m")
        assert "1 answered as recorded" in str(client.rollouts.status("m").story)
        for version, says in (
            ("3", "golden requests: 1 of 1 differ: line 1: response 2: output 'y' differs in 1 of 1 values"),
            ("4", "golden requests: 1 of 1 differ: line 1: the stream goes on after the 3 responses"),
        ):
            client.rollouts.start("m", version)
            phase, reason = ends(client)
            assert phase == "rolled_back"
            assert says in reason
