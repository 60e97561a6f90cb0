"""The files of a version in the registry: which ones a model on disk consists of, and what may accompany it.

model/…             the model: a file with the files it refers to, or a folder
golden.jsonl        golden requests, one JSON object a line
reference.parquet   training data to compare with
requirements.txt    packages that the model asks for, when they are named inside an archive
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from headrace.core import errors
from headrace.core.models import Artifact, Format
from headrace.runtimes import digest, onnx_file, torchserve_archive, zip_file
from headrace.runtimes.repository import Found

MODEL = "model"
"""Folder of the model among a version's files; what accompanies it lies beside."""
GOLDEN = "golden.jsonl"
REFERENCE = "reference.parquet"
REQUIREMENTS = "requirements.txt"

_PINNED = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._\-]*)(?:\[[^\]]*\])?\s*==\s*([^\s;#]+)")
_MAX_REQUIREMENTS = 1 << 20
_MAX_GOLDEN = 64 << 20


def files_of(artifact: Artifact) -> dict[str, Path]:
    """The files of an artifact by their path in the version."""
    path = Path(artifact.path)
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file()]
        return {f"{MODEL}/{file.relative_to(path).as_posix()}": file for file in sorted(files)}
    weights = onnx_file.weights_of(path) if artifact.format is Format.ONNX else []
    return {f"{MODEL}/{file.relative_to(path.parent).as_posix()}": file for file in (path, *weights)}


def entry_of(artifact: Artifact) -> str:
    """The path of an artifact in the version."""
    path = Path(artifact.path)
    return MODEL if path.is_dir() else f"{MODEL}/{path.name}"


def require_inspected(artifact: Artifact, digests: Mapping[str, str]) -> None:
    """Make sure that the files, digests by path in the version, are those that were inspected, whatever happened to
    them in between. Raises InvalidInput."""
    listing = [(n.removeprefix(f"{MODEL}/"), d) for n, d in digests.items() if n.startswith(f"{MODEL}/")]
    several = Path(artifact.path).is_dir() or len(listing) > 1
    if (digest.of_listing(listing) if several else listing[0][1]) != artifact.digest:
        raise errors.InvalidInput(f"{artifact.path} changed while it was pushed; push it again")


def number_of(found: Found, root: Path) -> int | None:
    """The number that a repository at ``root`` gives a version by its folder, ``7`` in ``NAME/7/model.onnx``.

    None for a lone model, which gets the next free one."""
    path = Path(found.path)
    if not found.version.isdigit() or not root.is_dir():
        return None
    below = path.relative_to(root).parts
    folders = below if path.is_dir() else below[:-1]
    return int(found.version) if found.version in folders else None


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to be filled by the block; it becomes ``target`` when the block ends well, and is gone otherwise.

    Raises Conflict when there is something already."""
    if target.exists():
        raise errors.Conflict(f"{target} exists already; remove it, or name another folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise errors.StoreFailed(f"{target}: {error.strerror}") from error
    try:
        yield partial
        partial.chmod(0o755)  # a temporary folder is its owner's only
        _appear(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _appear(partial: Path, target: Path) -> None:
    try:
        partial.rename(target)
    except OSError as error:
        if target.exists():
            raise errors.Conflict(f"{target} was made meanwhile by another process") from error
        raise errors.StoreFailed(f"{target}: {error.strerror}") from error


def read_golden(path: Path, name: str) -> bytes:
    """The golden requests in a file, for ``protocols/golden_lines.py``. Raises InvalidInput, which calls the file
    ``name``, when it cannot be read or is too large."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_GOLDEN + 1)
    except OSError as error:
        raise errors.InvalidInput(f"{name}: {error.strerror}") from error
    if len(content) > _MAX_GOLDEN:
        raise errors.InvalidInput(
            f"{name} has more than {_MAX_GOLDEN >> 20} MiB; golden requests are few: keep those that tell the most"
        )
    return content


def check_reference(path: Path, name: str) -> None:
    """Raise InvalidInput, which calls the file ``name``, unless it begins and ends like a Parquet file."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
            file.seek(max(0, path.stat().st_size - 4))
            tail = file.read(4)
    except OSError as error:
        raise errors.InvalidInput(f"{name}: {error.strerror}") from error
    if head != b"PAR1" or tail != b"PAR1":
        raise errors.InvalidInput(f"{name} is no Parquet file; write one with DataFrame.to_parquet")


def requirements_of(artifact: Artifact) -> bytes | None:
    """The packages that a model asks for: ``requirements.txt`` of an MLflow folder, or in a TorchServe archive.

    None when it asks for none. Raises InvalidInput for an archive that is damaged."""
    path = Path(artifact.path)
    if artifact.format is Format.TORCHSERVE:
        with zip_file.opened(path) as archive:
            return torchserve_archive.requirements(archive, torchserve_archive.read(archive))
    file = path / REQUIREMENTS
    if not file.is_file():
        return None
    with file.open("rb") as opened:
        return opened.read(_MAX_REQUIREMENTS)


def packages_of(requirements: bytes) -> dict[str, str]:
    """Packages that are pinned to one version, by name."""
    lines = requirements.decode("utf-8", "replace").splitlines()
    return {match[1]: match[2] for line in lines if (match := _PINNED.match(line))}
