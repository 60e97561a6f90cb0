"""``headrace models`` with real models, inspected in real processes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headrace.app.registry import pushing
from headrace.cli.main import app
from headrace.cli.transfer_bar import transfer_bar
from headrace.protocols import golden_lines
from tests import models, registry_server
from tests.object_servers import Bucket

Run = Callable[..., tuple[int, str]]


@pytest.fixture(params=["directly", "through a controller"])
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A command of the group; its exit code and output. They are the same when a controller owns the state."""
    monkeypatch.setenv("HEADRACE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")
    with ExitStack() as stack:
        if request.param != "directly":
            stack.enter_context(registry_server.owning(tmp_path / "state"))
        yield _invoke


def _invoke(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["models", *map(str, arguments)], catch_exceptions=False)
    return result.exit_code, result.output


directly = pytest.mark.parametrize("run", ["directly"], indirect=True)
"""For tests of what happens in the command's own process, or in another place than the state directory."""


@pytest.fixture
def ask(run: Run) -> Callable[..., Any]:
    """The JSON that a command that must succeed prints."""

    def invoke(*arguments: str | Path) -> Any:
        code, text = run(*arguments, "--json")
        assert code == 0, text
        return json.loads(text)

    return invoke


@pytest.fixture
def onnx(tmp_path: Path) -> Path:
    return models.build("onnx", tmp_path)


def digest(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_a_version_from_push_to_gc(run: Run, ask: Callable[..., Any], onnx: Path, tmp_path: Path) -> None:
    golden, reference = tmp_path / "golden.jsonl", tmp_path / "train.parquet"
    golden.write_text(f"{golden_lines.EXAMPLE}\n{golden_lines.EXAMPLE}\n")
    reference.write_bytes(b"PAR1 rows PAR1")
    signature = tmp_path / "signature.json"
    signature.write_text('{"inputs": [{"name": "x", "dtype": "FP32", "shape": [-1, 30]}], "outputs": []}')
    extras = ("--golden", golden, "--reference", reference, "--signature", signature)
    known = ("--metadata", "team=risk", "--metadata", "note=a=b", "--metric", "auc=0.93")
    [pushed] = ask("push", "fraud", onnx, *extras, *known, "--alias", "champion")
    assert pushed["runnable"] is True
    shown = ask("show", "fraud@champion")
    assert shown == pushed["version"] | {"aliases": ["champion"], "trust": None}
    assert shown["artifact"]["digest"] == digest(onnx)
    assert shown["provenance"]["metadata"] == {"team": "risk", "note": "a=b"}
    assert shown["provenance"]["metrics"] == {"auc": 0.93}
    assert shown["signature"]["inputs"][0]["name"] == "x"
    assert run("pull", "fraud@1", tmp_path / "copy")[0] == 0
    assert (tmp_path / "copy" / "model" / onnx.name).read_bytes() == onnx.read_bytes()
    assert (tmp_path / "copy" / "golden.jsonl").read_text() == golden.read_text()
    assert (tmp_path / "copy" / "reference.parquet").read_bytes() == reference.read_bytes()
    code, text = run("delete", "fraud@1")
    assert code == 2
    assert "alias 'champion' points to it" in text
    assert run("alias", "fraud", "champion", "--remove")[0] == 0
    assert run("delete", "fraud@1")[0] == 0
    assert ask("gc")["files"] == 0, "stored a moment ago"
    assert ask("gc", "--grace", "0s", "--dry-run")["files"] == 3
    assert ask("gc", "--grace", "0s")["files"] == 3
    assert list((tmp_path / "state" / "artifacts" / "sha256").rglob("*/*")) == []


def test_people_see_tables(run: Run, onnx: Path) -> None:
    assert "begin with" in run("list")[1]
    run("push", "fraud", onnx, "--alias", "champion", "--metric", "auc=0.93")
    run("push", "fraud", onnx)
    assert "champion→1" in run("list")[1]
    code, text = run("show", "fraud")
    assert code == 0
    assert "auc 0.93" in text
    assert "champion: - → 1" in text
    assert digest(onnx) in run("show", "fraud@1")[1]
    assert run("alias", "fraud", "champion", "2") == (0, "fraud@champion → fraud@2\n")


def test_damage_is_found(run: Run, ask: Callable[..., Any], onnx: Path, tmp_path: Path) -> None:
    run("push", "fraud", onnx)
    run("push", "churn", models.build("lightgbm", tmp_path))
    assert [entry["ok"] for entry in ask("verify")] == [True, True]
    hexdigest = digest(onnx)[7:]
    blob = tmp_path / "state" / "artifacts" / "sha256" / hexdigest[:2] / hexdigest
    blob.write_bytes(b"?" * blob.stat().st_size)
    code, text = run("verify")
    assert code == 1
    assert "✗ fraud@1" in text
    assert "✓ churn@1" in text
    code, text = run("pull", "fraud@1", tmp_path / "copy")
    assert code == 1
    assert "is damaged" in text
    assert [path.name for path in tmp_path.iterdir() if "copy" in path.name] == []


def test_code_needs_trust(run: Run, ask: Callable[..., Any], tmp_path: Path) -> None:
    path = models.build("sklearn-pickle", tmp_path)
    [pushed] = ask("push", "risk", path)
    assert pushed["runnable"] is False
    assert "not trusted" in run("show", "risk@1")[1]
    code, text = run("push", "risk", path)
    assert code == 0
    assert "headrace models trust risk@2" in text
    assert run("trust", "risk@1")[0] == 0
    assert ask("show", "risk@2")["trust"]["digest"] == digest(path), "it is the same content"
    [again] = ask("push", "other", path)
    assert again["runnable"] is True


def test_requirements_go_with_the_version(run: Run, ask: Callable[..., Any], onnx: Path, tmp_path: Path) -> None:
    packages = tmp_path / "packages.txt"
    packages.write_text("numpy==1.26.4\n")
    beside = onnx.parent / "requirements.txt"
    beside.write_text("the-whole-project\n")
    code, text = run("push", "fraud", onnx)
    assert code == 0
    assert f"{beside} is not part of it; --requirements would give it an environment" in text
    (pushed,) = ask("push", "fraud", onnx, "--requirements", packages)
    assert pushed["runnable"] is False
    assert pushed["version"]["requirements"] == "requirements.txt"
    assert pushed["version"]["provenance"]["packages"] == {"numpy": "1.26.4"}
    assert "not trusted: it will not be loaded" in run("show", "fraud@2")[1]
    assert "runs in   an environment of its own" in run("show", "fraud@2")[1]
    assert ask("trust", "fraud@2")["trust"]["digest"] != pushed["version"]["artifact"]["digest"]
    assert "its packages too" in run("show", "fraud@2")[1]
    run("pull", "fraud@2", tmp_path / "pulled")
    assert (tmp_path / "pulled" / "requirements.txt").read_text() == "numpy==1.26.4\n"
    (tmp_path / "repo" / "m" / "3").mkdir(parents=True)
    shutil.copy(onnx, tmp_path / "repo" / "m" / "3" / "model.onnx")
    shutil.copy(packages, tmp_path / "repo" / "m" / "3" / "requirements.txt")
    (imported,) = ask("push", tmp_path / "repo", "--trust")
    assert (imported["version"]["ref"], imported["runnable"]) == ("m@3", True)
    assert imported["version"]["requirements"] == "requirements.txt"
    packages.write_text("numpy\n-r other.txt\n")
    code, text = run("push", "fraud", onnx, "--requirements", packages)
    assert code == 2
    assert f"{packages}, line 2: '-r other.txt' refers to another file" in text


def test_a_repository_keeps_its_numbers(run: Run, ask: Callable[..., Any], onnx: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    for place in ("fraud/3", "fraud/7", "churn/1"):
        (repository / place).mkdir(parents=True)
        shutil.copy(onnx, repository / place / "model.onnx")
    assert [entry["version"]["ref"] for entry in ask("push", repository)] == ["churn@1", "fraud@3", "fraud@7"]
    assert [entry["version"]["ref"] for entry in ask("push", repository)] == ["churn@1", "fraud@3", "fraud@7"]
    assert {model["name"]: model["newest"] for model in ask("list")} == {"churn": 1, "fraud": 7}
    assert [version["number"] for version in ask("show", "fraud")["versions"]] == [3, 7]
    assert [entry["version"]["ref"] for entry in ask("push", "base", repository / "fraud")] == ["base@3", "base@7"]
    assert ask("push", "fraud", repository / "fraud" / "7" / "model.onnx")[0]["version"]["ref"] == "fraud@8"
    code, text = run("push", "fraud", repository)
    assert code == 2
    assert "holds 2 models (churn, fraud)" in text


def test_an_mlflow_folder_tells_its_packages(ask: Callable[..., Any], tmp_path: Path) -> None:
    folder = models.build("mlflow-xgboost", tmp_path)
    (folder / "requirements.txt").write_text("mlflow==3.1.0\nxgboost [all] == 3.0.1  # pinned\nnumpy>=1\n")
    [pushed] = ask("push", "fraud", folder)
    assert pushed["version"]["provenance"]["packages"]["mlflow"] == "3.1.0"
    assert ask("pull", "fraud", tmp_path / "copy")["model"] == str(tmp_path / "copy" / "model")
    assert {p.name for p in (tmp_path / "copy" / "model").iterdir()} == {p.name for p in folder.iterdir()}


@directly
@pytest.mark.xdist_group("object-stores")
def test_a_model_from_and_in_an_object_store(
    run: Run, ask: Callable[..., Any], onnx: Path, tmp_path: Path, bucket: Bucket
) -> None:
    bucket.put("models/fraud.onnx", onnx.read_bytes())
    files = ("--artifacts", f"{bucket.url}/blobs")
    [pushed] = ask("push", f"{bucket.url}/models/fraud.onnx", *files)
    assert pushed["version"]["provenance"]["source"] == f"{bucket.url}/models/fraud.onnx"
    assert ask("verify", *files) == [{"version": "fraud@1", "ok": True, "problems": []}]
    assert run("pull", "fraud", tmp_path / "copy", *files)[0] == 0
    assert (tmp_path / "copy" / "model" / "fraud.onnx").read_bytes() == onnx.read_bytes()
    assert not (tmp_path / "state" / "artifacts").exists()


@directly
def test_the_same_on_postgresql(run: Run, ask: Callable[..., Any], onnx: Path, url: str) -> None:
    place = ("--database", url)
    ask("push", "fraud", onnx, "--alias", "champion", *place)
    ask("push", "fraud", onnx, *place)
    ask("alias", "fraud", "champion", "2", *place)
    assert ask("list", *place) == [{"name": "fraud", "versions": 2, "newest": 2, "aliases": {"champion": 2}}]
    assert run("delete", "fraud@2", *place)[0] == 2


def test_what_changes_on_its_way_is_refused(run: Run, onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspect = pushing._inspect

    def then_it_changes(found: Any) -> Any:
        artifacts = inspect(found)
        onnx.write_bytes(onnx.read_bytes() + b"\0")
        return artifacts

    monkeypatch.setattr(pushing, "_inspect", then_it_changes)
    code, text = run("push", "fraud", onnx)
    assert code == 2
    assert "changed while it was pushed" in text
    assert run("list", "--json") == (0, "[]\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("push", "fraud", "missing.onnx"), "does not exist"),
        (("push", "a", "b", "c"), "one SOURCE at a time"),
        (("push", "fraud", "{model}", "--metric", "auc=high"), "is no number"),
        (("push", "fraud", "{model}", "--metadata", "team"), "NAME=VALUE"),
        (("push", "fraud", "{model}", "--golden", "{bad}"), "line 2"),
        (("push", "fraud", "{model}", "--reference", "{bad}"), "no Parquet file"),
        (("push", "fraud", "{model}", "--signature", "{bad}"), "expected JSON like"),
        (("push", "fraud", "{model}", "--golden", "/missing/file"), "No such file"),
        (("push", "stats", "{model}"), "reserved"),
        (("alias", "fraud", "champion"), "say where"),
        (("delete", "fraud"), "say which version"),
        (("show", "fraud"), "which is empty"),
        (("gc", "--grace", "soon"), "soon"),
        (("list", "--database", "mysql://x"), "not supported"),
        (("push", "fraud", "{model}", "--metric", "auc=nan"), "is no number"),
        (("show", "fraud@7"), "which is empty"),
        (("trust", "fr aud"), "not valid"),
        (("pull", "fraud@champion"), "which is empty"),
        (("push", "{bad}"), "no XGBoost model"),
    ],
)
def test_wrong_use_says_what_to_do(run: Run, onnx: Path, tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    bad = tmp_path / "bad"
    bad.write_text(f"{golden_lines.EXAMPLE}\nno json\n")
    code, text = run(*(argument.format(model=onnx, bad=bad) for argument in arguments))
    assert code == 2
    assert says in text
    if arguments[0] == "push":
        assert run("list", "--json") == (0, "[]\n"), "nothing was registered"


KILLED = """
import os, sys
from headrace.store import folder_artifacts, models
step = sys.argv.pop(1)
def die(*_, **__): os.kill(os.getpid(), 9)
if step == "stored half": folder_artifacts._fill = die
if step == "before the blob": folder_artifacts.os.fsync = die
if step == "before the folder": folder_artifacts._sync_folder = die
if step == "numbered": models.Models._allocate = lambda *_: die()
if step == "in the middle": models.msgspec.structs.asdict = die
if step == "before commit":
    from headrace.control import registry
    registry.Registry._move = die
from headrace.cli.main import main
main()
"""


@directly
@pytest.mark.parametrize(
    "step", ["stored half", "before the blob", "before the folder", "numbered", "in the middle", "before commit"]
)
def test_a_push_that_is_killed_leaves_no_version(run: Run, onnx: Path, step: str) -> None:
    command = [sys.executable, "-c", KILLED, step, "models", "push", "fraud", str(onnx), "--alias", "champion"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert run("list", "--json") == (0, "[]\n")
    code, text = run("push", "fraud", onnx, "--alias", "champion")
    assert code == 0
    assert "fraud@1" in text
    assert run("verify")[0] == 0


def test_pull_overwrites_nothing(run: Run, onnx: Path, tmp_path: Path) -> None:
    run("push", "fraud", onnx)
    (tmp_path / "mine").mkdir()
    code, text = run("pull", "fraud", tmp_path / "mine")
    assert code == 2
    assert "exists already" in text


def test_an_old_upload_that_is_pushed_again_survives_gc(run: Run, onnx: Path, tmp_path: Path) -> None:
    run("push", "fraud", onnx)
    run("delete", "fraud@1")
    blob = next((tmp_path / "state" / "artifacts" / "sha256").glob("*/*"))
    os.utime(blob, (time.time() - 1e6,) * 2)
    run("push", "fraud", onnx)
    run("gc")
    assert run("verify")[0] == 0


def test_the_bar_is_drawn_on_a_terminal_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for terminal in ("0", "1"):
        monkeypatch.setenv("TTY_COMPATIBLE", terminal)
        with transfer_bar("Storing", quiet=False) as move:
            move("fraud", 512, 1024)
            move("fraud", 512, 1024)
        assert ("Storing fraud" in capsys.readouterr().err) == (terminal == "1")
