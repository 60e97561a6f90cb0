"""A version from files that a client has stored: what it is, is found out here, whatever the client says.

The files are brought together in a folder of their own, every one compared with its digest, and inspected in a
short-lived process, like a model that is served.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from headrace.app.inspection import inspect_targets
from headrace.app.registry import pushing, required_packages
from headrace.core import errors, names
from headrace.core.environments import REQUIREMENTS
from headrace.core.models import Artifact
from headrace.core.versions import Draft, Registration, StoredFile
from headrace.protocols import golden_lines
from headrace.runtimes import digest, version_files
from headrace.store.artifacts import Artifacts

_MAX_PATH = 1024
_BESIDE = (version_files.GOLDEN, version_files.REFERENCE, REQUIREMENTS)


def inspected(artifacts: Artifacts, model: str, wanted: Registration, who: str) -> Draft:
    """The draft of a version. Raises UnknownArtifact for files that are not stored, InvalidInput, Unsupported,
    LoadFailed, Corrupted."""
    names.check_model(model)
    _check_paths(wanted)
    _check_stored(artifacts, wanted.files)
    with tempfile.TemporaryDirectory(prefix="headrace-register-") as folder:
        root = Path(folder)
        for file in wanted.files:
            path = root / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            artifacts.get(file.digest, path, lambda _: None)
        artifact = _inspect(root, wanted)
        _check_accompanying(root, wanted, artifact)
        required = None if wanted.requirements is None else root / wanted.requirements
        if required is not None:
            required_packages.read(required, named=False)
        return pushing.make_draft(artifacts, model, artifact, wanted, who=who, at=time.time(), required=required)


def _check_paths(wanted: Registration) -> None:
    paths = [file.path for file in wanted.files]
    if len(paths) > digest.MAX_FILES:
        raise errors.InvalidInput(f"a version has at most {digest.MAX_FILES} files, not {len(paths)}")
    for path in (*paths, wanted.path):
        _check_path(path)
    files = set(paths)
    if len(files) != len(paths):
        raise errors.InvalidInput("two files of the version have the same path")
    for path in files:
        within = next((str(p) for p in PurePosixPath(path).parents if str(p) in files), None)
        if within is not None:
            raise errors.InvalidInput(f"{within!r} cannot be a file and the folder of {path!r}")
    for option, given, path in (
        ("golden", wanted.golden, version_files.GOLDEN),
        ("reference", wanted.reference, version_files.REFERENCE),
        ("requirements", wanted.requirements, REQUIREMENTS),
    ):
        if given not in (None, path):
            raise errors.InvalidInput(f"{option} must be {path!r}, not {given!r}")
        if (given is not None) != (path in files):
            raise errors.InvalidInput(f"{path!r} must be among the files exactly when {option} names it")


def _check_path(path: str) -> None:
    parts = path.split("/")
    plain = path.isprintable() and "\\" not in path and not any(part in ("", ".", "..") for part in parts)
    short = len(path) <= _MAX_PATH and all(len(part.encode()) <= 255 for part in parts)
    known = parts[0] == version_files.MODEL or path in _BESIDE
    if not (plain and short and known):
        raise errors.InvalidInput(
            f"{path[:200]!r} is no path of a version's file: the model's are model/…, with '/' between printable names"
            f" and at most {_MAX_PATH} characters; beside it lie {', '.join(_BESIDE)}"
        )


def _check_stored(artifacts: Artifacts, files: Sequence[StoredFile]) -> None:
    for file in files:
        size = artifacts.size(file.digest)
        if size is None:
            raise errors.UnknownArtifact(
                f"{file.path} is not stored: send it first, PUT /api/v1/artifacts/{file.digest}"
            )
        # Whoever asks for a version of an old file keeps it from being collected meanwhile.
        if size != file.size or not artifacts.present(file.digest, file.size):
            raise errors.InvalidInput(f"{file.path} has {size} bytes, not {file.size}")


def _inspect(root: Path, wanted: Registration) -> Artifact:
    path = root / wanted.path
    if not path.exists():
        raise errors.InvalidInput(f"{wanted.path!r} is not among the version's files")
    target = str(path) if wanted.attribute is None else f"{path}:{wanted.attribute}"
    [found] = asyncio.run(inspect_targets([target]))
    if isinstance(found, errors.HeadraceError):
        raise type(found)(found.message.replace(f"{root}/", ""))
    return found


def _check_accompanying(root: Path, wanted: Registration, artifact: Artifact) -> None:
    """Nothing may lie in the model's folder that was not inspected, and what accompanies it is what it should be."""
    declared = {file.path for file in wanted.files if file.path.startswith(f"{version_files.MODEL}/")}
    strangers = declared - set(version_files.files_of(artifact))
    if strangers or version_files.entry_of(artifact) != wanted.path:
        shown = ", ".join(sorted(strangers)[:5]) or wanted.path
        raise errors.InvalidInput(f"these files do not belong to the model {wanted.path}: {shown}")
    version_files.require_inspected(artifact, {file.path: file.digest for file in wanted.files})
    if wanted.golden is not None:
        golden_lines.check(version_files.read_golden(root / wanted.golden, wanted.golden), wanted.golden)
    if wanted.reference is not None:
        version_files.check_reference(root / wanted.reference, wanted.reference)
