"""The history of the registry, for people and for machines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace.cli.main import app
from tests import models

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("HEADRACE_STATE", str(tmp_path / "state"))

    def invoke(*arguments: str) -> str:
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    return invoke


def test_changes_are_listed_newest_first(run: Run) -> None:
    assert run("events") == ""
    path = str(models.build("onnx"))
    run("models", "push", "fraud", path)
    run("models", "push", "churn", path)
    run("models", "alias", "fraud", "champion", "1", "--why", "the first")
    found = json.loads(run("events", "--json"))["events"]
    assert [(event["what"], event["subject"]) for event in found] == [
        ("alias.move", "fraud"),
        ("version.push", "churn"),
        ("version.push", "fraud"),
    ]
    assert (found[0]["before"], found[0]["after"], found[0]["why"]) == (
        {"champion": None},
        {"champion": 1},
        "the first",
    )
    assert "@" in found[0]["who"]
    lines = run("events", "--model", "fraud").splitlines()
    assert len(lines) == 2
    assert lines[0].endswith('{"champion":null} → {"champion":1}  the first')
    assert len(run("events", "--limit", "1").splitlines()) == 1
