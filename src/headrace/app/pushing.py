"""``models push``: from a path or URL to versions in the registry.

Fetch, find the models in it, inspect them in a short-lived process, hash, store the files, and only then register: a
push that dies at any step leaves no version, and the next one goes on with the files that are stored already.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from headrace.app import required_packages
from headrace.app.inspection import inspect_targets
from headrace.app.registry_state import RegistryState
from headrace.core import errors, names
from headrace.core.environments import REQUIREMENTS
from headrace.core.models import Artifact, Format, Signature
from headrace.core.versions import Draft, Provenance, StoredFile, Version
from headrace.runtimes import digest, onnx_file, repository
from headrace.runtimes.repository import Found

Progress = Callable[[str, int, int], None]
"""What is being moved, bytes that were just moved, bytes in all (0: not known)."""

_PINNED = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._\-]*)(?:\[[^\]]*\])?\s*==\s*([^\s;#]+)")
_MODEL = "model"
"""Folder of the artifact among a version's files; what accompanies it lies beside."""


class PushRequest(msgspec.Struct, frozen=True):
    """``source``: a path, ``file.py:Class`` or a URL. ``model`` None: named after what is found."""

    source: str
    model: str | None = None
    signature: Path | None = None
    golden: Path | None = None
    reference: Path | None = None
    requirements: Path | None = None
    metadata: dict[str, str] = {}
    metrics: dict[str, float] = {}
    trusted: bool = False
    alias: str = ""


class Pushed(msgspec.Struct, frozen=True):
    """A version, and whether the code that it bears may run.

    ``ignored`` is a ``requirements.txt`` that stands beside the file that was pushed and was not taken."""

    version: Version
    runnable: bool
    ignored: str | None = None


def push(state: RegistryState, request: PushRequest, progress: Progress) -> list[Pushed]:
    """Push everything at the source; versions of an imported repository keep their numbers.

    Raises InvalidInput, Unsupported for what is no model, Conflict for numbers that are used, StoreFailed."""
    signature = _signature(request.signature)
    with _fetched(request.source, progress) as path:
        found = _find(path, request)
        extras = _extras(request)
        artifacts = _inspect(found)
        if request.signature is not None and len(found) > 1:
            raise errors.BadSettings(f"--signature fits one version, but {request.source} holds {len(found)}")
        return [
            _push_one(state, entry, artifact, _Accompanied(request, Path(path).absolute(), signature, extras), progress)
            for entry, artifact in zip(found, artifacts, strict=True)
        ]


class _Accompanied(msgspec.Struct, frozen=True):
    """A request with what it names read and checked; ``root`` is its source on disk, ``extras`` are files by their path
    in the version."""

    request: PushRequest
    root: Path
    signature: Signature | None
    extras: dict[str, Path]


def _push_one(
    state: RegistryState, entry: Found, artifact: Artifact, wanted: _Accompanied, progress: Progress
) -> Pushed:
    request = wanted.request
    model = request.model or entry.name
    required = _required(request, entry)
    packages = None if required is None else required_packages.read(required, named=False)
    sources = files_of(artifact) | wanted.extras | ({} if required is None else {REQUIREMENTS: required})
    stored = {name: StoredFile(name, digest.of_file(path), path.stat().st_size) for name, path in sources.items()}
    _require_inspected(artifact, stored)
    if packages is not None and stored[REQUIREMENTS].digest != packages.digest:
        raise errors.InvalidInput(f"{packages.path} changed while it was pushed; push it again")
    total = sum(file.size for file in stored.values())
    for name, path in sources.items():
        state.artifacts.put(path, stored[name].digest, lambda count: progress(model, count, total))
    draft = Draft(
        model=model,
        artifact=msgspec.structs.replace(artifact, path=_entry(artifact)),
        files=tuple(stored.values()),
        provenance=_provenance(state, request, artifact, required),
        signature=wanted.signature,
        golden="golden.jsonl" if request.golden else None,
        reference="reference.parquet" if request.reference else None,
        requirements=None if required is None else REQUIREMENTS,
    )
    with state.changing("headrace models push") as registry:
        version = registry.register(
            draft, number=_number(entry, wanted.root), trusted=request.trusted, alias=request.alias
        )
        runnable = not draft.code_bearing or registry.trust_in(version) is not None
        return Pushed(version, runnable, _ignored(artifact, wanted.root, required))


# --- finding ------------------------------------------------------------------------------------------------------


@contextmanager
def _fetched(source: str, progress: Progress) -> Iterator[str]:
    """A local path to the source; what comes from an object store lies in a temporary folder."""
    if "://" not in source:
        yield source
        return
    from headrace.store.object_artifacts import download

    with tempfile.TemporaryDirectory(prefix="headrace-push-") as folder:
        yield str(download(source, Path(folder), lambda count: progress(source, count, 0)))


def _find(path: str, request: PushRequest) -> list[Found]:
    found = repository.discover(path)
    models = sorted({entry.name for entry in found})
    if request.model is not None:
        names.check_model(request.model)
        if len(models) > 1:
            raise errors.BadSettings(
                f"{request.source} holds {len(models)} models ({', '.join(models[:5])}); push it without a name to"
                " import them all, or name the folder of one"
            )
    return found


def _number(entry: Found, root: Path) -> int | None:
    """The number that a repository gives a version by its folder, ``7`` in ``NAME/7/model.onnx``.

    None for a lone model, which gets the next free one."""
    path = Path(entry.path)
    if not entry.version.isdigit() or not root.is_dir():
        return None
    below = path.relative_to(root).parts
    folders = below if path.is_dir() else below[:-1]
    return int(entry.version) if entry.version in folders else None


def _inspect(found: list[Found]) -> list[Artifact]:
    targets = [entry.path if entry.attribute is None else f"{entry.path}:{entry.attribute}" for entry in found]
    artifacts = []
    for result in asyncio.run(inspect_targets(targets)):
        if isinstance(result, errors.HeadraceError):
            raise result
        artifacts.append(result)
    return artifacts


# --- files --------------------------------------------------------------------------------------------------------


def files_of(artifact: Artifact) -> dict[str, Path]:
    """The files of an artifact by their path in the version."""
    path = Path(artifact.path)
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file()]
        return {f"{_MODEL}/{file.relative_to(path).as_posix()}": file for file in sorted(files)}
    weights = onnx_file.weights_of(path) if artifact.format is Format.ONNX else []
    return {f"{_MODEL}/{file.relative_to(path.parent).as_posix()}": file for file in (path, *weights)}


def _entry(artifact: Artifact) -> str:
    path = Path(artifact.path)
    return _MODEL if path.is_dir() else f"{_MODEL}/{path.name}"


def _require_inspected(artifact: Artifact, stored: dict[str, StoredFile]) -> None:
    """What is stored must be what was inspected, whatever happened to the files in between."""
    listing = [(n.removeprefix(f"{_MODEL}/"), f.digest) for n, f in stored.items() if n.startswith(f"{_MODEL}/")]
    several = Path(artifact.path).is_dir() or len(listing) > 1
    if (digest.of_listing(listing) if several else listing[0][1]) != artifact.digest:
        raise errors.InvalidInput(f"{artifact.path} changed while it was pushed; push it again")


# --- what accompanies a model -------------------------------------------------------------------------------------


def _extras(request: PushRequest) -> dict[str, Path]:
    extras = {}
    if request.golden is not None:
        _check_golden(request.golden)
        extras["golden.jsonl"] = request.golden
    if request.reference is not None:
        _check_parquet(request.reference)
        extras["reference.parquet"] = request.reference
    return extras


def _required(request: PushRequest, entry: Found) -> Path | None:
    """The requirements of the version's own environment: as named, else those in the folder of its model."""
    if request.requirements is not None:
        return request.requirements
    return None if entry.requirements is None else Path(entry.requirements)


def _ignored(artifact: Artifact, root: Path, required: Path | None) -> str | None:
    """Beside a lone file it may be that of a whole project: the user must say so."""
    beside = Path(artifact.path).parent / REQUIREMENTS
    return str(beside) if required is None and not root.is_dir() and beside.is_file() else None


def _signature(path: Path | None) -> Signature | None:
    if path is None:
        return None
    try:
        return msgspec.json.decode(_read(path, "--signature"), type=Signature)
    except msgspec.DecodeError as error:
        raise errors.InvalidInput(
            f"--signature {path}: {error}; expected JSON like"
            ' {"inputs": [{"name": "x", "dtype": "FP32", "shape": [-1, 30]}], "outputs": [...]}'
        ) from error


def _check_golden(path: Path) -> None:
    for number, line in enumerate(_read(path, "--golden").splitlines(), 1):
        try:
            msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        except msgspec.DecodeError as error:
            raise errors.InvalidInput(
                f"--golden {path}, line {number}: {error}; every line is a JSON object"
            ) from error


def _check_parquet(path: Path) -> None:
    content = _read(path, "--reference")
    if not (content.startswith(b"PAR1") and content.endswith(b"PAR1")):
        raise errors.InvalidInput(f"--reference {path} is no Parquet file; write one with DataFrame.to_parquet")


def _read(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise errors.InvalidInput(f"{option} {path}: {error.strerror}") from error


def _provenance(state: RegistryState, request: PushRequest, artifact: Artifact, required: Path | None) -> Provenance:
    return Provenance(
        who=state.who,
        at=time.time(),
        source=request.source if "://" in request.source else str(Path(request.source).absolute()),
        git_sha=None if "://" in request.source else _git_sha(Path(request.source).absolute().parent),
        packages=_packages(required or Path(artifact.path) / REQUIREMENTS),
        metrics=request.metrics,
        metadata=request.metadata,
    )


def _packages(requirements: Path) -> dict[str, str]:
    """Pinned packages of a ``requirements.txt``: the version's own, or the one in an MLflow folder."""
    if not requirements.is_file():
        return {}
    lines = requirements.read_text(encoding="utf-8", errors="replace").splitlines()
    return {match[1]: match[2] for line in lines if (match := _PINNED.match(line))}


def _git_sha(folder: Path) -> str | None:
    try:
        command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None  # no git here, or no answer: the commit is not known
    return done.stdout.strip() if done.returncode == 0 else None
