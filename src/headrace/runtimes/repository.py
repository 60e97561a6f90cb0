"""What there is to serve at a path: a listing of folders, nothing is opened.

Three layouts are understood, as Triton and TensorFlow Serving users have them:

    model.onnx, pricer.py, an MLflow folder, a folder with one model file     one model
    VERSION/model.onnx                                                         the versions of one model
    NAME/VERSION/model.onnx (or NAME/model.onnx)                               a model repository

Versions are numbers. The highest is served; all are found, so that each can be addressed.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from headrace.core import errors, names
from headrace.core.environments import REQUIREMENTS
from headrace.runtimes import mlmodel, sniff
from headrace.runtimes.inspect import split_attribute

LAYOUTS = "a model file, a folder VERSION/file (versions are numbers), or a model repository NAME/VERSION/file"

_SERVED = (
    ".onnx",
    ".skops",
    ".ubj",
    ".json",
    ".xgb",
    ".bst",
    ".lgb",
    ".txt",
    ".pkl",
    ".pickle",
    ".joblib",
    ".model",
    ".mar",
    ".py",
)
_NOT_SERVED = (
    ".pt",
    ".pth",
    ".pt2",
    ".keras",
    ".h5",
    ".gguf",
    ".safetensors",
    ".tflite",
    ".cbm",
    ".plan",
    ".pmml",
)
_COMPRESSED = (".z", ".gz", ".bz2", ".xz", ".lzma")
_MODEL_SUFFIXES = frozenset((*_SERVED, *_NOT_SERVED, *_COMPRESSED, ".ort", ".sav"))
"""Suffixes of model files; what is not served is listed too, because inspection says so better than a listing."""

_SHOWN = 8
"""Names that an error lists."""

_WEAK = frozenset((".json", ".txt", ".py", ".model", *_COMPRESSED))
"""Suffixes that other files have as well: beside folders they are taken for a model only when called model.*"""

_BESIDE_A_MODEL = frozenset(
    (
        *("config.pbtxt", "config.json", "requirements.txt", "conda.yaml", "python_env.yaml", "labels.txt"),
        *("classes.txt", "vocab.txt", "readme.txt", "license.txt", "notice.txt", "metadata.json", "setup.py"),
        *("model-settings.json", "settings.json", "signature.json", "input_example.json", "__init__.py"),
    )
)
"""Files that stand beside a model and could be taken for one by their suffix."""


class Found(msgspec.Struct, frozen=True):
    """One version of one model. ``served``: it answers when no version is asked for."""

    name: str
    version: str
    path: str
    attribute: str | None = None
    served: bool = True
    requirements: str | None = None
    """The ``requirements.txt`` that stands beside the model in its folder."""


def discover(path: str | Path) -> list[Found]:
    """Everything to serve at ``path``, ordered by name and version.

    Raises InvalidInput that says what was found and which layouts there are."""
    text, attribute = split_attribute(str(path))
    target = Path(text).absolute()
    if not target.exists():
        raise errors.InvalidInput(f"{text} does not exist")
    if not target.is_dir():
        return [Found(_name(_stem(target)), "1", str(target), attribute)]
    found = _model(target, target.name)
    if found and Path(found[0].path).parent == target:
        inside = [folder.name for folder in _folders(target) if folder != Path(found[0].path) and _has_model(folder)]
        if inside:
            raise errors.InvalidInput(
                f"{target} holds both a model file ({Path(found[0].path).name}) and model folders"
                f" ({_listed(inside)}); name one of them, or move the file into a folder of its own"
            )
    return found or _repository(target)


def _has_model(folder: Path) -> bool:
    try:
        return bool(_model(folder, folder.name))
    except errors.InvalidInput:  # several models in it are models too
        return True


def _stem(path: Path) -> str:
    """The file name without the suffixes of a model: ``fraud.v2.joblib.gz`` is ``fraud.v2``."""
    while path.suffix.lower() in _MODEL_SUFFIXES:
        path = path.with_suffix("")
    return path.name


def _model(folder: Path, name: str) -> list[Found]:
    """The versions of the model in a folder; empty when the folder is not one."""
    versions = sorted((int(sub.name), sub) for sub in _folders(folder) if _is_version(sub.name))
    if not versions:
        whole = _content(folder)
        return [Found(_name(name), "1", str(whole), requirements=_required(folder, whole))] if whole is not None else []
    found: list[Found] = []
    for _, sub in versions:
        content = _content(sub)
        if content is None:
            raise errors.InvalidInput(f"{sub} is a version folder without a model: it holds {_listing(sub)}")
        required = _required(sub, content)
        found.append(Found(_name(name), sub.name, str(content), served=False, requirements=required))
    found[-1] = msgspec.structs.replace(found[-1], served=True)
    return found


def _required(folder: Path, content: Path) -> str | None:
    """What stands inside a model folder is its own affair: MLflow writes a requirements.txt into every one."""
    path = folder / REQUIREMENTS
    return str(path) if content != folder and path.is_file() else None


def _repository(folder: Path) -> list[Found]:
    found: list[Found] = []
    for sub in _folders(folder):
        found.extend(_model(sub, sub.name))
    if not found:
        raise errors.InvalidInput(f"{folder} holds {_listing(folder)}; expected {LAYOUTS}")
    owners: dict[str, str] = {}
    for entry in found:
        model = str(Path(entry.path).relative_to(folder)).partition(os.sep)[0]
        if owners.setdefault(entry.name, model) != model:
            raise errors.InvalidInput(f"{folder}: {owners[entry.name]!r} and {model!r} both give {entry.name!r}")
    return found


def _content(folder: Path) -> Path | None:
    """The artifact of a folder that holds exactly one: a file, or a folder. None when it has none."""
    if _is_model_folder(folder):
        return folder
    folders = _folders(folder)
    files = [e for e in _visible(folder) if e.is_file() and e.name.lower() not in _BESIDE_A_MODEL]
    candidates = [file for file in files if _looks_like_a_model(file, bool(folders))]
    # Triton's convention: the model is called model.<suffix>, whatever stands beside it; model.savedmodel is a folder.
    candidates += [sub for sub in folders if sub.stem == "model" and _is_model_folder(sub)]
    if not candidates and len(files) == 1 and not folders:
        return files[0]
    if len(candidates) > 1:
        named = [candidate for candidate in candidates if candidate.stem == "model"]
        if len(named) != 1:
            raise errors.InvalidInput(
                f"{folder} holds several model files: {_listed([c.name for c in candidates])};"
                f" name one of them, or call the model itself model{candidates[0].suffix}"
            )
        candidates = named
    return candidates[0] if candidates else None


def _looks_like_a_model(file: Path, beside_folders: bool) -> bool:
    suffix = file.suffix.lower()
    if suffix not in _MODEL_SUFFIXES:
        return False
    return not beside_folders or suffix not in _WEAK or file.stem == "model"


def _is_model_folder(folder: Path) -> bool:
    listed = frozenset(entry.name for entry in _visible(folder))
    return mlmodel.FILE in listed or sniff.folder_content(listed) is not None


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) <= 18


def _visible(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise errors.InvalidInput(f"{folder} cannot be listed: {error.strerror}") from error
    return [entry for entry in entries if not entry.name.startswith((".", "__pycache__"))]


def _folders(folder: Path) -> list[Path]:
    return [entry for entry in _visible(folder) if entry.is_dir()]


def _name(text: str) -> str:
    return names.check_endpoint(names.endpoint_from_path(text))


def _listing(folder: Path) -> str:
    entries = [f"{entry.name}/" if entry.is_dir() else entry.name for entry in _visible(folder)]
    return _listed(entries) if entries else "nothing"


def _listed(entries: list[str]) -> str:
    shown = ", ".join(entries[:_SHOWN])
    return shown if len(entries) <= _SHOWN else f"{shown} and {len(entries) - _SHOWN} more"
