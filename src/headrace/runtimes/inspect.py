"""What a model on disk is: format, digest, and the code it would run. Nothing is loaded, no framework imported.

Formats are told apart by content. Every step is bounded, because the file may be hostile: a damaged or
malicious one ends in InvalidInput or Unsupported. Runs in a short-lived process of its own:
``python -m headrace.runtimes.inspect PATH...`` prints one JSON object per path, ``{"ok": Artifact}`` or
``{"error": {"code", "message"}}``.
"""

from __future__ import annotations

import mmap
import os
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from headrace.core import errors
from headrace.core.models import Artifact, Format
from headrace.runtimes import (
    compressed,
    digest,
    mlmodel,
    mlmodel_signature,
    onnx_file,
    pickle_scan,
    python_file,
    skops_file,
    sniff,
    torchserve_archive,
    zip_file,
)

_HEAD = 4096
_ECHO = b"headrace-echo 1"

INCOMPLETE = "… (too large to list everything)"
"""Last entry of ``imports`` when the scan stopped at a bound."""


def inspect(path: str | Path, attribute: str | None = None) -> Artifact:
    """Describe the file or folder at ``path``; ``attribute`` names a class in a Python file.

    Raises InvalidInput for what is damaged or missing, Unsupported for formats that are not served. Messages
    begin with the path."""
    target = Path(path).absolute()
    try:
        artifact = _inspect(target, attribute)
    except errors.CallerError as error:
        if error.message.startswith(str(target)):
            raise
        raise type(error)(f"{target}: {error.message}") from error
    if attribute is not None and artifact.format is not Format.PYTHON:
        raise errors.InvalidInput(f"{target} is no Python file, so it has no attribute {attribute!r}")
    return artifact


def _inspect(path: Path, attribute: str | None) -> Artifact:
    if path.is_dir():
        return _folder(path)
    status = digest.require_file(path)
    if status.st_size == 0:
        raise errors.InvalidInput("the file is empty")
    if path.suffix == ".py":
        return _python(path, attribute)
    with _mapped(path) as buffer:
        head = bytes(buffer[:_HEAD])
        sniff.refuse_foreign(head)
        if head.startswith(b"PK\x03\x04"):
            return _zip(path)
        if head.startswith(_ECHO):
            return _artifact(path, Format.ECHO, "echo")
        if head.startswith(b"tree\n") and b"\nversion=v" in head[:256]:
            return _lightgbm(path, buffer)
        if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
            return _xgboost(path, buffer, head)
        if compressed.kind(head) is not None or _is_pickle(head):
            return _pickle(path, head)
        if onnx_file.is_onnx(buffer):
            return _onnx(path, buffer)
    return _old_pickle(path, head)


@contextmanager
def _mapped(path: Path) -> Iterator[memoryview]:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            view = memoryview(mapped)
            try:
                yield view
            finally:
                view.release()
    except OSError as error:
        raise errors.InvalidInput(f"the file cannot be read: {error.strerror}") from error


def _artifact(path: Path, kind: Format, runtime: str, **more: Any) -> Artifact:
    if "digest" not in more:
        more["digest"] = digest.of_file(path)
    return Artifact(path=str(path), format=kind, runtime=runtime, **more)


# --- formats without code -----------------------------------------------------------------------------------------


def _onnx(path: Path, buffer: memoryview) -> Artifact:
    weights = [path.parent / name for name in onnx_file.external_files(buffer)]
    for file in weights:
        if not file.is_file():
            raise errors.InvalidInput(f"its weights are in {file.name!r}, which is missing from {file.parent}")
        # Model caches link both files into a folder of blobs: then beside the real model is a good place too.
        if not any(file.resolve().is_relative_to(home) for home in (path.parent.resolve(), path.resolve().parent)):
            raise errors.InvalidInput(f"its weights file {file.name!r} is a link out of its folder")
    if weights:
        return _artifact(path, Format.ONNX, "onnx", digest=digest.of_files(path.parent, [path, *weights]))
    return _artifact(path, Format.ONNX, "onnx")


def _lightgbm(path: Path, buffer: memoryview) -> Artifact:
    tail = bytes(buffer[-(4 << 20) :])
    ends = {b"\nend of trees": "trees"} | ({b"\nend of parameters": "parameters"} if b"\nparameters:" in tail else {})
    for end, what in ends.items():
        if end not in tail:
            raise errors.InvalidInput(f"this LightGBM model is cut off: its {what} do not end")
    categories = tail.rpartition(b"\npandas_categorical:")[2] if b"\npandas_categorical:" in tail else b"null"
    try:
        msgspec.json.decode(categories)
    except (msgspec.DecodeError, RecursionError) as error:
        raise errors.InvalidInput(f"the categories at the end of this LightGBM model are damaged: {error}") from error
    return _artifact(path, Format.LIGHTGBM, "lightgbm")


class _Learner(msgspec.Struct):
    learner_model_param: dict[str, str]


class _XGBoostModel(msgspec.Struct):
    """The parts of XGBoost's JSON model that no other JSON has; the decoder skips the rest."""

    learner: _Learner
    version: list[int]


def _xgboost(path: Path, buffer: memoryview, head: bytes) -> Artifact:
    if head[:1] == b"{" and head[1:2] in b"iUIlL" and len(head) > 1:
        if b"learner" not in head[:32] and b"version" not in head[:32]:
            raise errors.Unsupported("this is a UBJSON file, but no XGBoost model")
        if bytes(buffer[-1:]) != b"}":
            raise errors.InvalidInput("this XGBoost model is cut off: its UBJSON does not end")
        return _artifact(path, Format.XGBOOST_UBJ, "xgboost")
    start = 3 if head.startswith(b"\xef\xbb\xbf") else 0
    try:
        msgspec.json.decode(buffer[start:], type=_XGBoostModel)
    except msgspec.ValidationError as error:
        if b'"nodeid"' in head:
            raise errors.Unsupported(
                "this is a dump of an XGBoost model for reading; save the model itself with save_model('model.ubj')"
            ) from error
        if b'"mlflow_version"' in head or b'"flavors"' in head:
            raise errors.Unsupported("this belongs to an MLflow folder; serve the folder") from error
        if head.lstrip()[:1] == b"[":
            raise sniff.unknown(head) from error
        raise errors.Unsupported("this is a JSON file, but no XGBoost model") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise errors.InvalidInput(f"this JSON file is damaged or cut off: {error}") from error
    return _artifact(path, Format.XGBOOST_JSON, "xgboost")


# --- formats that may carry code ----------------------------------------------------------------------------------


def _zip(path: Path) -> Artifact:
    with zip_file.opened(path) as archive:
        if torchserve_archive.MANIFEST in archive.namelist():
            return _torchserve(path, archive)
        untrusted = skops_file.untrusted_types(archive)
    return _artifact(path, Format.SKOPS, "sklearn", code_bearing=bool(untrusted), imports=untrusted)


def _torchserve(path: Path, archive: zipfile.ZipFile) -> Artifact:
    described = torchserve_archive.read(archive)
    imports = torchserve_archive.imports_of(archive, described)
    return _artifact(
        path,
        Format.TORCHSERVE,
        "torchserve",
        code_bearing=True,
        imports=imports,
        details=described.details(),
    )


def _is_pickle(head: bytes) -> bool:
    return len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5


def _pickle(path: Path, head: bytes) -> Artifact:
    compression = compressed.kind(head)
    with path.open("rb") as file:
        stream = compressed.Inflating.buffered(file, compression) if compression else file
        if compression:
            try:
                inner = stream.peek(64)[:64]
            except compressed.Damaged as error:
                if head[:64].isascii() and compression == "zlib":  # a text that begins with "x^"
                    raise sniff.unknown(head) from error
                raise errors.InvalidInput(f"this {compression} file is damaged: {error}") from error
            if not _is_pickle(inner):
                raise errors.Unsupported(f"this is a {compression}-compressed file, but no joblib pickle in it")
        try:
            found = pickle_scan.scan(stream)
            if compression and found.complete:
                _drain(stream)
        except compressed.Damaged as error:
            raise errors.InvalidInput(f"this {compression}-compressed pickle is damaged: {error}") from error
    return _pickled(path, found, compression is not None)


def _drain(stream: BinaryIO) -> None:
    """Read to the end, where the checksum of the compressed data is; a bomb is left alone."""
    try:
        while stream.read(1 << 16):
            pass
    except pickle_scan.LimitReached:
        return


def _old_pickle(path: Path, head: bytes) -> Artifact:
    """A pickle of protocol 0 or 1 has no signature: it is one when it can be followed to its end."""
    with path.open("rb") as file:
        try:
            found = pickle_scan.scan(file)
        except errors.InvalidInput:
            raise sniff.unknown(head) from None
    if not found.imports:
        # Short texts such as "N." are pickles too; a model always imports its class.
        raise sniff.unknown(head)
    return _pickled(path, found, False)


def _pickled(path: Path, found: pickle_scan.Found, inflated: bool) -> Artifact:
    roots = {name.partition(".")[0] for name in found.imports}
    if "torch" in roots and not roots & {"sklearn", "headrace"}:
        raise sniff.unsupported("a pickled PyTorch model; export it with torch.onnx.export")
    if not found.imports and found.complete:
        raise errors.Unsupported("this pickle holds plain data (numbers, texts, lists), not a model")
    kind = Format.JOBLIB if found.joblib or inflated else Format.PICKLE
    imports = tuple(sorted(found.imports)) + (() if found.complete else (INCOMPLETE,))
    return _artifact(path, kind, "pickle", code_bearing=True, imports=imports)


def _python(path: Path, attribute: str | None) -> Artifact:
    source = python_file.read(path, attribute)
    return _artifact(
        path, Format.PYTHON, "python", code_bearing=True, imports=source.imports, attribute=source.attribute
    )


def _folder(path: Path) -> Artifact:
    names = frozenset(entry.name for entry in os.scandir(path))
    if mlmodel.FILE in names:
        return _mlflow(path)
    what = sniff.folder_content(names)
    if what is not None:
        raise sniff.unsupported(what)
    raise errors.InvalidInput("this folder is no model: it has no MLmodel file; name the model file in it")


def _mlflow(folder: Path) -> Artifact:
    model = mlmodel.read(folder)
    common: dict[str, Any] = {"digest": digest.of_folder(folder), "flavor": model.flavor}
    details = mlmodel.details(model)
    if model.path is None:
        more = common | {"imports": ("mlflow.pyfunc",), "details": details}
        return _artifact(folder, Format.MLFLOW, "mlflow", code_bearing=True, **more)
    inner = inspect(model.path)
    compared = mlmodel_signature.compare(model.document.get("signature"), inner)
    return _artifact(
        folder,
        Format.MLFLOW,
        "mlflow",
        code_bearing=inner.code_bearing,
        imports=inner.imports,
        details=details | {"signature": compared.verdict},
        warnings=compared.differences,
        **common,
    )


# --- the command --------------------------------------------------------------------------------------------------


def split_attribute(text: str) -> tuple[str, str | None]:
    """``pricer.py:Pricer`` as path and attribute."""
    path, separator, attribute = text.rpartition(":")
    if separator and path.endswith(".py") and attribute.isidentifier():
        return path, attribute
    return text, None


def report(text: str) -> bytes:
    """One line of the command's output."""
    path, attribute = split_attribute(text)
    try:
        return msgspec.json.encode({"ok": inspect(path, attribute)})
    except errors.HeadraceError as error:
        return msgspec.json.encode({"error": {"code": error.code, "message": error.message}})
    except Exception as error:  # the process boundary: the caller must get an answer for every path
        message = f"{text}: inspection failed: {type(error).__name__}: {error}"
        return msgspec.json.encode({"error": {"code": errors.Bug.code, "message": message}})


def main(arguments: list[str]) -> None:
    for text in arguments:
        sys.stdout.buffer.write(report(text) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
