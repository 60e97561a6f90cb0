"""An artifact that changed after it was inspected is told from one that did not."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.core import errors
from headrace.runtimes import digest
from headrace.runtimes.inspect import inspect
from tests import models


@pytest.mark.parametrize("kind", models.KINDS)
def test_every_kind_is_what_was_inspected(kind: str) -> None:
    digest.require_unchanged(inspect(models.build(kind)))


@pytest.mark.parametrize("kind", ["onnx", "sklearn-skops", "xgboost-ubj", "lightgbm", "sklearn-pickle", "echo"])
@pytest.mark.parametrize("content", [b"", b"something else"])
def test_a_changed_file_is_refused(tmp_path: Path, kind: str, content: bytes) -> None:
    path = models.build(kind, tmp_path)
    artifact = inspect(path)
    path.write_bytes(content)
    with pytest.raises(errors.LoadFailed, match=f"{path.name} changed after it was inspected"):
        digest.require_unchanged(artifact)


def test_changed_weights_beside_an_onnx_file_count(tmp_path: Path) -> None:
    path = models.build("onnx-external-data", tmp_path)
    artifact = inspect(path)
    (weights,) = tmp_path.glob("*.data")
    weights.write_bytes(bytes(len(weights.read_bytes())))
    with pytest.raises(errors.LoadFailed, match="changed"):
        digest.require_unchanged(artifact)


def test_a_file_more_in_a_folder_counts(tmp_path: Path) -> None:
    path = models.build("mlflow-xgboost", tmp_path)
    artifact = inspect(path)
    (path / "new.txt").write_text("more")
    with pytest.raises(errors.LoadFailed, match="changed"):
        digest.require_unchanged(artifact)


def test_a_file_that_is_gone_says_so(tmp_path: Path) -> None:
    path = models.build("onnx", tmp_path)
    artifact = inspect(path)
    path.unlink()
    with pytest.raises(errors.InvalidInput, match="does not exist"):
        digest.require_unchanged(artifact)


def test_a_python_file_is_left_to_its_kept_copy(tmp_path: Path) -> None:
    path = models.build("python", tmp_path)
    artifact = inspect(path)
    path.write_text("")
    digest.require_unchanged(artifact)
