"""What a model on disk is: format, digest, and the code it would run. Nothing is loaded, no framework imported.

Formats are told apart by content. Every step is bounded, because the file may be hostile: a damaged or
malicious one ends in InvalidInput or Unsupported. Runs in a short-lived process of its own:
``python -m headrace.runtimes.inspect PATH...`` prints one JSON object per path, ``{"ok": Artifact}`` or
``{"error": {"code", "message"}}``.
"""

from __future__ import annotations

import ast
import mmap
import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from headrace.core import errors
from headrace.core.models import Artifact, Format
from headrace.runtimes import compressed, digest, mlmodel, onnx_file, pickle_scan, sniff

_HEAD = 4096
_MAX_SOURCE = 2 << 20
_MAX_SCHEMA = 32 << 20
_MAX_ZIP_DIRECTORY = 16 << 20
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
            return _zip(path, buffer)
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
        if not file.resolve().is_relative_to(path.parent.resolve()):
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


_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError, OSError, EOFError, ValueError),
)
"""What zipfile raises for damaged, encrypted and hostile archives; RuntimeError is its word for encrypted."""


def _zip(path: Path, buffer: memoryview) -> Artifact:
    _bound_directory(buffer)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            names = frozenset(entry.filename for entry in entries)
            if "schema.json" not in names:
                raise sniff.unsupported(sniff.zip_content(names))
            size = sum(entry.file_size for entry in entries)
            if size > 1 << 30 and size > 200 * len(buffer):
                raise errors.InvalidInput(f"this archive claims to inflate {len(buffer):,} bytes to {size:,}")
            with archive.open("schema.json") as file:
                schema = file.read(_MAX_SCHEMA + 1)
    except _ZIP_ERRORS as error:
        raise errors.InvalidInput(f"this zip archive is damaged: {error}") from error
    if len(schema) > _MAX_SCHEMA:
        raise errors.InvalidInput(f"the schema of this skops file is larger than {_MAX_SCHEMA >> 20} MiB")
    untrusted = _skops_types(schema)
    return _artifact(path, Format.SKOPS, "sklearn", code_bearing=bool(untrusted), imports=untrusted)


def _bound_directory(buffer: memoryview) -> None:
    """Refuse a zip whose directory would take long to read. Its size stands in the end record."""
    tail = bytes(buffer[-(66 << 10) :])
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 16:
        raise errors.InvalidInput("this zip archive is cut off")
    if int.from_bytes(tail[at + 12 : at + 16], "little") > _MAX_ZIP_DIRECTORY:
        raise errors.InvalidInput("this zip archive has too many entries")


def _skops_types(schema: bytes) -> tuple[str, ...]:
    """Types in a skops schema that skops does not load on its own.

    An estimate from names, without importing scikit-learn to ask it; skops itself has the last word at load."""
    try:
        document = msgspec.json.decode(schema)
    except (msgspec.DecodeError, RecursionError) as error:
        raise errors.InvalidInput(f"the schema of this skops file is damaged: {error}") from error
    if not isinstance(document, dict) or "__loader__" not in document:
        raise errors.Unsupported("this zip archive has a schema.json, but is no skops file")
    untrusted: set[str] = set()
    stack: list[Any] = [document]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, dict):
            stack.extend(node.values())
            name = _skops_name(node)
            if name is not None and not _skops_trusts(name):
                untrusted.add(name)
    return tuple(sorted(untrusted))


def _skops_name(node: dict[str, Any]) -> str | None:
    module, name = node.get("__module__"), node.get("__class__")
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    content = node.get("content")
    if node.get("__loader__") == "FunctionNode" and isinstance(content, dict):
        return f"{content.get('module_path')}.{content.get('function')}"
    if node.get("__loader__") == "OperatorFuncNode":
        return f"{module}.{name}()"
    return f"{module}.{name}"


_SAFE_BUILTINS = frozenset(
    (
        *("int", "float", "str", "bool", "complex", "list", "set", "frozenset", "map", "tuple", "dict", "bytes"),
        *("bytearray", "slice", "type", "NoneType", "function", "method", "builtin_function_or_method", "object"),
    )
)
_UNSAFE_SKLEARN = frozenset({"sklearn.tree._tree.Tree"})


def _skops_trusts(name: str) -> bool:
    root, _, rest = name.partition(".")
    match root:
        case "builtins":
            return rest in _SAFE_BUILTINS
        case "sklearn":
            # Tree nodes hold indices that scikit-learn follows unchecked, so a crafted file could crash it.
            return name not in _UNSAFE_SKLEARN and not name.endswith(".TreePredictor") and ".externals." not in name
        case "numpy" | "scipy":
            return "ctypes" not in name and "f2py" not in name and "distutils" not in name
        case "collections":
            return rest in ("OrderedDict", "defaultdict")
    return name in ("zoneinfo.ZoneInfo", "functools.partial", "types.FunctionType", "types.MethodType")


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
    if path.stat().st_size > _MAX_SOURCE:
        raise errors.InvalidInput(f"this Python file is larger than {_MAX_SOURCE >> 20} MiB")
    try:
        tree = ast.parse(path.read_bytes(), str(path))
        if attribute is None:
            attribute = _only_model(tree, path)
    except SyntaxError as error:
        raise errors.InvalidInput(f"line {error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise errors.InvalidInput(f"this Python file cannot be parsed: {error}") from error
    defined = sorted(_defined(tree))
    if attribute not in defined and not _imports_everything(tree):
        raise errors.InvalidInput(f"there is no {attribute!r} in it; it defines {', '.join(defined) or 'nothing'}")
    imports = tuple(sorted(_imported(tree)))
    return _artifact(path, Format.PYTHON, "python", code_bearing=True, imports=imports, attribute=attribute)


def _only_model(tree: ast.Module, path: Path) -> str:
    """The one class that derives, directly or through classes of this file, from ``headrace.Model``."""
    classes = {
        node.name: [ast.unparse(base) for base in node.bases] for node in tree.body if isinstance(node, ast.ClassDef)
    }
    models = {name for name, bases in classes.items() if any(b == "Model" or b.endswith(".Model") for b in bases)}
    while more := {name for name, bases in classes.items() if name not in models and models.intersection(bases)}:
        models |= more
    leaves = sorted(models - {base for bases in classes.values() for base in bases})
    if len(leaves) == 1:
        return leaves[0]
    if leaves:
        raise errors.InvalidInput(f"it has several models; name one: {', '.join(f'{path.name}:{n}' for n in leaves)}")
    if "TritonPythonModel" in classes:
        raise errors.Unsupported(
            "this is a model of Triton's Python backend; derive a class from headrace.Model instead"
        )
    raise errors.InvalidInput("it has no class that derives from headrace.Model")


def _defined(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
        else:
            names.update(n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    return names


def _imports_everything(tree: ast.Module) -> bool:
    return any(isinstance(n, ast.ImportFrom) and any(a.name == "*" for a in n.names) for n in tree.body)


def _imported(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names


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
    if model.path is None:
        return _artifact(folder, Format.MLFLOW, "mlflow", code_bearing=True, imports=("mlflow.pyfunc",), **common)
    inner = inspect(model.path)
    return _artifact(folder, Format.MLFLOW, "mlflow", code_bearing=inner.code_bearing, imports=inner.imports, **common)


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
