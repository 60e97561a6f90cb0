"""Folders: three layouts, every version found, and errors that name what is there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from headrace.core import errors
from headrace.runtimes.repository import Found, discover


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return tmp_path / "models"


def _make(root: Path, files: Iterable[str]) -> None:
    for name in files:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def _short(found: list[Found], root: Path) -> list[tuple[str, str, str, bool]]:
    return [(f.name, f.version, str(Path(f.path).relative_to(root)), f.served) for f in found]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        # one model
        (["model.onnx"], [("models", "1", "model.onnx", True)]),
        (["fraud.ubj", "README.md", "labels.txt", "config.pbtxt"], [("models", "1", "fraud.ubj", True)]),
        (["weights"], [("models", "1", "weights", True)]),
        (["fraud.mar", "config.json"], [("models", "1", "fraud.mar", True)]),
        (["MLmodel", "model.pkl", "conda.yaml"], [("models", "1", ".", True)]),
        (["saved_model.pb", "variables/"], [("models", "1", ".", True)]),
        (["model.onnx", "other.onnx"], [("models", "1", "model.onnx", True)]),
        (["net.onnx", "net.onnx.data"], [("models", "1", "net.onnx", True)]),
        # versions of one model
        (
            ["1/model.onnx", "10/model.onnx", "2/model.onnx", "notes.txt", "config.pbtxt"],
            [
                ("models", "1", "1/model.onnx", False),
                ("models", "2", "2/model.onnx", False),
                ("models", "10", "10/model.onnx", True),
            ],
        ),
        (["007/model.txt", ".hidden/x", "..data/x"], [("models", "007", "007/model.txt", True)]),
        (["1/model.savedmodel/saved_model.pb"], [("models", "1", "1/model.savedmodel", True)]),
        (["3/MLmodel", "3/model.pkl"], [("models", "3", "3", True)]),
        # a repository
        (
            ["fraud/1/model.onnx", "fraud/2/model.onnx", "churn/1/xgboost.json", "README.txt", "empty/", ".git/config"],
            [
                ("churn", "1", "churn/1/xgboost.json", True),
                ("fraud", "1", "fraud/1/model.onnx", False),
                ("fraud", "2", "fraud/2/model.onnx", True),
            ],
        ),
        (
            ["a/model.onnx", "my model/1/model.joblib", "flow/MLmodel"],
            [
                ("a", "1", "a/model.onnx", True),
                ("flow", "1", "flow", True),
                ("my-model", "1", "my model/1/model.joblib", True),
            ],
        ),
    ],
)
def test_layouts(tree: Path, files: list[str], found: list[tuple[str, str, str, bool]]) -> None:
    _make(tree, files)
    assert _short(discover(tree), tree) == found


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("fraud.onnx", "fraud"),
        ("fraud.v2.joblib.gz", "fraud.v2"),
        ("My model.pkl", "My-model"),
        ("noend", "noend"),
        ("stats.onnx", "stats-model"),
    ],
)
def test_a_file_gives_its_own_name(tmp_path: Path, file: str, name: str) -> None:
    _make(tmp_path, [file])
    assert [(f.name, f.version, f.served) for f in discover(tmp_path / file)] == [(name, "1", True)]


def test_a_python_file_with_a_class(tmp_path: Path) -> None:
    _make(tmp_path, ["pricer.py"])
    assert discover(f"{tmp_path}/pricer.py:Pricer") == [
        Found("pricer", "1", str(tmp_path / "pricer.py"), attribute="Pricer")
    ]
    assert discover(tmp_path / "pricer.py")[0].attribute is None


def test_paths_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _make(tmp_path, ["m.onnx"])
    monkeypatch.chdir(tmp_path)
    assert discover("m.onnx")[0].path == str(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "does not exist"),
        (["a/", "b/"], r"holds a/, b/; expected a model file, a folder VERSION/file .* NAME/VERSION/file"),
        (["x/y/z/model.onnx"], "holds x/; expected"),
        (
            ["a.onnx", "b.onnx"],
            "files: a.onnx, b.onnx; name one of them, or call the model itself model.onnx",
        ),
        (
            [f"{letter}.onnx" for letter in "abcdefghijk"],
            r"files: a.onnx, .*, h.onnx and 3 more; name one",
        ),
        (["1/model.onnx", "2/"], "version folder without a model: it holds nothing"),
        (["m/1/a.onnx", "m/1/b.onnx"], "several model files"),
        (["a b/1/model.onnx", "a-b/1/model.onnx"], "'a b' and 'a-b' both give 'a-b'|'a-b' and 'a b' both give 'a-b'"),
        (["model.onnx", "fraud/1/model.onnx"], "both a model file .* and model folders"),
    ],
)
def test_errors_name_what_was_found(tree: Path, files: list[str], message: str) -> None:
    _make(tree, files)
    with pytest.raises(errors.InvalidInput, match=message):
        discover(tree)


def test_versions_may_be_links(tree: Path) -> None:
    _make(tree, ["store/model.onnx"])
    (tree / "live").mkdir()
    (tree / "live" / "4").symlink_to(tree / "store")
    assert _short(discover(tree / "live"), tree) == [("live", "4", "live/4/model.onnx", True)]


def test_requirements_beside_a_model_in_its_folder_are_its_own(tree: Path) -> None:
    inside = ["m/1/model.onnx", "m/1/requirements.txt", "m/2/model.onnx", "flow/MLmodel", "flow/requirements.txt"]
    _make(tree, [*inside, "requirements.txt", "m/requirements.txt"])
    found = {(f.name, f.version): f.requirements for f in discover(tree)}
    assert found == {
        ("m", "1"): str(tree / "m" / "1" / "requirements.txt"),
        ("m", "2"): None,
        ("flow", "1"): None,  # MLflow writes one into every model
    }
    assert discover(tree / "m" / "1")[0].requirements == str(tree / "m" / "1" / "requirements.txt")
    assert discover(tree / "m" / "1" / "model.onnx")[0].requirements is None, "that file was named, nothing beside it"
