"""Copies of registered versions on this machine's disk, from which they are served: below the state directory."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from headrace.app.registry.stored_versions import Progress, pull
from headrace.app.state.registry_state import RegistryState
from headrace.control.registry import Registry
from headrace.core import errors
from headrace.core.endpoint_records import EndpointRecord
from headrace.core.versions import Version
from headrace.runtimes import digest
from headrace.store.artifacts import Collected

_FOLDER = "versions"


def _name(model: str, number: int) -> str:
    # "@" is in no model's name, so that no two versions share a folder.
    return f"{model.replace('/', '@')}@{number}"


def local_copy(state: RegistryState, version: Version, directory: Path, progress: Progress) -> Path:
    """The folder with the version's files; made when it is not there, or not what it should be any more."""
    folder = directory / _FOLDER / _name(version.draft.model, version.number)
    if folder.exists() and not _is_whole(folder, version):
        shutil.rmtree(folder)
    if not folder.exists():
        try:
            pull(state, version, folder, progress)
        except errors.Conflict:
            if not _is_whole(folder, version):  # another server fetched it at the same time
                raise
    return folder


def _is_whole(folder: Path, version: Version) -> bool:
    expected = {file.path: file.digest for file in version.draft.files}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return there == set(expected) and all(digest.of_file(folder / path) == wanted for path, wanted in expected.items())


def collect(state: RegistryState, registry: Registry, oldest: float, *, dry_run: bool) -> Collected:
    """Remove copies of versions that the registry does not have any more, unless an endpoint is served from them or
    they were made after ``oldest`` (seconds since 1970)."""
    known = {_name(model, number) for model, number in registry.numbers()}
    used = _used(state.records())
    done = Collected(0, 0)
    for folder in _folders(state.directory):
        if folder.name in known or folder.resolve() in used or folder.stat().st_mtime > oldest:
            continue
        files = [path for path in folder.rglob("*") if path.is_file()]
        done = Collected(done.blobs + len(files), done.size + sum(path.stat().st_size for path in files))
        if not dry_run:
            shutil.rmtree(folder)
    return done


def _folders(directory: Path) -> list[Path]:
    copies = directory / _FOLDER
    return [path for path in copies.iterdir() if path.is_dir()] if copies.is_dir() else []


def _used(records: Iterable[EndpointRecord]) -> set[Path]:
    """Every folder above what endpoints serve, or would go back to."""
    return {above for record in records for path in _paths(record) for above in path.resolve().parents}


def _paths(record: EndpointRecord) -> Iterator[Path]:
    yield from (Path(spec.artifact.path) for spec in record.deployments)
    if record.before is not None:
        yield from _paths(record.before)
