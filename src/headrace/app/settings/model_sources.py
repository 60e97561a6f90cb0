"""Models as people type them: ``fraud.onnx``, ``churn=churn.ubj``, ``img/``, ``pricer.py:Pricer``, ``fraud@champion``.

Splits the text, finds the endpoint's name and checks that the path exists. What is inside the path is found out
later, in a short-lived worker.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from headrace.app.settings.serve_settings import ModelSource
from headrace.core import errors, names

_PYTHON_CLASS = re.compile(r"(?P<path>.+\.py):(?P<attribute>[A-Za-z_]\w*)\Z")
_DIGEST = re.compile("sha256:[0-9a-f]{64}")


def parse_source(text: str, *, name: str | None = None, where: str = "model") -> ModelSource:
    """The parts of ``[name=]path[:Class]``. Raises BadSettings that starts with ``where``."""
    path = text
    # Unlike Path.exists, os.path.exists is False for what can be no path at all: too long, or with a NUL in it.
    if name is None and "=" in text and not os.path.exists(text):  # noqa: PTH110
        name, _, path = text.partition("=")
    if not path:
        raise errors.BadSettings(
            f"{where}: {text!r} has no path; write PATH or NAME=PATH, e.g. fraud=models/fraud.onnx"
        )
    if name is not None:
        try:
            names.check_endpoint(name)
        except errors.BadSettings as error:
            raise errors.BadSettings(f"{where}: {error.message}") from None
    match = _PYTHON_CLASS.match(path)
    if match is not None:
        return ModelSource(match["path"], name, match["attribute"])
    return ModelSource(path, name)


def endpoint_name(source: ModelSource) -> str:
    """The name the source gets when it is one model; a repository folder holds several, named by its folders."""
    if source.name is None and is_reference(source):
        return names.split_reference(source.path)[0]
    path = Path(source.path)
    return source.name or names.endpoint_from_path(path.name if path.is_dir() else path.stem)


def rebase(source: ModelSource, folder: Path) -> ModelSource:
    """A source whose relative path counts from ``folder`` instead of the working directory."""
    if Path(source.path).is_absolute() or folder == Path():
        return source
    if is_reference(source) and not (folder / source.path).exists():
        return source
    return msgspec.structs.replace(source, path=str(folder / source.path))


def is_reference(source: ModelSource) -> bool:
    """The source names a version in the registry (``fraud@7``, ``fraud@champion``), and no file or folder."""
    if "@" not in source.path or source.registered is not None or os.path.exists(source.path):  # noqa: PTH110
        return False
    try:
        return names.split_reference(source.path)[1] is not None
    except errors.BadSettings:
        return False


def check_sources(sources: Iterable[ModelSource]) -> None:
    """Raise BadSettings for a path that does not exist or a name that is taken twice."""
    taken: dict[str, str] = {}
    for source in sources:
        path = Path(source.path)
        if not os.path.exists(path):  # noqa: PTH110
            raise errors.BadSettings(f"{_where(source)}there is no file or folder {source.path!r}{_nearest(path)}")
        if path.is_dir() and source.name is None:
            continue
        name = endpoint_name(source)
        if source.deployment is not None:
            # The file's own mapping keeps these apart.
            name = f"{name}:{source.deployment}"
        if name in taken:
            raise errors.BadSettings(
                f"{_where(source)}{taken[name]!r} and {source.path!r} would both be endpoint {name!r};"
                f" name one of them, e.g. {name}-2={source.path}"
            )
        taken[name] = source.path


def check_trust(entries: Iterable[str]) -> None:
    """Raise BadSettings for what is neither a whole digest nor a path that exists: it would trust nothing."""
    for entry in entries:
        if entry.startswith("sha256:"):
            if not _DIGEST.fullmatch(entry):
                raise errors.BadSettings(f"trust: {entry!r} is no digest: expected sha256: and 64 hexadecimal digits")
        elif not os.path.exists(entry):  # noqa: PTH110
            raise errors.BadSettings(f"trust: there is no file or folder {entry!r}{_nearest(Path(entry))}")


def _where(source: ModelSource) -> str:
    return f"{source.where}: " if source.where else ""


def _nearest(path: Path) -> str:
    if path.parent.is_dir():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1)
        if near:
            return f"; did you mean {str(path.parent / near[0])!r}?"
    if "@" in path.name:
        return "; a version of the registry is named without a folder: MODEL@VERSION or MODEL@ALIAS"
    return ""
