"""``models push``: from a path or URL to versions in the registry.

Fetch, find the models in it, inspect them in a short-lived process, hash, store the files, and only then register: a
push that dies at any step leaves no version, and the next one goes on with the files that are stored already.
``prepare`` does what comes before storing; it is the same wherever the registry is.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from headrace.app.inspection import inspect_targets
from headrace.app.registry import required_packages, requirements
from headrace.app.registry.fetching import Progress, Source, fetched, is_remote
from headrace.app.state.registry_state import RegistryState
from headrace.core import errors, names
from headrace.core.environments import REQUIREMENTS
from headrace.core.models import Artifact, Signature
from headrace.core.versions import Draft, Provenance, Registration, StoredFile, Version
from headrace.protocols import golden_lines
from headrace.runtimes import digest, repository, version_files
from headrace.runtimes.repository import Found
from headrace.store.artifacts import Artifacts


class PushRequest(msgspec.Struct, frozen=True):
    """``source``: a path, ``file.py:Class``, a URL or a model in MLflow (``mlflow:/models:/fraud@champion``), whose
    server is ``tracking_uri`` (None: what the environment says). ``model`` None: named after what is found."""

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
    tracking_uri: str | None = None


class Pushed(msgspec.Struct, frozen=True):
    """A version, whether the code that it bears may run, and what whoever pushed it should hear."""

    version: Version
    runnable: bool
    notes: tuple[str, ...] = ()


class Prepared(msgspec.Struct, frozen=True):
    """A model that is inspected and hashed: what to register, where its files lie, by their path in the version, and
    what whoever pushes it should hear."""

    model: str
    artifact: Artifact
    registration: Registration
    sources: dict[str, Path]
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.registration.files)


def push(state: RegistryState, request: PushRequest, progress: Progress) -> list[Pushed]:
    """Push everything at the source; versions of an imported repository keep their numbers.

    Raises InvalidInput, Unsupported for what is no model, Conflict for numbers that are used, StoreFailed, and for
    sources elsewhere what ``fetching.fetched`` raises."""
    with prepared(request, progress) as found:
        return [_push_one(state, entry, progress) for entry in found]


@contextmanager
def prepared(request: PushRequest, progress: Progress) -> Iterator[Iterator[Prepared]]:
    """Everything at the source, one after the other; hashed when it is its turn. The files are there while the block
    runs."""
    signature = _signature(request.signature)
    with fetched(request.source, request.tracking_uri, progress) as source:
        found = _find(source.path, request)
        extras = _extras(request)
        artifacts = _inspect(found)
        if request.signature is not None and len(found) > 1:
            raise errors.BadSettings(f"--signature fits one version, but {request.source} holds {len(found)}")
        yield (
            _prepare(request, entry, artifact, source, signature, extras)
            for entry, artifact in zip(found, artifacts, strict=True)
        )


def _prepare(
    request: PushRequest,
    entry: Found,
    artifact: Artifact,
    source: Source,
    signature: Signature | None,
    extras: dict[str, Path],
) -> Prepared:
    required = _required(request, entry)
    packages = None if required is None else required_packages.read(required, named=False)
    sources = version_files.files_of(artifact) | extras | ({} if required is None else {REQUIREMENTS: required})
    stored = {name: StoredFile(name, digest.of_file(path), path.stat().st_size) for name, path in sources.items()}
    version_files.require_inspected(artifact, {name: file.digest for name, file in stored.items()})
    if packages is not None and stored[REQUIREMENTS].digest != packages.digest:
        raise errors.InvalidInput(f"{packages.path} changed while it was pushed; push it again")
    remote = is_remote(request.source)
    registration = Registration(
        path=version_files.entry_of(artifact),
        files=tuple(stored.values()),
        source=request.source if remote else str(Path(request.source).absolute()),
        attribute=artifact.attribute,
        number=version_files.number_of(entry, Path(source.path).absolute()),
        signature=signature,
        golden=version_files.GOLDEN if request.golden else None,
        reference=version_files.REFERENCE if request.reference else None,
        requirements=None if required is None else REQUIREMENTS,
        git_sha=source.git_sha if remote else _git_sha(Path(request.source).absolute().parent),
        metrics=source.metrics | request.metrics,
        metadata=request.metadata,
        trusted=request.trusted,
        alias=request.alias,
        tracked=source.tracked,
    )
    notes = source.notes + artifact.warnings + _ignored(artifact, Path(source.path).absolute(), required)
    return Prepared(request.model or entry.name, artifact, registration, sources, notes)


def _push_one(state: RegistryState, entry: Prepared, progress: Progress) -> Pushed:
    wanted = entry.registration
    for file in wanted.files:
        state.artifacts.put(entry.sources[file.path], file.digest, lambda n: progress(entry.model, n, entry.size))
    required = entry.sources.get(REQUIREMENTS)
    draft = make_draft(
        state.artifacts, entry.model, entry.artifact, wanted, who=state.who, at=time.time(), required=required
    )
    with state.changing("headrace models push") as registry:
        version = registry.register(draft, number=wanted.number, trusted=wanted.trusted, alias=wanted.alias)
        runnable = not draft.code_bearing or registry.trust_in(version) is not None
        return Pushed(version, runnable, entry.notes)


def make_draft(
    artifacts: Artifacts,
    model: str,
    artifact: Artifact,
    wanted: Registration,
    *,
    who: str,
    at: float,
    required: Path | None = None,
) -> Draft:
    """What an inspected artifact and what was said about it make together. ``at`` in seconds since 1970; ``required``:
    the requirements that are named, where they can be read. Raises StorageFull, StoreFailed."""
    kept = requirements.keep(artifacts, artifact, wanted.requirements, required)
    return Draft(
        model=model,
        artifact=msgspec.structs.replace(artifact, path=wanted.path),
        files=(*wanted.files, *kept.added),
        provenance=Provenance(
            who=who,
            at=at,
            source=wanted.source,
            git_sha=wanted.git_sha,
            packages=version_files.packages_of(kept.content),
            metrics=wanted.metrics,
            metadata=wanted.metadata,
            tracked=wanted.tracked,
        ),
        signature=wanted.signature,
        golden=wanted.golden,
        reference=wanted.reference,
        requirements=kept.path,
    )


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


def _inspect(found: list[Found]) -> list[Artifact]:
    targets = [entry.path if entry.attribute is None else f"{entry.path}:{entry.attribute}" for entry in found]
    artifacts = []
    for result in asyncio.run(inspect_targets(targets)):
        if isinstance(result, errors.HeadraceError):
            raise result
        artifacts.append(result)
    return artifacts


# --- what accompanies a model -------------------------------------------------------------------------------------


def _extras(request: PushRequest) -> dict[str, Path]:
    extras = {}
    if request.golden is not None:
        name = f"--golden {request.golden}"
        golden_lines.check(version_files.read_golden(request.golden, name), name)
        extras[version_files.GOLDEN] = request.golden
    if request.reference is not None:
        version_files.check_reference(request.reference, f"--reference {request.reference}")
        extras[version_files.REFERENCE] = request.reference
    return extras


def _required(request: PushRequest, entry: Found) -> Path | None:
    """The requirements of the version's own environment: as named, else those in the folder of its model."""
    if request.requirements is not None:
        return request.requirements
    return None if entry.requirements is None else Path(entry.requirements)


def _ignored(artifact: Artifact, root: Path, required: Path | None) -> tuple[str, ...]:
    """Beside a lone file it may be that of a whole project: the user must say so."""
    beside = Path(artifact.path).parent / REQUIREMENTS
    if required is not None or root.is_dir() or not beside.is_file():
        return ()
    return (f"{beside} is not part of it; --requirements would give it an environment of its own",)


def _signature(path: Path | None) -> Signature | None:
    if path is None:
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Signature)
    except OSError as error:
        raise errors.InvalidInput(f"--signature {path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise errors.InvalidInput(
            f"--signature {path}: {error}; expected JSON like"
            ' {"inputs": [{"name": "x", "dtype": "FP32", "shape": [-1, 30]}], "outputs": [...]}'
        ) from error


def _git_sha(folder: Path) -> str | None:
    try:
        command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None  # no git here, or no answer: the commit is not known
    return done.stdout.strip() if done.returncode == 0 else None
