"""Which environments of versions are still asked for, and removing the others."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from headrace.app.registry import required_packages
from headrace.app.state.registry_state import RegistryState
from headrace.backends.environments.folder import EnvironmentsFolder
from headrace.core import errors
from headrace.core.versions import Version


class Removed(msgspec.Struct, frozen=True):
    """``keys`` of environments that were removed, ``kept`` of those that a server uses; ``size`` in bytes."""

    keys: tuple[str, ...]
    kept: tuple[str, ...]
    size: int


def find(folder: EnvironmentsFolder, prefix: str) -> str:
    """The key that begins with ``prefix``. Raises InvalidInput when there is none, or more than one."""
    keys = [environment.spec.key for environment in folder.listing() if environment.spec.key.startswith(prefix)]
    if len(keys) == 1 and prefix:
        return keys[0]
    what = "several begin with that" if keys else "there is none"
    raise errors.InvalidInput(f"environment {prefix!r}: {what}; headrace environments list shows them")


def collect(state: RegistryState, folder: EnvironmentsFolder, *, dry_run: bool) -> Removed:
    """Remove environments that no version of the registry would use with this build of Headrace, and what killed builds
    left. Those that a server uses stay."""
    wanted = set(_wanted(state))
    there = {environment.spec.key for environment in folder.listing()}
    return remove(folder, sorted((there | folder.leftovers()) - wanted), dry_run=dry_run)


def remove(folder: EnvironmentsFolder, keys: list[str], *, dry_run: bool = False) -> Removed:
    """Remove these, except those that a server uses."""
    removed, kept, size = [], [], 0
    for key in keys:
        bytes_of_it = folder.size(key)
        if folder.in_use(key) if dry_run else not folder.remove(key):
            kept.append(key)
        else:
            removed.append(key)
            size += bytes_of_it
    return Removed(tuple(removed), tuple(kept), size)


def _wanted(state: RegistryState) -> Iterator[str]:
    registry = state.registry
    for model in registry.models():
        for version in registry.model(model.model).versions:
            if version.draft.requirements is None:
                continue
            lines = _requirements(state, version)
            for source_builds in (False, True):
                yield required_packages.environment(version.draft.artifact, lines, source_builds=source_builds).key


def _requirements(state: RegistryState, version: Version) -> tuple[str, ...]:
    stored = next(file for file in version.draft.files if file.path == version.draft.requirements)
    with tempfile.TemporaryDirectory(prefix="headrace-requirements-") as temporary:
        path = Path(temporary) / stored.path
        state.artifacts.get(stored.digest, path, lambda _: None)
        return required_packages.read(path, named=False).lines
