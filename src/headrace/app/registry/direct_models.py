"""The registry's commands on a state that this process opens and, for changes, locks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from headrace.app.registry import collecting, pushing, stored_versions
from headrace.app.registry.models_service import Progress, folder_of
from headrace.app.registry.pushing import Pushed, PushRequest
from headrace.app.registry.stored_versions import Verdict
from headrace.app.state.registry_state import RegistryState
from headrace.control.registry import Model, Story
from headrace.core.versions import Event, ModelLine, TrustGrant, Version, VersionView
from headrace.store.artifacts import Collected


class DirectModels:
    """Implements ModelsService."""

    def __init__(self, state: RegistryState) -> None:
        self._state = state
        self._registry = state.registry

    def push(self, request: PushRequest, progress: Progress) -> list[Pushed]:
        return pushing.push(self._state, request, progress)

    def models(self) -> list[ModelLine]:
        return [ModelLine.of(summary) for summary in self._registry.models()]

    def model(self, name: str) -> tuple[Model, Story]:
        return self._registry.model(name), self._registry.story(name)

    def version(self, reference: str) -> VersionView:
        version = self._registry.resolve(reference)
        aliases = self._registry.model(version.draft.model).aliases_of(version.number)
        grant = self._registry.trust_in(version)
        return VersionView(version, aliases, grant, not version.draft.code_bearing or grant is not None)

    def move_alias(self, model: str, alias: str, choice: str, why: str) -> Version:
        with self._state.changing("headrace models alias") as registry:
            return registry.move_alias(model, alias, choice, why)

    def remove_alias(self, model: str, alias: str, why: str) -> None:
        with self._state.changing("headrace models alias") as registry:
            registry.remove_alias(model, alias, why)

    def trust(self, reference: str) -> tuple[Version, TrustGrant | None]:
        with self._state.changing("headrace models trust") as registry:
            version = registry.trust(reference)
            return version, registry.trust_in(version)

    def verify(self, references: Sequence[str], progress: Progress) -> list[Verdict]:
        return list(stored_versions.verify(self._state, list(self._versions(references)), progress))

    def _versions(self, references: Sequence[str]) -> Iterator[Version]:
        for reference in references or [model.model for model in self._registry.models()]:
            if "@" in reference:
                yield self._registry.resolve(reference)
            else:
                yield from self._registry.model(reference).versions

    def delete(self, model: str, choice: str | None, why: str) -> list[Version]:
        with self._state.changing("headrace models delete") as registry:
            return registry.delete(model, choice, why)

    def pull(self, reference: str, folder: Path | None, progress: Progress) -> tuple[Version, Path]:
        version = self._registry.resolve(reference)
        target = folder or folder_of(version)
        stored_versions.pull(self._state, version, target, progress)
        return version, target

    def collect(self, grace_s: float, *, dry_run: bool) -> Collected:
        with self._state.changing("headrace models gc") as registry:
            return collecting.collect(self._state, registry, grace_s, dry_run=dry_run)

    def changes(self, limit: int, model: str | None) -> list[Event]:
        return self._registry.changes(limit, model)
