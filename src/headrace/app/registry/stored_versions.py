"""Files of registered versions: brought back to disk, and verified where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from headrace.app.state.registry_state import RegistryState
from headrace.core import errors
from headrace.core.versions import Version
from headrace.runtimes import version_files

Progress = Callable[[str, int, int], None]
"""What is being moved, bytes that were just moved, bytes in all."""


class Verdict(msgspec.Struct, frozen=True):
    """``problems`` names every file of a version that is damaged or missing."""

    version: Version
    problems: tuple[str, ...]


def pull(state: RegistryState, version: Version, target: Path, progress: Progress) -> None:
    """Write the files of a version into the new folder ``target``, which appears when all of them are verified.

    Raises Conflict when there is something already, Corrupted, StorageFull, StoreFailed."""
    with version_files.new_folder(target) as folder:
        for file in version.draft.files:
            path = folder / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            state.artifacts.get(file.digest, path, lambda count: progress(version.ref, count, version.size))


def verify(state: RegistryState, versions: Iterable[Version], progress: Progress) -> Iterator[Verdict]:
    """Read every file of the versions and compare it with its digest."""
    for version in versions:
        problems = []
        for file in version.draft.files:
            try:
                state.artifacts.check(file.digest, lambda count: progress(version.ref, count, version.size))  # noqa: B023
            except errors.Corrupted as error:
                problems.append(f"{file.path}: {error.message}")
        yield Verdict(version, tuple(problems))
