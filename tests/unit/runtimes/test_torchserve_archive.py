"""TorchServe archives: read without running anything, and hostile ones refused by name."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.core import errors
from headrace.core.models import Format
from headrace.runtimes import torchserve_archive, zip_file
from headrace.runtimes.inspect import inspect
from tests import models, torchserve


def manifest(**model: Any) -> str:
    return json.dumps({"runtime": "python", "model": {"modelName": "m", "handler": "handler.py"} | model})


def write(path: Path, entries: dict[str, str | bytes], text: str | None = None) -> Path:
    """An archive as a stranger may write it: with a manifest, a handler and ``entries``."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(torchserve_archive.MANIFEST, manifest() if text is None else text)
        for name, content in ({"handler.py": "import os\n"} | entries).items():
            archive.writestr(name, content)
    return path


def test_an_archive_of_the_real_archiver_tells_what_it_is_and_runs_nothing(tmp_path: Path) -> None:
    path = torchserve.fraud(tmp_path, models.build("xgboost-ubj")).rename(tmp_path / "thing.bin")
    mark = tmp_path / "ran"
    done = subprocess.run(
        [sys.executable, "-m", "headrace.runtimes.inspect", path],
        env={**os.environ, "RAN_MARK": str(mark)},
        capture_output=True,
        check=True,
        timeout=60,
    )
    found = json.loads(done.stdout)["ok"]
    assert not mark.exists(), "the handler ran"
    assert (found["format"], found["code_bearing"]) == (Format.TORCHSERVE, True)
    assert set(found["imports"]) == {"json", "labels", "numpy", "os", "pathlib", "xgboost"}
    assert found["details"] == {
        "model_name": "fraud",
        "model_version": "2.1",
        "runtime": "python",
        "handler": "handler.py",
        "serialized_file": models.build("xgboost-ubj").name,
        "requirements_file": "requirements.txt",
        "config_file": "model-config.yaml",
        "extra_files": "labels.py",
        "archiver": "0.12.0",
    }


def test_a_handler_of_torchserve_itself_is_named(tmp_path: Path) -> None:
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"w")
    artifact = inspect(torchserve.archive(tmp_path, "image_classifier", serialized_file=weights))
    assert artifact.details["handler"] == "image_classifier (TorchServe's own)"
    assert artifact.imports == ("ts.torch_handler.image_classifier",)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{", errors.InvalidInput, "cannot be read"),
        ("[]", errors.InvalidInput, "cannot be read"),
        ("\xff", errors.InvalidInput, "cannot be read"),
        ("[" * 100_000, errors.InvalidInput, "cannot be read"),
        ('{"model": {"modelName": "m"}}', errors.InvalidInput, "handler"),
        (" " * (1 << 20) + "{}", errors.InvalidInput, "larger than 1 MiB"),
        (manifest(handler="other.py"), errors.InvalidInput, "other.py is missing"),
        (manifest(handler="../../etc/handler_x"), errors.InvalidInput, "handler_x.py is missing"),
        (manifest(handler="handler:a b"), errors.InvalidInput, "no Python name"),
        (manifest(serializedFile="gone.pt"), errors.InvalidInput, "serializedFile 'gone.pt', which is missing"),
        (manifest(serializedFile="/etc/passwd"), errors.InvalidInput, "which is missing"),
        (manifest(requirementsFile="../requirements.txt"), errors.InvalidInput, "which is missing"),
        ('{"runtime": "LSP", "model": {"modelName": "m", "handler": "h"}}', errors.Unsupported, "runtime 'LSP'"),
    ],
)
def test_wrong_manifests_say_what_is_wrong(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    path = write(tmp_path / "m.mar", {}, text)
    with pytest.raises(error, match=message):
        inspect(path)


@pytest.mark.parametrize(
    "name",
    ["../evil.py", "/etc/evil.py", "a/../../evil.py", "a\\..\\evil.py", "a//b", "./x", "a\nb", "n" * 300, "MAR-INF"],
)
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "m.mar", {name: "x"})
    with pytest.raises(
        errors.InvalidInput, match=r"not safe to write|more than 255 bytes|both as a file and as a folder"
    ):
        inspect(path)
    assert not (tmp_path.parent / "evil.py").exists()


def test_links_doubles_and_encrypted_entries_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.py")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = write(tmp_path / "m.mar", {})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(errors.InvalidInput, match="a link or a device"):
        inspect(path)
    path = write(tmp_path / "twice.mar", {})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("handler.py", "import evil")
    with pytest.raises(errors.InvalidInput, match=r"'handler.py' twice"):
        inspect(path)
    path = write(tmp_path / "locked.mar", {"x": "x"})
    raw = bytearray(path.read_bytes())
    raw[raw.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(errors.InvalidInput, match="encrypted"):
        inspect(path)


def test_bombs_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.mar", {"weights": "x" * 2000})
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"PK\x01\x02")
    raw[at + 24 : at + 28] = (0xFFFFFFF0).to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(errors.InvalidInput, match="claims to inflate"):
        inspect(path)
    path = tmp_path / "many.mar"
    write(path, {f"f{index}": "" for index in range(20_001)})
    with pytest.raises(errors.InvalidInput, match="20,000 are allowed"):
        inspect(path)


def test_a_handler_that_is_no_python_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.mar", {"handler.py": "def x(:\n"})
    with pytest.raises(errors.InvalidInput, match=r"handler.py line 1"):
        inspect(path)


def test_what_was_accepted_is_written_and_damage_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "m.mar", {"pkg/__init__.py": "", "pkg/data.bin": b"\x00" * 5000})
    (tmp_path / "out").mkdir()
    with zip_file.opened(path) as archive:
        torchserve_archive.unpack(archive, tmp_path / "out")
    assert (tmp_path / "out" / "pkg" / "data.bin").read_bytes() == b"\x00" * 5000
    raw = path.read_bytes().replace(b"\x00" * 4000, b"\x01" * 4000)
    path.write_bytes(raw)
    (tmp_path / "again").mkdir()
    with pytest.raises(errors.InvalidInput, match="damaged"), zip_file.opened(path) as archive:
        torchserve_archive.unpack(archive, tmp_path / "again")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 2000), bits=st.integers(1, 255))
def test_any_flipped_byte_ends_in_an_artifact_or_a_typed_error(tmp_path: Path, at: int, bits: int) -> None:
    path = write(tmp_path / "m.mar", {"labels.py": "NAMES = ()\n"}, manifest(modelVersion=1.5, modelFile="labels.py"))
    raw = bytearray(path.read_bytes())
    raw[at % len(raw)] ^= bits
    path.write_bytes(raw)
    code_bearing = True
    with contextlib.suppress(errors.CallerError):
        code_bearing = inspect(path).code_bearing
    assert code_bearing
