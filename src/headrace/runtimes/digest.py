"""Digests of artifacts: what ``--trust`` names and what makes a version immutable.

A file's digest is the SHA-256 of its bytes. Several files have the SHA-256 of their listing in the form of
``sha256sum``, sorted by path, so that anyone can check it:
``find . -type f | sed 's|^\\./||' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum``
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from io import BufferedReader
from pathlib import Path

from headrace.core import errors
from headrace.core.models import Artifact, Format
from headrace.runtimes import onnx_file

MAX_FILES = 20_000
"""Files in a folder that is one artifact; more means that the path is not a model."""


def of_file(path: Path) -> str:
    return f"sha256:{_hex(path)}"


def of_open_file(file: BufferedReader) -> str:
    """Digest of a file from its beginning to its end; whoever reads on in it reads what was hashed."""
    file.seek(0)
    return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def of_files(root: Path, files: Iterable[Path]) -> str:
    return of_listing((path.relative_to(root).as_posix(), f"sha256:{_hex(path)}") for path in files)


def of_listing(files: Iterable[tuple[str, str]]) -> str:
    """Digest of several files from their paths and digests."""
    listing = "".join(f"{digest.removeprefix('sha256:')}  {name}\n" for name, digest in sorted(files))
    return f"sha256:{hashlib.sha256(listing.encode('utf-8', 'surrogateescape')).hexdigest()}"


def of_folder(folder: Path) -> str:
    """Digest of every file below a folder. Links to files count by content; links to folders are refused, because
    they can lead out of the artifact or in circles."""
    files: list[Path] = []
    for where, folders, names in os.walk(folder):
        for name in folders:
            if (Path(where) / name).is_symlink():
                raise errors.InvalidInput(f"{Path(where) / name} is a link to a folder; an artifact cannot have one")
        files.extend(Path(where) / name for name in names)
        if len(files) > MAX_FILES:
            raise errors.InvalidInput(f"{folder} holds more than {MAX_FILES} files: is it a model?")
    return of_files(folder, files)


def require_unchanged(artifact: Artifact) -> None:
    """Make sure that an artifact is still what ``inspect`` saw: a version is one content, whenever a replica loads it.

    A Python file is left out: replicas run the copy that was kept of it. Raises LoadFailed when it has changed."""
    if artifact.format is Format.PYTHON:
        return
    now = _of_artifact(artifact)
    if now != artifact.digest:
        raise errors.LoadFailed(
            f"{artifact.path} changed after it was inspected: it is {now} now, this version is {artifact.digest}. "
            "Put the old one back, or start headrace serve again to serve what is there"
        )


def _of_artifact(artifact: Artifact) -> str:
    path = Path(artifact.path)
    if path.is_dir():
        return of_folder(path)
    require_file(path)
    if artifact.format is Format.ONNX and (weights := onnx_file.weights_of(path)):
        return of_files(path.parent, [path, *weights])
    return of_file(path)


def require_file(path: Path) -> os.stat_result:
    """The status of a regular, readable file; opening anything else (a pipe, a device) could hang for ever."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise errors.InvalidInput(f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise errors.InvalidInput(f"{path} cannot be read: {error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise errors.InvalidInput(f"{path} is neither a regular file nor a folder")
    return status


def _hex(path: Path) -> str:
    require_file(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise errors.InvalidInput(f"{path} cannot be read: {error.strerror}") from error
