"""``headrace environments``: what is there, and what may go."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace.app.registry import required_packages
from headrace.backends.environments import requirements
from headrace.backends.environments.folder import Environment, EnvironmentsFolder
from headrace.cli.main import app
from headrace.core.environments import EnvironmentSpec
from headrace.runtimes.inspect import inspect
from tests import models

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("HEADRACE_STATE", str(tmp_path / "state"))

    def invoke(*arguments: str | Path) -> tuple[int, str]:
        result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
        return result.exit_code, result.output

    return invoke


@pytest.fixture
def folder(tmp_path: Path) -> EnvironmentsFolder:
    return EnvironmentsFolder(tmp_path / "state" / "environments")


def build(folder: EnvironmentsFolder, spec: EnvironmentSpec, at: float = 1.0) -> str:
    """Stand in for a build: a complete environment with nothing in it but Python."""
    lease = folder.own(spec.key)
    assert lease is not None
    built = folder.begin(spec.key)
    (built / "bin").mkdir()
    (built / "bin" / "python").symlink_to(sys.executable)
    (built / "package").write_bytes(b"\0" * 2048)
    folder.finish(built, Environment(spec, {}, "3.11", at, 0.5))
    lease.release()
    return spec.key


def named(key: str) -> EnvironmentSpec:
    return EnvironmentSpec(key * 32, ("numpy==1.26.4", "six"), ())


def test_list_shows_what_was_asked_for(run: Run, folder: EnvironmentsFolder) -> None:
    code, text = run("environments", "list")
    assert (code, text) == (
        0,
        f"no environments in {folder.root}; headrace serve builds them for versions with requirements.txt\n",
    )
    build(folder, named("bb"), at=60.0)
    build(folder, named("aa"), at=0.0)
    first, second = run("environments", "list")[1].splitlines()
    assert first.startswith("aaaaaaaaaaaa  1970-01-01 00:00Z")
    assert first.endswith("KiB  numpy==1.26.4, six")
    assert second.startswith("bbbbbbbbbbbb  1970-01-01 00:01Z")
    (entry, _) = json.loads(run("environments", "list", "--json")[1])
    assert entry["path"] == str(folder.path("aa" * 32))
    assert entry["bytes"] > 2048
    assert entry["environment"]["spec"]["requirements"] == ["numpy==1.26.4", "six"]


def test_remove_takes_the_beginning_of_a_key(run: Run, folder: EnvironmentsFolder) -> None:
    one, other = build(folder, named("ab")), build(folder, named("ac"))
    for wrong, says in (("a", "several begin with that"), ("ff", "there is none"), ("", "several")):
        code, text = run("environments", "remove", wrong)
        assert code == 2
        assert says in text
    lease = folder.use(other)
    assert lease is not None
    code, text = run("environments", "remove", "ab", "ac")
    assert code == 1, "one of them stayed"
    assert text.splitlines()[1] == f"{other[:12]} is used by a server; it stays"
    assert not folder.complete(one)
    assert folder.complete(other)
    lease.release()
    assert run("environments", "remove", "ac")[0] == 0
    assert folder.listing() == []


def test_gc_keeps_what_versions_want_and_servers_use(run: Run, folder: EnvironmentsFolder, tmp_path: Path) -> None:
    onnx, packages = models.build("onnx"), tmp_path / "packages.txt"
    packages.write_text("numpy==1.26.4\n")
    for arguments in (("fraud", onnx, "--requirements", packages), ("plain", onnx)):
        assert run("models", "push", *arguments)[0] == 0
    lines = requirements.parse(packages.read_bytes(), "r.txt")
    artifact = inspect(onnx)
    wanted = build(folder, required_packages.environment(artifact, lines, source_builds=False))
    built = build(folder, required_packages.environment(artifact, lines, source_builds=True))
    unused, used = build(folder, named("aa")), build(folder, named("bb"))
    killed = folder.root / f".{'c' * 64}.x1"
    killed.mkdir()
    lease = folder.use(used)
    assert lease is not None
    planned = json.loads(run("environments", "gc", "--dry-run", "--json")[1])
    assert len(folder.listing()) == 4, "nothing is removed"
    done = json.loads(run("environments", "gc", "--json")[1])
    assert planned == done | {"dry_run": True}
    assert (done["removed"], done["in_use"]) == ([unused, "c" * 64], [used])
    assert done["bytes"] > 2048
    assert not killed.exists()
    assert {environment.spec.key for environment in folder.listing()} == {wanted, built, used}
    assert run("models", "delete", "fraud", "--all")[0] == 0
    lease.release()
    assert run("environments", "gc")[1].startswith("3 environments, ")
    assert folder.listing() == []


def test_the_folder_can_be_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(EnvironmentsFolder(tmp_path / "elsewhere"), named("aa"))
    assert run("environments", "list", "--folder", tmp_path / "elsewhere")[1].startswith("aaaa")
    monkeypatch.setenv("HEADRACE_ENVIRONMENTS__FOLDER", str(tmp_path / "elsewhere"))
    assert run("environments", "list")[1].startswith("aaaa")
