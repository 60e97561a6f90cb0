"""Inspection: formats by content, digests, hostile files, and a command that answers for every path."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
import pickle
import shutil
import socket
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.core import errors
from headrace.core.models import Artifact, Format
from headrace.runtimes import compressed, digest
from headrace.runtimes import inspect as inspection
from headrace.runtimes.inspect import inspect
from tests import models

FORMATS = {
    "onnx": Format.ONNX,
    "sklearn-skops": Format.SKOPS,
    "sklearn-joblib": Format.JOBLIB,
    "sklearn-joblib-compressed": Format.JOBLIB,
    "sklearn-pickle": Format.PICKLE,
    "xgboost-json": Format.XGBOOST_JSON,
    "xgboost-ubj": Format.XGBOOST_UBJ,
    "xgboost-categorical": Format.XGBOOST_UBJ,
    "lightgbm": Format.LIGHTGBM,
    "echo": Format.ECHO,
}


@pytest.mark.parametrize("kind", FORMATS)
def test_formats_are_told_by_content_whatever_the_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thing.bin"
    shutil.copy(models.build(kind), path)
    artifact = inspect(path)
    assert artifact.format is FORMATS[kind]
    assert artifact.path == str(path)
    assert artifact.digest == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert artifact.code_bearing is (artifact.format in (Format.PICKLE, Format.JOBLIB))


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "m"
    path.write_bytes(pickle.dumps(models.mixed_pipeline(), protocol))
    artifact = inspect(path)
    assert (artifact.format, artifact.code_bearing) == (Format.PICKLE, True)
    assert "sklearn.pipeline.Pipeline" in artifact.imports


@pytest.mark.parametrize("compress", ["zlib", "gzip", "bz2", "xz", "lzma"])
def test_every_compression_of_joblib(tmp_path: Path, compress: str) -> None:
    path = tmp_path / "m"
    joblib.dump(models.mixed_pipeline(), path, compress=(compress, 3))
    artifact = inspect(path)
    assert artifact.format is Format.JOBLIB
    assert "sklearn.pipeline.Pipeline" in artifact.imports
    assert inspection.INCOMPLETE not in artifact.imports


def test_a_pretty_printed_json_model(tmp_path: Path) -> None:
    document = json.loads(models.build("xgboost-json").read_text())
    (tmp_path / "m").write_text("\ufeff\n" + json.dumps(document, indent=2), encoding="utf-8")
    assert inspect(tmp_path / "m").format is Format.XGBOOST_JSON


FOREIGN = {
    "keras.h5": (b"\x89HDF\r\n\x1a\n" + bytes(64), "Keras"),
    "llm.gguf": (b"GGUF\x03\0\0\0" + bytes(64), "GGUF"),
    "m.tflite": (b"\x1c\0\0\0TFL3" + bytes(64), "TensorFlow Lite"),
    "m.ort": (b"\x1c\0\0\0ORTM" + bytes(64), "ONNX Runtime .ort"),
    "m.cbm": (b"CBM1" + bytes(64), "CatBoost"),
    "m.safetensors": (b"\x40\0\0\0\0\0\0\0" + b'{"w":{}}' + bytes(64), "safetensors"),
    "legacy.pt": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + bytes(64), "PyTorch"),
    "m.pmml": (b'<?xml version="1.0"?>\n<PMML version="4.4">', "PMML"),
    "m.xml": (b'<?xml version="1.0"?>\n<net name="x" version="11">', "OpenVINO"),
    "old.model": (b"binf" + bytes(64), "old binary format"),
    "x.npy": (b"\x93NUMPY\x01\0" + bytes(64), "numpy array"),
    "m.lz4": (b"\x04\x22\x4d\x18" + bytes(64), "lz4"),
    "dump.json": (b'[{"nodeid": 0, "depth": 0}]', "dump of an XGBoost model"),
    "list.json": (b"[1, 2]", "no known model format"),
    "other.json": (b'{"a": 1}', "JSON file, but no XGBoost model"),
    "notes.txt": (b"x^2 is a parabola, and this is a text", "no known model format"),
    "noise": (bytes(range(128, 256)), "begins with 80 81"),
    "small": (b"N.", "no known model format"),
    "data.pkl": (pickle.dumps({"a": [1, 2, "x"]}), "plain data"),
    "web.html": (b"<!doctype html><html>", "web page"),
    "other.ubj": (b"{i\x01aU\x05}", "UBJSON"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_formats_are_named(tmp_path: Path, name: str) -> None:
    data, what = FOREIGN[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(errors.Unsupported, match=what) as caught:
        inspect(tmp_path / name)
    assert caught.value.message.startswith(str(tmp_path / name))


@pytest.mark.parametrize(
    ("members", "what"),
    [
        (["archive/data.pkl", "archive/version"], "PyTorch"),
        (["m/data.pkl", "m/constants.pkl", "m/code/x.py"], "TorchScript"),
        (["config.json", "metadata.json", "model.weights.h5"], "Keras"),
        (["a.npy", "b.npy"], "numpy archive"),
        (["MAR-INF/other.json", "handler.py"], "TorchServe archive .* without its MAR-INF/MANIFEST.json"),
        (["readme"], "zip archive"),
    ],
)
def test_other_archives_are_named(tmp_path: Path, members: list[str], what: str) -> None:
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        for member in members:
            archive.writestr(member, "x")
    with pytest.raises(errors.Unsupported, match=what):
        inspect(tmp_path / "m.zip")


@pytest.mark.parametrize(
    ("files", "what"),
    [
        (["saved_model.pb"], "TensorFlow SavedModel"),
        (["config.json", "model.safetensors"], "Hugging Face"),
        (["MAR-INF", "handler.py"], "unpacked TorchServe archive"),
    ],
)
def test_other_folders_are_named(tmp_path: Path, files: list[str], what: str) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(errors.Unsupported, match=what):
        inspect(tmp_path)


def test_a_pickled_torch_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(b"\x80\x02ctorch.nn.modules.linear\nLinear\n)R.")
    with pytest.raises(errors.Unsupported, match="PyTorch"):
        inspect(tmp_path / "m.pkl")


def test_git_lfs_pointers_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n")
    with pytest.raises(errors.InvalidInput, match="git lfs pull"):
        inspect(tmp_path / "m.onnx")


# --- Python -------------------------------------------------------------------------------------------------------


def test_python_files_are_read_not_run(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text(
        "import os, headrace.runtimes\nfrom collections import abc\nopen('ran', 'w')\n"
        "class Base(headrace.Model): pass\nclass Mine(Base): pass\n"
    )
    artifact = inspect(path)
    assert artifact.attribute == "Mine"
    assert artifact.imports == ("collections", "headrace.runtimes", "os")
    assert (artifact.format, artifact.code_bearing) == (Format.PYTHON, True)
    assert not Path("ran").exists()
    assert inspect(path, "Base").attribute == "Base"


@pytest.mark.parametrize(
    ("source", "attribute", "error", "message"),
    [
        ("def f(:\n", None, errors.InvalidInput, "line 1: "),
        ("x = 1", None, errors.InvalidInput, "no class that derives from headrace.Model"),
        ("class A(Model): pass\nclass B(Model): pass", None, errors.InvalidInput, "name one: m.py:A, m.py:B"),
        ("class A(Model): pass", "C", errors.InvalidInput, "there is no 'C' in it; it defines A"),
        ("class TritonPythonModel: pass", None, errors.Unsupported, "Triton's Python backend"),
        ("(" * 5000, None, errors.InvalidInput, "line 1|cannot be parsed"),
        ("-" * 200_000 + "1", None, errors.InvalidInput, "cannot be parsed|line"),
        ("class A(" + "x." * 50_000 + "Model): pass", None, errors.InvalidInput, "cannot be parsed|line|no class"),
        ("x = '\0'", None, errors.InvalidInput, "null"),
        ("#" * (3 << 20), None, errors.InvalidInput, "larger than 2 MiB"),
    ],
)
def test_python_files_that_cannot_be_served(
    tmp_path: Path, source: str, attribute: str | None, error: type[Exception], message: str
) -> None:
    (tmp_path / "m.py").write_text(source)
    with pytest.raises(error, match=message):
        inspect(tmp_path / "m.py", attribute)


def test_a_name_that_a_star_import_may_bring_is_left_to_the_load(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("from other import *\n")
    assert inspect(tmp_path / "m.py", "Mine").attribute == "Mine"


def test_only_python_files_have_attributes() -> None:
    with pytest.raises(errors.InvalidInput, match="no Python file, so it has no attribute 'X'"):
        inspect(models.build("onnx"), "X")


# --- hostile files ------------------------------------------------------------------------------------------------


def _quickly(path: Path, seconds: float = 4.0) -> Artifact | errors.HeadraceError:
    start = time.perf_counter()
    try:
        return inspect(path)
    except (errors.InvalidInput, errors.Unsupported) as error:
        return error
    finally:
        assert time.perf_counter() - start < seconds


def test_nothing_empty_missing_or_special(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "sock"))
    with listening:
        for name, message in (
            ("empty", "is empty"),
            ("gone", "does not exist"),
            ("pipe", "neither a regular file"),
            ("sock", "neither a regular file"),
            ("a\0b", "cannot be read"),
        ):
            with pytest.raises(errors.InvalidInput, match=message):
                inspect(tmp_path / name)
    with pytest.raises(errors.InvalidInput, match="neither a regular file"):
        inspect("/dev/zero")


@pytest.mark.parametrize("kind", ["onnx", "sklearn-skops", "sklearn-joblib-compressed", "xgboost-json", "lightgbm"])
@pytest.mark.parametrize("keep", [0.01, 0.3, 0.9, 0.999])
def test_cut_off_files_are_refused(tmp_path: Path, kind: str, keep: float) -> None:
    whole = models.build(kind).read_bytes()
    (tmp_path / "m").write_bytes(whole[: max(4, int(len(whole) * keep))])
    assert isinstance(_quickly(tmp_path / "m"), errors.CallerError)


@pytest.mark.parametrize(
    "kind", ["onnx", "sklearn-skops", "sklearn-joblib", "sklearn-joblib-compressed", "xgboost-json", "xgboost-ubj"]
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.lists(st.tuples(st.floats(0, 0.9999), st.integers(0, 255)), min_size=1, max_size=8))
def test_damaged_files_never_surprise(tmp_path: Path, kind: str, damage: list[tuple[float, int]]) -> None:
    data = bytearray(models.build(kind).read_bytes())
    for where, value in damage:
        data[int(where * len(data))] = value
    (tmp_path / "m").write_bytes(data)
    assert isinstance(_quickly(tmp_path / "m"), Artifact | errors.CallerError)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(min_size=1, max_size=300))
def test_any_file_is_an_artifact_or_refused(tmp_path: Path, data: bytes) -> None:
    starts = (b"", b"PK\x03\x04", b"\x80\x04", b"{", b"tree\nversion=v4\n", b"\x08\x08", b"\x1f\x8b\x08", b"x\x9c")
    for start in starts:
        (tmp_path / "m").write_bytes(start + data)
        assert isinstance(_quickly(tmp_path / "m"), Artifact | errors.CallerError)


@pytest.mark.parametrize(
    "compress",
    [zlib.compress, gzip.compress, bz2.compress, lzma.compress],
    ids=["zlib", "gzip", "bz2", "xz"],
)
def test_compressed_bombs_are_stopped(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    # a pickle of one enormous bytes object
    size = 3 * compressed.MAX_INFLATED
    data = b"\x80\x04\x8e" + size.to_bytes(8, "little") + bytes(size) + b"cos\nsystem\n."
    (tmp_path / "m").write_bytes(compress(data))
    artifact = _quickly(tmp_path / "m")
    assert isinstance(artifact, Artifact)
    assert artifact.code_bearing
    assert artifact.imports == (inspection.INCOMPLETE,)


def test_zip_bombs_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.skops", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", b" " * (64 << 20))
    assert "larger than 32 MiB" in str(_quickly(tmp_path / "m.skops"))


def test_zips_that_claim_too_much_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.skops"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("schema.json", b"{}")
        archive.writestr("a.npy", b"x")
    data = bytearray(path.read_bytes())
    entry = data.rfind(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = (3 << 30).to_bytes(4, "little")
    path.write_bytes(data)
    assert "claims to inflate" in str(_quickly(path))
    end = data.rfind(b"PK\x05\x06")
    data[end + 12 : end + 16] = (1 << 30).to_bytes(4, "little")
    path.write_bytes(data)
    assert "too many entries" in str(_quickly(path))


@pytest.mark.parametrize("schema", [b"{", b"[]", b'{"a": 1}', b"[" * 100_000, b'{"a":' * 100_000])
def test_schemas_that_are_none(tmp_path: Path, schema: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "m.skops", "w") as archive:
        archive.writestr("schema.json", schema)
    assert isinstance(_quickly(tmp_path / "m.skops"), errors.CallerError)


def test_deep_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_bytes(b'{"learner":' * 100_000)
    assert isinstance(_quickly(tmp_path / "m.json"), errors.InvalidInput)


def test_functions_in_skops_are_untrusted(tmp_path: Path) -> None:
    node = {
        "__class__": "function",
        "__module__": "os",
        "__loader__": "FunctionNode",
        "content": {"module_path": "os", "function": "system"},
    }
    with zipfile.ZipFile(tmp_path / "m.skops", "w") as archive:
        archive.writestr("schema.json", json.dumps({"__loader__": "ListNode", "content": [node]}))
    artifact = inspect(tmp_path / "m.skops")
    assert (artifact.code_bearing, artifact.imports) == (True, ("os.system",))


def test_many_opcodes_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(b"\x80\x04cos\nsystem\n" + b"N0" * 2_000_000 + b".")
    artifact = _quickly(tmp_path / "m.pkl")
    assert isinstance(artifact, Artifact)
    assert artifact.imports == ("os.system", inspection.INCOMPLETE)


# --- digests ------------------------------------------------------------------------------------------------------


def test_the_digest_of_a_folder_is_that_of_sha256sum(tmp_path: Path) -> None:
    folder = models.build("mlflow-xgboost", tmp_path)
    command = "find . -type f | sed 's|^\\./||' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum"
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=True)
    assert digest.of_folder(folder) == f"sha256:{done.stdout.split()[0]}"


def test_folders_with_too_much_in_them_are_no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = models.build("mlflow-xgboost", tmp_path)
    (folder / "more").symlink_to("/")
    with pytest.raises(errors.InvalidInput, match="is a link to a folder"):
        inspect(folder)
    (folder / "more").unlink()
    monkeypatch.setattr(digest, "MAX_FILES", 2)
    with pytest.raises(errors.InvalidInput, match="more than 2 files"):
        inspect(folder)


# --- the command --------------------------------------------------------------------------------------------------


def _command(*paths: str) -> list[dict[str, dict[str, str]]]:
    command = [sys.executable, "-m", "headrace.runtimes.inspect", *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_command_answers_for_every_path_in_order(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(b"\xff" * 100)
    paths = [models.build("onnx"), tmp_path / "noise", tmp_path / "gone", models.build("sklearn-joblib")]
    python = f"{models.build('python')}:Pricer"
    first, second, third, fourth, fifth = _command(*map(str, paths), python)
    assert first["ok"]["format"] == "onnx"
    assert second["error"]["code"] == "unsupported"
    assert third["error"] == {"code": "invalid_input", "message": f"{tmp_path / 'gone'} does not exist"}
    assert fourth["ok"]["runtime"] == "pickle"
    assert fifth["ok"]["attribute"] == "Pricer"


def test_the_command_survives_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: str, attribute: str | None) -> Artifact:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(inspection, "inspect", broken)
    answer = json.loads(inspection.report("x"))
    assert answer["error"] == {"code": "bug", "message": "x: inspection failed: ZeroDivisionError: oops"}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a/pricer.py:Pricer", ("a/pricer.py", "Pricer")),
        ("pricer.py", ("pricer.py", None)),
        ("odd:name.onnx", ("odd:name.onnx", None)),
        ("x.py:not a name", ("x.py:not a name", None)),
    ],
)
def test_split_attribute(text: str, parts: tuple[str, str | None]) -> None:
    assert inspection.split_attribute(text) == parts


def test_an_array_is_not_a_model(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(errors.Unsupported, match="numpy array"):
        inspect(tmp_path / "a.npy")
