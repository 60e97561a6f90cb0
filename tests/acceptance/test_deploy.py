"""From the registry to an endpoint without a file, under load; what is not trusted stays out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import headrace
from tests.acceptance.load import Load, ask, output
from tests.serving import Served, eventually, served

VERSION = """\
import headrace

class Model(headrace.Model):
    def predict(self, x: headrace.Float32) -> {{"y": headrace.Float32}}:
        return {{"y": x * {factor}}}
"""


def run(*arguments: object) -> tuple[int, Any]:
    """Exit code and JSON of a command."""
    command = [sys.executable, "-m", "headrace.cli.main", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, json.loads(done.stdout)


def push(state: Path, folder: Path, factor: int, *flags: str) -> None:
    path = folder / f"{factor}.py"
    path.write_text(VERSION.format(factor=factor))
    code, document = run("models", "push", "m", path, "--state", state, *flags)
    assert code == 0, document


def test_versions_are_deployed_under_load(tmp_path: Path) -> None:
    state = tmp_path / "state"
    for factor in (2, 3):
        push(state, tmp_path, factor, "--trust")
    push(state, tmp_path, 4)
    with served("--state", state, directory=tmp_path / "run") as server:
        code, document = run("deploy", "m@1", "--state", state)
        assert (code, document["changes"][0]["kind"]) == (0, "create")
        assert output(ask(server.address, "m", [1.0]).document) == [2.0]
        with Load(server.address, "m", clients=4) as load:
            code, document = run("deploy", "m@2", "--replicas", 2, "--state", state)
            assert (code, document["changes"][0]["kind"]) == (0, "update")
            assert output(ask(server.address, "m", [1.0]).document) == [3.0]
            code, document = run("deploy", "m@3", "--state", state)
            assert (code, "headrace models trust m@3" in document["error"]) == (1, True)
            code, document = run("deploy", "m@1", "--deployment", "next", "--state", state)
            assert code == 0
            assert output(ask(server.address, "m/versions/1", [1.0]).document) == [2.0]
        assert load.failed() == []
        code, document = run("deploy", "m@2", "--endpoint", "later", "--lazy", "--state", state)
        assert code == 0, "who is lazy is not waited for"
        assert output(ask(server.address, "later", [1.0]).document) == [3.0]
        code, document = run("deploy", "m@2", "--endpoint", "none", "--replicas", 0, "--state", state)
        assert code == 0, "nor is who shall have no replicas"
        exported_and_applied(server, tmp_path / "exported.yaml")
        _, listed = run("endpoints", "--state", state)
        assert [(e["name"], e["ready"]) for e in listed["endpoints"]] == [("later", True), ("m", True), ("none", False)]


def exported_and_applied(server: Served, file: Path) -> None:
    """Onto nothing, with the same registry: its versions are trusted there, though they bring code."""
    with headrace.Client(management_url=server.management_url) as client:
        text = client.endpoints.export()
        assert "trust:" not in text
        for name in ("later", "m", "none"):
            client.endpoints.delete(name)
        file.write_text(text)
        changes = client.endpoints.apply(file)
        assert [(change.endpoint, change.kind) for change in changes] == [(n, "create") for n in ("later", "m", "none")]
        assert client.endpoints.export() == text
        eventually(lambda: ask(server.address, "m", [1.0]).status == 200)
        assert output(ask(server.address, "m", [1.0]).document) == [3.0]
