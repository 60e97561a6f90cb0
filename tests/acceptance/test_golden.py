"""Golden requests from end to end: recorded at a live server, pushed with a version, asked of a worker that runs it."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from headrace.app.rollouts.golden_requests import ask
from headrace.control.analysis.verdict import Finding
from headrace.control.golden import GoldenReport
from headrace.core.replicas import ReplicaState
from headrace.core.routes import ReplicaRoute
from headrace.protocols import golden_lines
from headrace.runtimes.inspect import inspect
from tests import models, workers
from tests.acceptance.test_cli_serve import headrace
from tests.serving import served


def command(*arguments: str | Path, cwd: Path) -> str:
    """Run a command that must succeed; returns what it printed."""
    result = headrace(*arguments, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout


def push(model: Path, golden: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return headrace("models", "push", "pricer", model, "--golden", golden, "--state", cwd / "state", "--json", cwd=cwd)


async def _asked(version: Path, place: Path) -> GoldenReport:
    """Serve the model of a version's folder in a worker, and ask it the version's golden requests."""
    artifact = inspect(version / "model" / "pricer.py", "Pricer")
    async with workers.running(place, artifact) as worker:
        [ready] = await worker.ready()
        address, page = f"unix:{worker.socket_path}", str(worker.status_path)
        route = ReplicaRoute("pricer@2#1", address, 0, ReplicaState.READY, workers.TOKEN, page)
        return await ask(route, ready.model.signature, version / "golden.jsonl")


def test_what_was_recorded_is_asked_of_the_next_version(tmp_path: Path) -> None:
    path = models.build("python", tmp_path / "models")
    golden = tmp_path / "golden.jsonl"
    (tmp_path / "orders.csv").write_text("sku,qty\napple,2\nküche,1\npear,3\n", encoding="utf-8")
    with served(path, directory=tmp_path / "run") as server:
        asking = ("predict", "pricer", "--url", server.url, "--version", "1", "--record", golden)
        command(*asking, "orders.csv", "--rows", "1", cwd=tmp_path)
        command(*asking, "--data", '{"sku": ["apple", "pear"], "qty": [1, 1]}', cwd=tmp_path)
    assert len(list(golden_lines.read(golden.read_bytes(), "golden.jsonl"))) == 4

    assert push(path, golden, tmp_path).returncode == 0
    # The next version: pears are dearer.
    path.write_text(path.read_text(encoding="utf-8").replace('"pear": 2.0', '"pear": 2.25'), encoding="utf-8")
    assert push(path, golden, tmp_path).returncode == 0
    reports = []
    for number in (1, 2):
        copy = tmp_path / f"copy-{number}"
        (tmp_path / f"worker-{number}").mkdir()
        command("models", "pull", f"pricer@{number}", copy, "--state", tmp_path / "state", cwd=tmp_path)
        reports.append(asyncio.run(_asked(copy, tmp_path / f"worker-{number}")))
    same, dearer = reports
    assert same == GoldenReport(Finding.PASS, "4 answered as recorded")
    assert dearer.finding is Finding.FAIL
    assert dearer.differences == (
        "line 3: output 'price' differs in 1 of 1 values, first at [0]: 6.75, expected 6.0",
        "line 4: output 'price' differs in 1 of 2 values, first at [1]: 2.25, expected 2.0",
    )


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"inputs": []}', "missing required field `outputs`, or `responses` of a model that streams; expected"),
        (
            golden_lines.EXAMPLE.replace("FP32", "FP31", 1),
            "inputs[0].datatype: invalid enum value 'FP31'; expected one",
        ),
        (golden_lines.EXAMPLE.replace("[1, 2]", "[2, 2]"), "inputs[0] 'x': shape [2, 2] takes 4 elements, data has 2"),
    ],
)
def test_a_file_that_is_wrong_is_not_pushed(tmp_path: Path, line: str, says: str) -> None:
    path = models.build("python", tmp_path / "models")
    golden = tmp_path / "golden.jsonl"
    golden.write_text(f"{golden_lines.EXAMPLE}\n{line}\n")
    result = push(path, golden, tmp_path)
    assert result.returncode == 2
    assert json.loads(result.stdout)["error"].startswith(f"--golden {golden}, line 2: ")
    assert says in json.loads(result.stdout)["error"]
    listed = command("models", "list", "--state", tmp_path / "state", "--json", cwd=tmp_path)
    assert json.loads(listed) == []
