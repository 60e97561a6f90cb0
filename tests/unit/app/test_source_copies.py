"""Copies of Python files: of what was inspected, or none."""

from __future__ import annotations

from pathlib import Path

import msgspec

from headrace.app import source_copies
from headrace.core.models import Format
from headrace.runtimes import inspect

SOURCE = "import headrace\n\n\nclass M(headrace.Model):\n    pass\n"


def test_the_copy_outlives_changes_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text(SOURCE)
    artifact = inspect.inspect(path)
    source_copies.keep(tmp_path, artifact)
    path.write_text("something else")
    found = source_copies.find(tmp_path, artifact)
    assert found is not None
    assert Path(found).read_text() == SOURCE


def test_a_file_that_has_changed_already_is_not_copied(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text(SOURCE)
    artifact = inspect.inspect(path)
    path.write_text(SOURCE + "\n")
    source_copies.keep(tmp_path, artifact)
    assert source_copies.find(tmp_path, artifact) is None


def test_only_python_files_are_copied(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text(SOURCE)
    artifact = msgspec.structs.replace(inspect.inspect(path), format=Format.ONNX)
    source_copies.keep(tmp_path, artifact)
    assert source_copies.find(tmp_path, artifact) is None
