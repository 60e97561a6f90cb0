"""Trust: nothing runs code unless its digest or path was named, or it is Python source that was typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.core import errors
from headrace.core.models import Artifact, Format
from headrace.runtimes import table, trust
from headrace.runtimes.inspect import inspect
from headrace.runtimes.runtime import LoadOptions
from tests import models


def _pickle(**changes: object) -> Artifact:
    values: dict[str, object] = {
        "path": "/models/m.pkl",
        "format": Format.PICKLE,
        "runtime": "pickle",
        "digest": "sha256:ab",
        "code_bearing": True,
        "imports": ("sklearn.svm.SVC", "os.system", "numpy.dtype"),
    }
    return Artifact(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("artifact", "listed", "typed", "allowed"),
    [
        (_pickle(), (), True, False),  # a typed path is not enough for a pickle
        (_pickle(), ("sha256:ab",), False, True),
        (_pickle(), ("sha256:cd",), False, False),
        (_pickle(), ("/models/m.pkl",), False, True),
        (_pickle(), ("/models",), False, True),
        (_pickle(), ("/models/other.pkl", "/model"), False, False),
        (_pickle(digest="sha256:/models"), ("sha256:/model",), False, False),
        (_pickle(code_bearing=False), (), False, True),
        (_pickle(format=Format.PYTHON, path="/m.py"), (), True, True),
        (_pickle(format=Format.PYTHON, path="/m.py"), (), False, False),
        (_pickle(format=Format.MLFLOW, flavor="sklearn"), (), True, False),
        (_pickle(format=Format.SKOPS), (), True, False),
    ],
)
def test_the_rule(artifact: Artifact, listed: tuple[str, ...], typed: bool, allowed: bool) -> None:
    if allowed:
        trust.check(artifact, listed, typed)
    else:
        with pytest.raises(errors.UntrustedArtifact):
            trust.check(artifact, listed, typed)
    assert trust.is_trusted(artifact, listed, typed) is (allowed and (artifact.code_bearing or bool(listed)))


def test_the_message_shows_digest_imports_and_the_command() -> None:
    with pytest.raises(errors.UntrustedArtifact) as caught:
        trust.check(_pickle(path="/my models/m.pkl"), (), True)
    message = caught.value.message
    assert "digest: sha256:ab" in message
    assert "headrace serve '/my models/m.pkl' --trust sha256:ab" in message
    assert message.index("os.system") < message.index("numpy.dtype") < message.index("sklearn.svm.SVC")


def test_the_command_names_the_class_of_a_python_file() -> None:
    artifact = _pickle(format=Format.PYTHON, path="/m.py", attribute="Pricer")
    assert trust.command(artifact) == "headrace serve /m.py:Pricer --trust sha256:ab"


def test_long_lists_are_shortened_with_the_unusual_first() -> None:
    shown = trust.shortened([f"sklearn.m{index}" for index in range(50)] + ["subprocess.Popen"])
    assert shown.startswith("subprocess.Popen, ")
    assert shown.endswith("and 43 more")


def test_links_do_not_widen_a_trusted_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trusted, other = tmp_path / "trusted", tmp_path / "other"
    trusted.mkdir()
    other.mkdir()
    secret = models.build("sklearn-pickle", other)
    (trusted / "m.pkl").symlink_to(secret)
    assert not trust.is_trusted(inspect(trusted / "m.pkl"), [str(trusted)], False)
    monkeypatch.chdir(tmp_path)
    assert trust.is_trusted(inspect(secret), ["other"], False)


@pytest.mark.parametrize("kind", ["sklearn-pickle", "sklearn-joblib", "sklearn-joblib-compressed", "mlflow-sklearn"])
def test_runtimes_refuse_on_their_own_what_nobody_trusted(kind: str) -> None:
    artifact = inspect(models.build(kind))
    assert artifact.code_bearing
    for options in ({}, {"trusted": "no"}):
        with pytest.raises(errors.UntrustedArtifact, match=f"--trust {artifact.digest}"):
            table.load(artifact, LoadOptions(options=options))


def test_a_pickle_that_changed_after_inspection_is_not_loaded(tmp_path: Path) -> None:
    path = models.build("sklearn-pickle", tmp_path)
    artifact = inspect(path)
    path.write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    with pytest.raises(errors.UntrustedArtifact, match="changed after it was inspected"):
        table.load(artifact, LoadOptions(options={trust.OPTION: "yes"}))
    assert not (tmp_path / "owned").exists()
