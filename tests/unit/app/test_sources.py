"""From what was typed to deployments: candidates, inspection in a process of its own, trust; one bad stops no other."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.app import inspection, sources
from headrace.app.settings.serve_settings import DeploymentSettings, ModelSource, ServeSettings
from headrace.app.sources import Candidate, Failure
from headrace.core.endpoints import DeploymentSpec
from headrace.core.models import Format
from headrace.runtimes import trust

PRICER = "import headrace\n\nclass Pricer(headrace.Model):\n    def predict(self, x):\n        return {'y': x}\n"


def discover(*models: ModelSource) -> tuple[list[Candidate], list[Failure]]:
    return sources.discover(ServeSettings(models=models))


def echo(path: Path, text: str = "headrace-echo 1\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def inspect(candidates: list[Candidate], *trusted: str) -> list[DeploymentSpec | Failure]:
    return asyncio.run(sources.inspect(candidates, trusted))


def test_file_name_becomes_the_endpoint_and_a_given_name_wins(tmp_path: Path) -> None:
    path = echo(tmp_path / "my model.onnx")
    ((found,), failures) = discover(ModelSource(str(path)))
    assert (found.endpoint, found.version, found.served, found.typed, failures) == ("my-model", "1", True, True, [])
    ((named,), _) = discover(ModelSource(str(path), name="team/fraud"))
    assert named.endpoint == "team/fraud"


def test_repository_gives_every_version_and_serves_the_highest(tmp_path: Path) -> None:
    for version in ("1", "2", "10"):
        echo(tmp_path / "m" / version / "model.onnx")
    found, _ = discover(ModelSource(str(tmp_path)))
    assert {(c.version, c.served) for c in found} == {("1", False), ("2", False), ("10", True)}
    assert not any(c.typed for c in found)


def test_what_cannot_be_used_does_not_stop_the_rest(tmp_path: Path) -> None:
    good = echo(tmp_path / "good.onnx")
    twin = echo(tmp_path / "elsewhere" / "good.onnx")
    for name in ("a", "b"):
        echo(tmp_path / "repo" / name / "1" / "model.onnx")
    found, failures = discover(
        ModelSource(str(good)),
        ModelSource(str(twin)),
        ModelSource(str(tmp_path / "missing.onnx")),
        ModelSource(str(tmp_path / "repo"), name="one"),
        ModelSource(str(good), name="bad name!"),
    )
    assert [c.endpoint for c in found] == ["good"]
    reasons = " | ".join(f.reason for f in failures)
    assert len(failures) == 4
    for words in ("name this one, e.g. good-2=", "missing.onnx", "holds 2 models", "is not valid"):
        assert words in reasons


def test_settings_of_a_source_come_before_the_global_ones(tmp_path: Path) -> None:
    path = echo(tmp_path / "m.echo")
    own = DeploymentSettings(replicas=3, timeout_s=1.5, options={"delay_ms": "1"}, warmup=False)
    found, _ = discover(ModelSource(str(path), settings=own))
    (spec,) = inspect(found)
    assert isinstance(spec, DeploymentSpec)
    assert (spec.id, spec.replicas, spec.timeout_s, spec.warmup) == ("m.echo@1", 3, 1.5, False)
    assert spec.platform_options == {"delay_ms": "1"}
    assert spec.artifact.format is Format.ECHO
    assert spec.artifact.digest.startswith("sha256:")


def test_each_is_judged_by_itself_in_order(tmp_path: Path) -> None:
    (tmp_path / "p.pkl").write_bytes(b"\x80\x04\x8c\x05posix\x8c\x06system\x93.")
    (tmp_path / "junk.onnx").write_bytes(b"\xff" * 100)
    (tmp_path / "pricer.py").write_text(PRICER)
    echo(tmp_path / "m.echo")
    names = ("p.pkl", "junk.onnx", "m.echo", "pricer.py")
    found, _ = discover(*(ModelSource(str(tmp_path / n)) for n in names))
    results = inspect(found)
    assert [type(r) for r in results] == [Failure, Failure, DeploymentSpec, DeploymentSpec]
    assert isinstance(results[0], Failure)
    assert "--trust sha256:" in results[0].reason
    assert isinstance(results[3], DeploymentSpec)
    assert results[3].platform_options[trust.OPTION] == "yes", "a Python file that was typed is trusted"


def test_python_file_in_a_repository_is_not_trusted_unless_said(tmp_path: Path) -> None:
    path = tmp_path / "repo" / "pricer" / "1" / "model.py"
    path.parent.mkdir(parents=True)
    path.write_text(PRICER)
    found, _ = discover(ModelSource(str(tmp_path / "repo")))
    (refused,) = inspect(found)
    assert isinstance(refused, Failure)
    (trusted,) = inspect(found, str(tmp_path / "repo"))
    assert isinstance(trusted, DeploymentSpec)


def played(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    """Play the inspector: ``script`` runs with the paths in ``sys.argv[1:]``."""
    program = tmp_path / "inspector.py"
    program.write_text("import json, os, sys, time\n" + script)
    real = asyncio.create_subprocess_exec

    async def start(executable: str, *arguments: str, **options: object) -> asyncio.subprocess.Process:
        assert arguments[:2] == ("-m", "headrace.runtimes.inspect")
        return await real(sys.executable, str(program), *arguments[2:], **options)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)


ANSWER = """
def answer(path):
    artifact = {"path": path, "format": "echo", "runtime": "echo", "digest": "sha256:x"}
    print(json.dumps({"ok": artifact}), flush=True)
"""


def three(tmp_path: Path) -> list[Candidate]:
    found, _ = discover(*(ModelSource(str(echo(tmp_path / f"{n}.echo"))) for n in ("a", "bad", "c")))
    return found


@pytest.mark.parametrize(
    "misbehave",
    ["os._exit(7)", "os.kill(os.getpid(), 11)", "raise SystemExit('no')"],
)
def test_artifact_that_kills_the_inspector_fails_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, misbehave: str
) -> None:
    played(
        monkeypatch,
        tmp_path,
        f"{ANSWER}\nfor path in sys.argv[1:]:\n    if 'bad' in path: {misbehave}\n    answer(path)\n",
    )
    results = inspect(three(tmp_path))
    assert [type(r) for r in results] == [DeploymentSpec, Failure, DeploymentSpec]
    assert isinstance(results[1], Failure)
    assert "inspection ended with code" in results[1].reason


def test_artifact_that_hangs_the_inspector_fails_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(inspection, "_INSPECT_TIMEOUT_S", 0.5)
    played(
        monkeypatch,
        tmp_path,
        f"{ANSWER}\nfor path in sys.argv[1:]:\n    if 'bad' in path: time.sleep(60)\n    answer(path)\n",
    )
    results = inspect(three(tmp_path))
    assert [type(r) for r in results] == [DeploymentSpec, Failure, DeploymentSpec]
    assert isinstance(results[1], Failure)
    assert "longer than 0.5 s" in results[1].reason


@pytest.mark.parametrize("noise", ["hello", "{}", '{"error": 3}', "[1]"])
def test_noise_in_the_inspectors_output_is_no_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, noise: str
) -> None:
    played(
        monkeypatch,
        tmp_path,
        f"{ANSWER}\nfor path in sys.argv[1:]:\n    if 'bad' in path: print({noise!r})\n    else: answer(path)\n",
    )
    results = inspect(three(tmp_path))
    assert [type(r) for r in results] == [DeploymentSpec, Failure, DeploymentSpec]


def test_nothing_to_inspect_starts_nothing() -> None:
    assert discover() == ([], [])


def deployment(path: Path, name: str, **fields: str) -> ModelSource:
    return ModelSource(str(path), name="fraud", deployment=name, **fields)


def test_deployments_of_one_endpoint_have_names_and_versions_of_their_own(tmp_path: Path) -> None:
    one, two = echo(tmp_path / "a.onnx"), echo(tmp_path / "b.onnx")
    found, failures = discover(deployment(one, "champion"), deployment(two, "challenger", default_version="2"))
    assert [(c.endpoint, c.deployment, c.version, c.served) for c in found] == [
        ("fraud", "champion", "1", True),
        ("fraud", "challenger", "2", True),
    ]
    assert failures == []
    ((named,), _) = discover(deployment(one, "champion", version="v7", default_version="3"))
    assert named.version == "v7"


def test_a_deployment_takes_one_version_of_a_folder(tmp_path: Path) -> None:
    for version in ("3", "4"):
        echo(tmp_path / "repo" / "fraud" / version / "model.onnx")
    repo = tmp_path / "repo"
    ((latest,), _) = discover(deployment(repo, "champion"))
    ((chosen,), _) = discover(deployment(repo, "champion", version="3"))
    assert (latest.version, chosen.version, chosen.served) == ("4", "3", True)
    _, (failure,) = discover(deployment(repo, "champion", version="9"))
    assert "serves one version" in failure.reason
    assert "choose with version: N" in failure.reason


def test_two_deployments_of_one_version_are_told_apart_in_the_failure(tmp_path: Path) -> None:
    echo(tmp_path / "repo" / "fraud" / "1" / "model.onnx")
    found, (failure,) = discover(
        deployment(echo(tmp_path / "a.onnx"), "champion"), deployment(tmp_path / "repo", "challenger")
    )
    assert [c.deployment for c in found] == ["champion"]
    assert failure.endpoint == "fraud-challenger"
    assert "give deployment 'challenger' another one (version: N)" in failure.reason
    _, missing = discover(
        deployment(tmp_path / "no.onnx", "champion"), deployment(tmp_path / "none.onnx", "b", default_version="2")
    )
    assert [f.version for f in missing] == ["1", "2"], "one failure does not hide the other"


def required(path: Path, text: str = "numpy==1.26.4\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def judged(*models: ModelSource, trusted: tuple[str, ...] = (), **settings: Any) -> list[DeploymentSpec | Failure]:
    found, failures = sources.discover(ServeSettings(models=models, **settings))
    assert failures == []
    return inspect(found, *trusted)


def test_packages_of_a_version_folder_need_trust_and_give_an_environment(tmp_path: Path) -> None:
    echo(tmp_path / "m" / "1" / "model.onnx")
    packages = required(tmp_path / "m" / "1" / "requirements.txt")
    source = ModelSource(str(tmp_path / "m"))
    (refused,) = judged(source)
    assert isinstance(refused, Failure)
    assert refused.reason.startswith(f"{packages} asks for packages, whose code would run beside the model")
    assert "it would install: numpy==1.26.4" in refused.reason
    digest = refused.reason.rpartition("--trust ")[2]
    for trusted in (digest, str(packages), str(tmp_path)):
        (spec,) = judged(source, trusted=(trusted,))
        assert isinstance(spec, DeploymentSpec)
        assert spec.environment is not None
        assert spec.environment.requirements == ("numpy==1.26.4",)
        assert spec.vouched == digest
        assert spec.environment.needs == ("msgspec>=0.19", "numpy>=1.24")
        assert not spec.environment.source_builds
    (other,) = judged(source, trusted=(spec.artifact.digest,))
    assert isinstance(other, Failure), "the model alone was trusted, not what would run beside it"
    required(packages, "numpy==1.26.3\n")
    (changed,) = judged(source, trusted=(digest,))
    assert isinstance(changed, Failure)


def test_who_trusts_both_trusts_the_code_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "pricer.py").write_text(PRICER)
    required(tmp_path / "m" / "1" / "requirements.txt")
    source = ModelSource(str(tmp_path / "m"))
    (refused,) = judged(source)
    assert isinstance(refused, Failure)
    (spec,) = judged(source, trusted=(refused.reason.rpartition("--trust ")[2],))
    assert isinstance(spec, DeploymentSpec)
    assert spec.platform_options[trust.OPTION] == "yes"


def test_a_file_that_the_user_names_is_trusted_by_that(tmp_path: Path) -> None:
    model = echo(tmp_path / "a.onnx")
    required(tmp_path / "requirements.txt", "-r what-a-project-has.txt\n")
    (plain,) = judged(ModelSource(str(model)))
    assert isinstance(plain, DeploymentSpec)
    assert plain.environment is None, "what lies beside a file that was named is not its own"
    named = DeploymentSettings(requirements=str(required(tmp_path / "mine.txt", "six\nnumpy\n")))
    (spec,) = judged(ModelSource(str(model)), deployment=named, source_builds=True)
    assert isinstance(spec, DeploymentSpec)
    assert spec.environment is not None
    assert (spec.environment.requirements, spec.environment.source_builds) == (("numpy", "six"), True)


def test_requirements_that_cannot_be_read_fail_with_their_line(tmp_path: Path) -> None:
    model = echo(tmp_path / "a.onnx")
    bad = DeploymentSettings(requirements=str(required(tmp_path / "bad.txt", "six\n-e .\n")))
    (wrong,) = judged(ModelSource(str(model)), deployment=bad)
    assert isinstance(wrong, Failure)
    assert wrong.reason.startswith(f"{tmp_path / 'bad.txt'}, line 2: '-e .' refers to another file")
    (missing,) = judged(ModelSource(str(model)), deployment=DeploymentSettings(requirements="/nowhere/r.txt"))
    assert isinstance(missing, Failure)
    assert missing.reason == "/nowhere/r.txt cannot be read: No such file or directory"


def test_a_registered_version_keeps_its_own_packages(tmp_path: Path) -> None:
    own = required(tmp_path / "versions" / "requirements.txt", "six==1.17.0\n")
    model = echo(tmp_path / "versions" / "model" / "m.onnx")
    source = ModelSource(str(model), registered="m@7", requirements=str(own))
    others = DeploymentSettings(requirements=str(required(tmp_path / "others.txt")))
    (refused,) = judged(source, deployment=others)
    assert isinstance(refused, Failure)
    assert refused.reason.endswith("headrace models trust m@7")
    digest = next(part for part in refused.reason.split() if part.startswith("sha256:"))
    (spec,) = judged(source, deployment=others, trusted=(digest,))
    assert isinstance(spec, DeploymentSpec)
    assert spec.environment is not None
    assert spec.environment.requirements == ("six==1.17.0",)
