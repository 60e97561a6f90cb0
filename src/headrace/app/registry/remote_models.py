"""The registry's commands through the management API of the controller that owns it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from headrace.app.registry.models_service import Progress, folder_of
from headrace.app.registry.pushing import Pushed, PushRequest, prepared
from headrace.app.registry.stored_versions import Verdict
from headrace.client.models import Models
from headrace.control.registry import Model, Story
from headrace.core.versions import Event, ModelLine, TrustGrant, Version, VersionView
from headrace.store.artifacts import Collected


class RemoteModels:
    """Implements ModelsService."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def push(self, request: PushRequest, progress: Progress) -> list[Pushed]:
        pushed = []
        with prepared(request, progress) as found:
            for entry in found:
                view = self._models.register(entry.model, entry.registration, entry.sources, progress)
                pushed.append(Pushed(view.version, view.runnable, entry.notes))
        return pushed

    def models(self) -> list[ModelLine]:
        return self._models.list()

    def model(self, name: str) -> tuple[Model, Story]:
        versions = tuple(view.version for view in self._models.versions(name))
        model = Model(name, versions, self._models.aliases(name))
        changes = reversed(self._models.changes(name))
        return model, Story(tuple(self._models.history(name)), tuple(changes))

    def version(self, reference: str) -> VersionView:
        return self._models.show(reference)

    def move_alias(self, model: str, alias: str, choice: str, why: str) -> Version:
        number = self._models.alias(model, alias, choice, why=why)
        return self._models.show(f"{model}@{number}").version

    def remove_alias(self, model: str, alias: str, why: str) -> None:
        self._models.remove_alias(model, alias, why=why)

    def trust(self, reference: str) -> tuple[Version, TrustGrant | None]:
        view = self._models.trust(reference)
        return view.version, view.trust

    def verify(self, references: Sequence[str], progress: Progress) -> list[Verdict]:
        verdicts = []
        for version in list(self._versions(references)):
            progress(version.ref, 0, version.size)
            verdicts.append(Verdict(version, self._models.verify(version.ref)))
            progress(version.ref, version.size, version.size)
        return verdicts

    def _versions(self, references: Sequence[str]) -> Iterator[Version]:
        for reference in references or [line.name for line in self._models.list()]:
            if "@" in reference:
                yield self._models.show(reference).version
            else:
                yield from (view.version for view in self._models.versions(reference))

    def delete(self, model: str, choice: str | None, why: str) -> list[Version]:
        reference = model if choice is None else f"{model}@{choice}"
        return self._models.delete(reference, every=choice is None, why=why)

    def pull(self, reference: str, folder: Path | None, progress: Progress) -> tuple[Version, Path]:
        version = self._models.show(reference).version
        target = folder or folder_of(version)
        self._models.fetch(version, target, progress)
        return version, target

    def collect(self, grace_s: float, *, dry_run: bool) -> Collected:
        return Collected(*self._models.collect(grace_s, dry_run=dry_run))

    def changes(self, limit: int, model: str | None) -> list[Event]:
        return self._models.changes(model, limit)
