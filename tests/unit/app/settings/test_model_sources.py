"""Models as typed: ``[name=]path[:Class]``."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.app.settings.model_sources import (
    check_sources,
    check_trust,
    endpoint_name,
    is_reference,
    parse_source,
    rebase,
)
from headrace.core import errors


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("fraud.onnx", ("fraud.onnx", None, None)),
        ("churn=churn.ubj", ("churn.ubj", "churn", None)),
        ("team/risk=models/r.onnx", ("models/r.onnx", "team/risk", None)),
        ("img/", ("img/", None, None)),
        ("pricer.py:Pricer", ("pricer.py", None, "Pricer")),
        ("p=a/pricer.py:Pricer", ("a/pricer.py", "p", "Pricer")),
        ("pricer.py", ("pricer.py", None, None)),
        ("odd:name.onnx", ("odd:name.onnx", None, None)),
        ("a=b=c.onnx", ("b=c.onnx", "a", None)),
    ],
)
def test_parts(text: str, parts: tuple[str, str | None, str | None]) -> None:
    source = parse_source(text)
    assert (source.path, source.name, source.attribute) == parts


def test_an_existing_path_with_an_equals_sign_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "lr=0.1.onnx"
    path.touch()
    assert parse_source(str(path)).path == str(path)


@pytest.mark.parametrize("text", ["a b=x.onnx", "chat=x.onnx", "a/infer=x.onnx", "=x.onnx", "name="])
def test_bad_names_are_refused(text: str) -> None:
    with pytest.raises(errors.BadSettings, match=r"^model: "):
        parse_source(text)


def test_endpoint_names_come_from_files_and_folders(tmp_path: Path) -> None:
    folder = tmp_path / "my.model"
    folder.mkdir()
    assert endpoint_name(parse_source("x/fraud.v2.onnx")) == "fraud.v2"
    assert endpoint_name(parse_source(str(folder))) == "my.model"
    assert endpoint_name(parse_source("n=x.onnx")) == "n"


def test_rebase_counts_from_a_folder() -> None:
    assert rebase(parse_source("a.onnx"), Path("etc")).path == "etc/a.onnx"
    assert rebase(parse_source("/a.onnx"), Path("etc")).path == "/a.onnx"
    assert rebase(parse_source("a.onnx"), Path()).path == "a.onnx"


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("fraud@champion", True),
        ("risk=team/fraud@7", True),
        ("fraud", False),
        ("fraud@", False),
        ("fraud@a@b", False),
        ("/srv/fraud@7", False),
        ("m@2.onnx", False),
    ],
)
def test_references_are_told_from_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, reference: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m@2.onnx").touch()
    source = parse_source(text)
    assert is_reference(source) == reference
    if reference:
        assert rebase(source, Path("etc")) == source, "the registry is where it is"
        assert endpoint_name(source) in ("fraud", "risk")


def test_missing_paths_suggest_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "fraud.onnx").touch()
    with pytest.raises(errors.BadSettings) as caught:
        check_sources([parse_source(str(tmp_path / "fruad.onnx"))])
    assert f"did you mean {str(tmp_path / 'fraud.onnx')!r}?" in caught.value.message
    with pytest.raises(errors.BadSettings, match="registry"):
        check_sources([parse_source(str(tmp_path / "zzz@champion"))])


def test_two_files_of_one_name_are_refused_with_a_way_out(tmp_path: Path) -> None:
    for name in ("a.onnx", "a.ubj"):
        (tmp_path / name).touch()
    onnx, ubj = parse_source(str(tmp_path / "a.onnx")), parse_source(str(tmp_path / "a.ubj"))
    with pytest.raises(errors.BadSettings, match=r"would both be endpoint 'a'; name one of them, e\.g\. a-2="):
        check_sources([onnx, ubj])
    check_sources([onnx, parse_source(f"b={tmp_path / 'a.ubj'}")])


def test_trust_in_nothing_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").touch()
    check_trust([f"sha256:{'0a' * 32}", str(tmp_path), str(tmp_path / "model.pkl")])
    with pytest.raises(errors.BadSettings, match="'sha256:abc' is no digest"):
        check_trust(["sha256:abc"])
    with pytest.raises(errors.BadSettings, match=r"there is no file or folder '.*modle.pkl'.*model.pkl"):
        check_trust([str(tmp_path / "modle.pkl")])
