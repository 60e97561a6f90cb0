"""What the commands of the registry ask for, wherever the registry is.

It is in a state that they open themselves, or behind a controller that owns it: both give the same answers and raise
the same errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from headrace.app.registry.pushing import Pushed, PushRequest
from headrace.app.registry.stored_versions import Verdict
from headrace.control.registry import Model, Story
from headrace.core.versions import Event, ModelLine, TrustGrant, Version, VersionView
from headrace.store.artifacts import Collected

Progress = Callable[[str, int, int], None]
"""What is being moved, bytes that were just moved, bytes in all (0: not known)."""


class ModelsService(Protocol):
    """Blocking. A ``reference`` is ``fraud@7``, ``fraud@champion`` or ``fraud``, its newest version."""

    def push(self, request: PushRequest, progress: Progress) -> list[Pushed]: ...
    def models(self) -> list[ModelLine]: ...
    def model(self, name: str) -> tuple[Model, Story]: ...
    def version(self, reference: str) -> VersionView: ...
    def move_alias(self, model: str, alias: str, choice: str, why: str) -> Version: ...
    def remove_alias(self, model: str, alias: str, why: str) -> None: ...
    def trust(self, reference: str) -> tuple[Version, TrustGrant | None]: ...
    def verify(self, references: Sequence[str], progress: Progress) -> list[Verdict]:
        """Of every version when there are no references; of all of a model when one names no version."""
        ...

    def delete(self, model: str, choice: str | None, why: str) -> list[Version]: ...
    def pull(self, reference: str, folder: Path | None, progress: Progress) -> tuple[Version, Path]:
        """The version and its new folder, by default MODEL-VERSION."""
        ...

    def collect(self, grace_s: float, *, dry_run: bool) -> Collected: ...
    def changes(self, limit: int, model: str | None) -> list[Event]: ...


def folder_of(version: Version) -> Path:
    """Where a version goes when no folder is named."""
    return Path(f"{version.draft.model.replace('/', '-')}-{version.number}")
