"""``headrace doctor``, ``version`` and ``--help``, as machines and people run them."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import headrace as package
from tests.acceptance.test_cli_serve import headrace


def test_doctor_for_machines(tmp_path: Path) -> None:
    """Every runtime is really imported; a port that is taken is a warning that says by whom."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        result = headrace("doctor", "--json", "--port", port, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    document = json.loads(result.stdout)
    assert document["ok"] is True
    checks = {check["name"]: check for check in document["checks"]}
    for runtime in ("onnx", "sklearn", "xgboost", "lightgbm", "python", "echo"):
        assert checks[f"runtime {runtime}"]["status"] == "ok", checks[f"runtime {runtime}"]
    (taken,) = [check for check in document["checks"] if f"{port} is taken" in check["found"]]
    assert taken["status"] == "warning"
    assert "serve with --port" in taken["fix"]


def test_version_and_help(tmp_path: Path) -> None:
    assert headrace("--version", cwd=tmp_path).stdout.strip() == f"headrace {package.__version__}"
    assert json.loads(headrace("version", "--json", cwd=tmp_path).stdout)["headrace"] == package.__version__
    for command in ("serve", "predict", "doctor", "version"):
        result = headrace(command, "--help", cwd=tmp_path)
        assert result.returncode == 0
        assert "Example" in result.stdout
    unknown = headrace("sreve", cwd=tmp_path)
    assert unknown.returncode == 2
    assert "serve" in unknown.stderr
