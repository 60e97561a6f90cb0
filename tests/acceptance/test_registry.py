"""From ``models push`` to answers: versions of the registry, served by a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx

from tests.acceptance import saboteurs
from tests.acceptance.load import ask, output
from tests.serving import served


def models(*arguments: str | Path, state: Path) -> object:
    command = [
        sys.executable,
        "-m",
        "headrace.cli.main",
        "models",
        *map(str, arguments),
        "--state",
        str(state),
        "--json",
    ]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True, timeout=60).stdout)


def test_an_alias_is_served_under_its_version(tmp_path: Path) -> None:
    state = tmp_path / "state"
    path = saboteurs.write(tmp_path, saboteurs.DOUBLE)
    models("push", "calc", path, state=state)
    models("push", "calc", path, "--trust", "--alias", "champion", state=state)
    path.unlink()
    config = tmp_path / "etc" / "headrace.yaml"
    config.parent.mkdir()
    config.write_text("endpoints: {again: {model: calc@1}}\n")
    arguments = ("calc@champion", "--state", state)
    with served(*arguments, directory=tmp_path / "run") as server:
        assert output(ask(server.address, "calc", [21.0]).document) == [42.0]
        assert httpx.get(f"{server.url}/v2/models/calc").json()["versions"] == ["2"]
        assert httpx.get(f"{server.url}/v2/models/calc/versions/2/ready").status_code == 200
    with served("--config", config, "--state", state, directory=tmp_path / "run2") as server:
        assert output(ask(server.address, "again", [21.0]).document) == [42.0]


def test_code_that_nobody_vouched_for_is_not_served(tmp_path: Path) -> None:
    state = tmp_path / "state"
    models("push", "calc", saboteurs.write(tmp_path, saboteurs.DOUBLE), state=state)
    with served("calc@1", directory=tmp_path / "run", environment={"HEADRACE_STATE": str(state)}) as server:
        failed = next(event for event in server.events if event["type"] == "ModelFailed")
        assert failed["endpoint"] == "calc"
        assert failed["reason"].endswith("headrace models trust calc@1")
        assert not server.children("replica.worker")
