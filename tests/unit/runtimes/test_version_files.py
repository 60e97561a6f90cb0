"""Which files a version consists of, what accompanies it, and how its folder appears."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.core import errors
from headrace.core.models import Artifact, Format
from headrace.runtimes import version_files
from headrace.runtimes.inspect import inspect
from headrace.runtimes.repository import discover
from tests import models


def test_files_of_a_folder_and_of_a_file(tmp_path: Path) -> None:
    folder = inspect(models.build("mlflow-xgboost", tmp_path / "mlflow"))
    names = set(version_files.files_of(folder))
    assert "model/MLmodel" in names
    assert version_files.entry_of(folder) == "model"
    file = inspect(models.build("onnx", tmp_path))
    assert set(version_files.files_of(file)) == {version_files.entry_of(file)}


def test_files_that_changed_after_inspection_are_refused(tmp_path: Path) -> None:
    path = models.build("onnx", tmp_path)
    artifact = inspect(path)
    version_files.require_inspected(artifact, {f"model/{path.name}": artifact.digest, "golden.jsonl": "sha256:x"})
    with pytest.raises(errors.InvalidInput, match="changed while it was pushed"):
        version_files.require_inspected(artifact, {f"model/{path.name}": "sha256:other"})


def test_numbers_come_from_version_folders(tmp_path: Path) -> None:
    for place in ("m/3", "m/7"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "model.echo").write_text("headrace-echo 1\n")
    root = tmp_path / "m"
    assert [version_files.number_of(found, root) for found in discover(root)] == [3, 7]
    [lone] = discover(root / "7" / "model.echo")
    assert version_files.number_of(lone, root / "7" / "model.echo") is None


def test_what_accompanies_a_model_is_what_it_should_be(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with pytest.raises(errors.InvalidInput, match="golden here: No such file"):
        version_files.read_golden(path, "golden here")
    path.write_bytes(b"{}\n")
    assert version_files.read_golden(path, "golden here") == b"{}\n"
    with path.open("r+b") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(errors.InvalidInput, match="golden here has more than 64 MiB"):
        version_files.read_golden(path, "golden here")
    for content in (b"", b"PAR1", b"PAR", b"x PAR1"):
        path.write_bytes(content)
        if content != b"PAR1":
            with pytest.raises(errors.InvalidInput, match="reference here is no Parquet file"):
                version_files.check_reference(path, "reference here")
    with pytest.raises(errors.InvalidInput, match="No such file"):
        version_files.check_reference(tmp_path / "missing", "reference")


def test_packages_are_read_of_what_is_pinned() -> None:
    assert version_files.packages_of(b"a==1\nb[x] == 2 # c\nd>=3\n\xff\n") == {"a": "1", "b": "2"}


def test_a_new_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "copy"
    with version_files.new_folder(target) as folder:
        (folder / "a").write_text("a")
        assert not target.exists()
    assert (target / "a").read_text() == "a"
    with pytest.raises(errors.Conflict, match="exists already"), version_files.new_folder(target):
        pass

    def fail() -> None:
        with version_files.new_folder(tmp_path / "other"):
            raise KeyError("in the middle")

    with pytest.raises(KeyError):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_of_two_who_make_a_folder_one_is_told(tmp_path: Path) -> None:
    target = tmp_path / "copy"

    def late() -> None:
        with version_files.new_folder(target) as folder:
            (folder / "late").touch()
            with version_files.new_folder(target) as faster:
                (faster / "first").touch()

    with pytest.raises(errors.Conflict, match="made meanwhile"):
        late()
    assert [path.name for path in target.iterdir()] == ["first"]


def test_a_path_of_a_model_that_is_a_file(tmp_path: Path) -> None:
    artifact = Artifact(str(tmp_path / "m.txt"), Format.LIGHTGBM, "lightgbm", "sha256:x")
    assert version_files.entry_of(artifact) == "model/m.txt"
