"""Reads the ``MLmodel`` file of an MLflow folder: which flavor to load, from which file, and the signature.

Nothing named in the file may lead out of the folder, and nothing in it is believed about trust.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from headrace.core import errors
from headrace.core.tensors import DType

FILE = "MLmodel"
_MAX_SIZE = 4 << 20

_FILE_KEYS = {
    "onnx": ("data",),
    "xgboost": ("data",),
    "lightgbm": ("data",),
    "sklearn": ("pickled_model", "data"),
}
"""Flavors with a loader of ours, best first, and the keys that name their file."""

PYFUNC = "python_function"

_COLUMN_TYPES = {
    "boolean": DType.BOOL,
    "integer": DType.INT32,
    "long": DType.INT64,
    "float": DType.FP32,
    "double": DType.FP64,
    "string": DType.BYTES,
    "binary": DType.BYTES,
    "datetime": DType.BYTES,
}


class Column(msgspec.Struct, frozen=True):
    name: str
    dtype: DType
    required: bool = True
    kind: str = ""
    """MLflow's own type, e.g. ``datetime``."""


class MLModel(msgspec.Struct, frozen=True):
    """``path`` is the flavor's file (None for pyfunc). ``columns`` is None when no column signature is given.
    ``document`` is the whole MLmodel file."""

    flavor: str
    path: Path | None
    code: Path | None
    columns: tuple[Column, ...] | None
    document: dict[str, Any]


def read(folder: Path) -> MLModel:
    """Raises InvalidInput for a damaged file and Unsupported for flavors that are not served."""
    document = _parse(folder / FILE)
    flavors = document.get("flavors")
    if not isinstance(flavors, dict) or not flavors:
        raise errors.InvalidInput(f"{folder / FILE} names no flavors")
    columns = _columns(document.get("signature"), folder)
    for flavor, keys in _FILE_KEYS.items():
        settings = flavors.get(flavor)
        if not isinstance(settings, dict):
            continue
        named = next((settings[key] for key in keys if isinstance(settings.get(key), str)), None)
        if named is None:
            raise errors.InvalidInput(f"{folder / FILE}: flavor {flavor} names no file ({' or '.join(keys)})")
        code = settings.get("code")
        inside = _inside(folder, code) if isinstance(code, str) else None
        return MLModel(flavor, _inside(folder, named), inside, columns, document)
    if isinstance(flavors.get(PYFUNC), dict):
        return MLModel(PYFUNC, None, None, columns, document)
    raise errors.Unsupported(
        f"{folder} has the MLflow flavors {', '.join(map(str, flavors))};"
        f" supported are {', '.join(_FILE_KEYS)} and {PYFUNC}"
    )


def details(model: MLModel) -> dict[str, str]:
    """Which MLflow wrote the folder, and from which run, as far as its MLmodel file says."""
    known = ("mlflow_version", "run_id", "model_id", "utc_time_created")
    return {name: str(value)[:200] for name in known if (value := model.document.get(name)) is not None}


def _parse(path: Path) -> dict[str, Any]:
    import yaml

    if path.stat().st_size > _MAX_SIZE:
        raise errors.InvalidInput(f"{path} is larger than {_MAX_SIZE >> 20} MiB")
    try:
        document = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise errors.InvalidInput(f"{path} is not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise errors.InvalidInput(f"{path} holds no mapping")
    return document


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if "\0" in name or not path.resolve().is_relative_to(folder.resolve()):
        raise errors.InvalidInput(f"{folder / FILE} names a file outside the folder: {name!r}")
    if not path.exists():
        raise errors.InvalidInput(f"{folder / FILE} names {name!r}, which is missing")
    return path


def _columns(signature: Any, folder: Path) -> tuple[Column, ...] | None:
    """Columns of the input schema; None for tensors and for schemas without names."""
    text = signature.get("inputs") if isinstance(signature, dict) else None
    if not isinstance(text, str):
        return None
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise errors.InvalidInput(f"{folder / FILE}: the signature's inputs are not JSON: {error}") from error
    if not isinstance(entries, list):
        return None
    columns: list[Column] = []
    for entry in entries:
        kind = entry.get("type") if isinstance(entry, dict) else None
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(kind, str) or not isinstance(name, str) or kind not in _COLUMN_TYPES:
            return None
        required = entry.get("required", True) is not False and not entry.get("optional", False)
        columns.append(Column(name, _COLUMN_TYPES[kind], required, kind))
    return tuple(columns) or None
