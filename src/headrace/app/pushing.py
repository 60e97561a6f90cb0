"""``models push``: from a path or URL to versions in the registry.

Fetch, find the models in it, inspect them in a short-lived process, hash, store the files, and only then register: a
push that dies at any step leaves no version, and the next one goes on with the files that are stored already.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from pathlib import Path

import msgspec

from headrace.app import requirements
from headrace.app.fetching import Progress, Source, fetched, is_remote
from headrace.app.inspection import inspect_targets
from headrace.app.registry_state import RegistryState
from headrace.core import errors, names
from headrace.core.models import Artifact, Format, Signature
from headrace.core.versions import Draft, Provenance, StoredFile, Version
from headrace.runtimes import digest, onnx_file, repository
from headrace.runtimes.repository import Found

_MODEL = "model"
"""Folder of the artifact among a version's files; what accompanies it lies beside."""


class PushRequest(msgspec.Struct, frozen=True):
    """``source``: a path, ``file.py:Class``, a URL or a model in MLflow (``mlflow:/models:/fraud@champion``), whose
    server is ``tracking_uri`` (None: what the environment says). ``model`` None: named after what is found."""

    source: str
    model: str | None = None
    signature: Path | None = None
    golden: Path | None = None
    reference: Path | None = None
    metadata: dict[str, str] = {}
    metrics: dict[str, float] = {}
    trusted: bool = False
    alias: str = ""
    tracking_uri: str | None = None


class Pushed(msgspec.Struct, frozen=True):
    """A version, whether the code that it bears may run, and what its user should hear."""

    version: Version
    runnable: bool
    notes: tuple[str, ...] = ()


def push(state: RegistryState, request: PushRequest, progress: Progress) -> list[Pushed]:
    """Push everything at the source; versions of an imported repository keep their numbers.

    Raises InvalidInput, Unsupported for what is no model, Conflict for numbers that are used, StoreFailed, and for
    sources elsewhere what ``fetching.fetched`` raises."""
    signature = _signature(request.signature)
    with (
        tempfile.TemporaryDirectory(prefix="headrace-push-") as scratch,
        fetched(request.source, request.tracking_uri, progress) as source,
    ):
        found = _find(source.path, request)
        extras = _extras(request)
        artifacts = _inspect(found)
        if request.signature is not None and len(found) > 1:
            raise errors.BadSettings(f"--signature fits one version, but {request.source} holds {len(found)}")
        accompanied = _Accompanied(request, source, signature, extras, Path(scratch))
        return [
            _push_one(state, entry, artifact, accompanied, progress)
            for entry, artifact in zip(found, artifacts, strict=True)
        ]


class _Accompanied(msgspec.Struct, frozen=True):
    """A request with what it names read and checked; ``source`` is on disk, ``extras`` are files by their path in the
    version, ``scratch`` is a folder for files that are made for it."""

    request: PushRequest
    source: Source
    signature: Signature | None
    extras: dict[str, Path]
    scratch: Path


def _push_one(
    state: RegistryState, entry: Found, artifact: Artifact, wanted: _Accompanied, progress: Progress
) -> Pushed:
    request, root = wanted.request, Path(wanted.source.path).absolute()
    model = request.model or entry.name
    required = requirements.read(artifact)
    sources = files_of(artifact) | wanted.extras
    required_at = _requirements_file(required, sources, wanted.scratch)
    stored = {name: StoredFile(name, digest.of_file(path), path.stat().st_size) for name, path in sources.items()}
    _require_inspected(artifact, stored)
    total = sum(file.size for file in stored.values())
    for name, path in sources.items():
        state.artifacts.put(path, stored[name].digest, lambda count: progress(model, count, total))
    draft = Draft(
        model=model,
        artifact=msgspec.structs.replace(artifact, path=_entry(artifact)),
        files=tuple(stored.values()),
        provenance=_provenance(state, wanted, required),
        signature=wanted.signature,
        golden="golden.jsonl" if request.golden else None,
        reference="reference.parquet" if request.reference else None,
        requirements=required_at,
    )
    with state.changing("headrace models push") as registry:
        version = registry.register(draft, number=_number(entry, root), trusted=request.trusted, alias=request.alias)
        runnable = not artifact.code_bearing or registry.trust_in(version) is not None
    return Pushed(version, runnable, wanted.source.notes + artifact.warnings)


# --- finding ------------------------------------------------------------------------------------------------------


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


def _requirements_file(content: bytes | None, sources: dict[str, Path], scratch: Path) -> str | None:
    """Where the version has its requirements: among the model's files, or in a file of its own that is added."""
    if content is None:
        return None
    inside = f"{_MODEL}/{requirements.FILE}"
    if inside in sources:
        return inside
    made = Path(tempfile.mkdtemp(dir=scratch)) / requirements.FILE
    made.write_bytes(content)
    sources[requirements.FILE] = made
    return requirements.FILE


def _provenance(state: RegistryState, wanted: _Accompanied, required: bytes | None) -> Provenance:
    request, source = wanted.request, wanted.source
    remote = is_remote(request.source)
    return Provenance(
        who=state.who,
        at=time.time(),
        source=request.source if remote else str(Path(request.source).absolute()),
        git_sha=source.git_sha if remote else _git_sha(Path(request.source).absolute().parent),
        packages=requirements.pinned(required or b""),
        metrics=source.metrics | request.metrics,
        metadata=request.metadata,
        origin=source.origin,
    )


def _git_sha(folder: Path) -> str | None:
    try:
        command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None  # no git here, or no answer: the commit is not known
    return done.stdout.strip() if done.returncode == 0 else None
