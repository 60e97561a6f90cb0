"""``headrace plan``, ``apply`` and what else changes what is served, typed against a real management API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from headrace.cli import endpoints
from headrace.cli.main import app
from tests.operated import ECHO, Operated, serving

CONFIG = "endpoints: {m: {traffic: {a: 3, b: 1}, deployments: {a: {model: a.echo}, b: {model: b.echo}}}}\n"
Type = Callable[..., tuple[int, str]]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Type]:
    for name in ("a", "b"):
        (tmp_path / f"{name}.echo").write_text(ECHO)
    (tmp_path / "headrace.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    with serving(tmp_path) as (url, _):
        monkeypatch.setenv("HEADRACE_SERVER", url)
        yield _invoke


def _invoke(line: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, line.split(), catch_exceptions=False)
    return result.exit_code, result.output


def test_plan_and_apply_say_what_changes(typed: Type) -> None:
    assert typed("plan")[1].splitlines()[0] == "+ m"
    assert typed("plan")[1].splitlines()[-1] == "1 to create"
    code, text = typed("apply --no-wait")
    assert (code, text.splitlines()[-1]) == (0, "1 created")
    assert typed("plan") == (0, "nothing changes: the file says what runs\n")
    Path("headrace.yaml").write_text(CONFIG.replace("a: 3", "a: 1").replace("b: 1", "b: 2"))
    _, text = typed("plan")
    assert text.splitlines() == ["~ m", "    traffic.a: 3 → 1", "    traffic.b: 1 → 2", "1 to update"]


def test_plan_and_apply_as_json(typed: Type) -> None:
    (change,) = json.loads(typed("plan --json")[1])["changes"]
    assert (change["endpoint"], change["kind"]) == ("m", "create")
    assert json.loads(typed("apply --no-wait --json")[1])["changes"] == [change]


def test_by_hand(typed: Type) -> None:
    typed("apply --no-wait")
    code, text = typed("traffic m a=1 b=1")
    assert code != 0
    assert "belongs to the file" in text
    assert "--take-over" in text
    code, text = typed("traffic m a=1 b=1 --take-over")
    assert (code, text) == (0, "m: a (version 1) 50 %, b (version 2) 50 %; traffic decided by manual\n")
    assert "a (version 1) 0 %, b (version 2) 100 %" in typed("drain m a")[1]
    assert typed("scale m 2 --deployment a")[0] == 0
    assert typed("restart m --deployment a")[0] == 0
    assert "; paused: lunch" in typed("pause m --why lunch")[1]
    assert "paused" not in typed("resume m")[1]
    document: Any = yaml.safe_load(typed("export-config")[1])
    assert document["endpoints"]["m"]["deployments"]["a"]["replicas"] == 2
    assert json.loads(typed("export-config --json")[1]) == document
    assert "replicas: 2" in typed("endpoints m")[1]


@pytest.mark.parametrize("weights", ["a", "a=", "=1", "a=many"])
def test_weights_that_are_none(typed: Type, weights: str) -> None:
    code, text = typed(f"traffic m {weights}")
    assert code != 0
    assert f"expected DEPLOYMENT=WEIGHT, e.g. champion=90, got '{weights}'" in text


def test_a_bad_file_names_its_line(typed: Type) -> None:
    Path("headrace.yaml").write_text("endpoints:\n  m: {model: a.echo, replicsa: 2}\n")
    code, text = typed("apply")
    assert code != 0
    assert "headrace.yaml line 2 column 22: unknown key 'endpoints.m.replicsa'; did you mean 'replicas'?" in text


def test_a_server_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_SERVER", "http://127.0.0.1:9")
    code, text = _invoke("endpoints")
    assert code != 0
    assert "127.0.0.1:9" in text


@pytest.mark.parametrize(
    ("slo", "shown"),
    [
        (None, ""),
        ({"p99_ms": 50.0, "error_rate": None}, "; slo: p99 50 ms"),
        ({"p99_ms": 0.5, "error_rate": 0.001}, "; slo: p99 0.5 ms, 0.1 % errors"),
    ],
)
def test_objectives_and_dormant_deployments_are_listed(slo: dict[str, Any] | None, shown: str) -> None:
    deployment = {"name": "", "version": "1", "traffic": 1.0, "replicas": [], "dormant": True, "reason": ""}
    line = endpoints._line({"name": "m", "ready": True, "deployments": [deployment], "slo": slo})
    assert line == f"m: ready; version 1: 100 %, starts on its first request{shown}"


def test_a_version_is_deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    operated = Operated(tmp_path)
    operated.register("fraud", f"{ECHO}# 1\n")
    operated.register("fraud", f"{ECHO}# 2\n")
    with serving(tmp_path) as (url, _):
        monkeypatch.setenv("HEADRACE_SERVER", url)
        code, text = _invoke("deploy fraud@1 --replicas 2 --no-wait")
        assert (code, text.splitlines()) == (
            0,
            ["+ fraud", "    model: fraud@1", "    replicas: 2", "1 created"],
        )
        assert _invoke("deploy fraud@1 --no-wait") == (0, "nothing changes: fraud serves it already\n")
        (change,) = json.loads(_invoke("deploy fraud@2 --endpoint fraud --no-wait --json")[1])["changes"]
        assert (change["kind"], change["fields"]) == (
            "update",
            [{"path": "model", "before": "fraud@1", "after": "fraud@2"}],
        )
        code, text = _invoke("deploy fraud --no-wait")
        assert (code, "write fraud@7 or fraud@champion" in text) == (2, True)
        code, text = _invoke("deploy fraud@9 --no-wait")
        assert (code, "fraud" in text) == (2, True)
