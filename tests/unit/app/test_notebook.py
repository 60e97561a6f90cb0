"""``headrace.serve`` before the server starts. With a server: ``tests/integration/test_notebook.py``."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

import headrace
from headrace.app import events, notebook
from headrace.core import errors


class Echo(headrace.Model):
    def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        return inputs


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the private folders of servers go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"replica": 2}, "headrace.serve: unknown key 'replica'; did you mean 'replicas'?"),
        ({"replicas": -1}, "headrace.serve: replicas: expected a whole number of at least 0, got a whole number '-1'"),
        ({"batching": {"mod": "off"}}, "headrace.serve: unknown key 'batching.mod'; did you mean 'mode'?"),
        ({"host": "0.0.0.0"}, "host '0.0.0.0' can be reached from other machines"),
        ({"models": ["x"]}, "headrace.serve serves one model"),
        ({"name": "a b"}, "endpoint name 'a b' is not valid"),
    ],
)
def test_wrong_settings_are_said_at_once_and_leave_nothing(
    folder: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(errors.BadSettings) as caught:
        headrace.serve(Echo, **settings)
    assert caught.value.message.startswith(message)
    assert not any(folder.iterdir())


def test_the_file_trusts_exactly_what_was_saved(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    import yaml

    seen: dict[str, Any] = {}

    def start(server: notebook.Server, config: Path, timeout: float) -> None:
        seen["settings"] = yaml.safe_load(config.read_text())
        seen["digest"] = hashlib.sha256((config.parent / "model.pkl").read_bytes()).hexdigest()
        seen["mode"] = config.parent.stat().st_mode & 0o777

    monkeypatch.setattr(notebook.Server, "_start", start)
    server = headrace.serve(Echo, name="e", timeout="500ms", options={"a": 1}, trust="sha256:aa")
    settings = seen["settings"]
    assert settings["trust"] == ["sha256:aa", f"sha256:{seen['digest']}"]
    assert settings["endpoints"] == {"e": {"model": str(server._folder / "model.pkl")}}
    assert (settings["port"], settings["management_port"], settings["timeout"]) == (0, 0, "500ms")
    assert settings["options"] == {"a": 1}
    assert seen["mode"] == 0o700
    server.stop()
    assert not any(folder.iterdir())


def test_paths_are_served_where_they_are_and_not_trusted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(notebook.Server, "_start", lambda server, config, timeout: seen.append(config.read_text()))
    monkeypatch.chdir(tmp_path)
    for name in ("pricer.py", "m.onnx"):
        Path(name).touch()
    headrace.serve("pricer.py:Pricer").stop()
    headrace.serve(Path("m.onnx")).stop()
    assert f"model: {tmp_path}/pricer.py:Pricer" in seen[0]
    assert f"model: {tmp_path}/m.onnx" in seen[1]
    assert not any("trust" in text for text in seen)


def test_the_environment_carries_imports_and_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_PORT", "1")
    monkeypatch.setenv("OTHER", "kept")
    monkeypatch.setattr(sys, "path", ["", "/lib/a", "/lib/python311.zip"])
    environment = notebook._environment()
    assert "HEADRACE_PORT" not in environment
    assert environment["OTHER"] == "kept"
    assert environment["PYTHONPATH"] == f"{Path.cwd()}{os.pathsep}/lib/a"


def test_lines_are_events_or_the_error_that_ended_it() -> None:
    stopped = events.Stopped(0)
    lines = [
        msgspec.json.encode(stopped).decode(),
        '{"error": "port: wrong", "code": "bad_settings"}',
        "noise of a library",
        '{"type": "Unknown"}',
    ]
    assert list(notebook._events(io.StringIO("\n".join(lines)))) == [stopped, "port: wrong"]


def test_a_path_has_the_name_that_the_command_gives_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(notebook.Server, "_start", lambda server, config, timeout: None)
    (tmp_path / "iris.onnx").touch()
    for path, name in ((tmp_path / "iris.onnx", None), (str(tmp_path / "iris.onnx"), "flowers")):
        with headrace.serve(path, name) as server:
            assert server.name == (name or "iris")
    with pytest.raises(errors.BadSettings, match=r"there is no file or folder '.*/irs.onnx'.*iris.onnx"):
        headrace.serve(tmp_path / "irs.onnx")
