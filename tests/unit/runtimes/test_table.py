"""The table of runtimes: lazy, and clear about what is missing."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import types
from pathlib import Path

import pytest

from headrace.core import errors
from headrace.runtimes import table


def test_built_in_names() -> None:
    known = {"onnx", "sklearn", "pickle", "xgboost", "lightgbm", "mlflow", "torchserve", "python", "echo"}
    assert set(table.names()) >= known


def test_every_built_in_module_loads() -> None:
    for name in table.BUILT_IN:
        assert callable(table.find(name).load)
        assert table.missing(name) == []


def test_the_table_imports_no_framework() -> None:
    source = (
        "import sys\nfrom headrace.runtimes import table, inspect, repository, trust\ntable.names()\n"
        "heavy = {'onnxruntime', 'sklearn', 'pandas', 'xgboost', 'lightgbm', 'scipy', 'mlflow', 'skops', 'joblib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_runtime_lists_the_known() -> None:
    with pytest.raises(errors.LoadFailed, match="no runtime 'tensorflow'; known are onnx, sklearn"):
        table.find("tensorflow")


def test_a_missing_framework_gives_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xgboost", None)
    monkeypatch.delitem(sys.modules, "headrace.runtimes.xgboost", raising=False)
    with pytest.raises(errors.LoadFailed, match=r"xgboost runtime needs 'xgboost'.*: pip install xgboost-cpu"):
        table.find("xgboost")


def test_in_an_environment_of_its_own_a_version_must_ask_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "xgboost", None)
    monkeypatch.delitem(sys.modules, "headrace.runtimes.xgboost", raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    (tmp_path / "environment.json").touch()
    with pytest.raises(errors.LoadFailed, match=r"not installed: put xgboost-cpu into the requirements.txt of this"):
        table.find("xgboost")


def test_missing_looks_without_importing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(table.BUILT_IN, "odd", table.Entry("headrace.odd", {"no_such_module": "no-such-dist"}))
    assert table.missing("odd") == ["no-such-dist"]
    assert table.missing("a-plug-in") == []


def test_plug_ins_come_from_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("acme_runtime")
    monkeypatch.setitem(sys.modules, "acme_runtime", module)
    point = importlib.metadata.EntryPoint("acme", "acme_runtime", table.GROUP)

    def entry_points(*, group: str, name: str | None = None) -> tuple[importlib.metadata.EntryPoint, ...]:
        assert group == table.GROUP
        return (point,) if name in (None, "acme") else ()

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    assert "acme" in table.names()
    with pytest.raises(errors.LoadFailed, match=r"plug-in runtime 'acme' .* has no function load"):
        table.find("acme")
    module.load = lambda artifact, options: None  # type: ignore[attr-defined]
    assert table.find("acme") is module


def test_a_broken_plug_in_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("acme", "acme_gone", table.GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: (point,))
    with pytest.raises(errors.LoadFailed, match="acme runtime needs 'acme_gone', which is not installed"):
        table.find("acme")
