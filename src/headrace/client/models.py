"""The registry of a server: ``client.models`` of the synchronous client, one thin wrapper of ``AsyncModels``."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from pathlib import Path

from headrace.client.registry import AsyncModels, Progress
from headrace.client.running import Run
from headrace.core.versions import AliasMove, Event, ModelLine, Registration, Version, VersionView


def _ignore(what: str, count: int, total: int) -> None:
    return


class Models:
    """The registry behind a management port. Called, it names what is *served*: ``client.models()``.

    ``progress`` is called in another thread."""

    def __init__(self, models: AsyncModels, run: Run) -> None:
        self._async = models
        self._run = run

    def __call__(self) -> builtins.list[str]:
        """Names of what the server serves."""
        return self._run(self._async())

    def list(self) -> builtins.list[ModelLine]:
        """Every model of the registry, by name."""
        return self._run(self._async.list())

    def show(self, reference: str) -> VersionView:
        """The version that ``fraud@7``, ``fraud@champion`` or ``fraud`` (its newest) names. Raises UnknownModel."""
        return self._run(self._async.show(reference))

    def versions(self, model: str) -> builtins.list[VersionView]:
        """Every version of a model, oldest first. Raises UnknownModel."""
        return self._run(self._async.versions(model))

    def aliases(self, model: str) -> dict[str, int]:
        """Where each alias of a model points to. Raises UnknownModel."""
        return self._run(self._async.aliases(model))

    def history(self, model: str) -> builtins.list[AliasMove]:
        """Every step of every alias of a model, oldest first."""
        return self._run(self._async.history(model))

    def changes(self, model: str | None = None, limit: int | None = None) -> builtins.list[Event]:
        """The latest changes of everything, or of a model, newest first."""
        return self._run(self._async.changes(model, limit))

    def push(
        self,
        source: str | Path,
        model: str | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        golden: str | Path | None = None,
        reference: str | Path | None = None,
        trust: bool = False,
        alias: str = "",
        progress: Progress = _ignore,
    ) -> builtins.list[VersionView]:
        """Store the model, or the repository of models, at a path as new versions.

        ``golden``: requests with known answers (JSON lines); ``reference``: training data to compare with (Parquet);
        ``trust``: you vouch for the code that it brings. Raises InvalidInput, Unsupported for what is no model."""
        pushed = self._async.push(
            source,
            model,
            metadata=metadata,
            metrics=metrics,
            golden=golden,
            reference=reference,
            trust=trust,
            alias=alias,
            progress=progress,
        )
        return self._run(pushed)

    def register(
        self, model: str, wanted: Registration, sources: Mapping[str, Path], progress: Progress = _ignore
    ) -> VersionView:
        """Store files, given by their path in the version, and make a version of them."""
        return self._run(self._async.register(model, wanted, sources, progress))

    def alias(self, model: str, alias: str, version: str | int, *, why: str = "", expected: int | None = None) -> int:
        """Point an alias at a version (or where another alias points), and give its number.

        ``expected``: the number that it must point to until then. Raises UnknownModel, PreconditionFailed when it
        points elsewhere."""
        return self._run(self._async.alias(model, alias, version, why=why, expected=expected))

    def remove_alias(self, model: str, alias: str, *, why: str = "") -> None:
        """Raises UnknownModel when there is no such model or alias."""
        self._run(self._async.remove_alias(model, alias, why=why))

    def trust(self, reference: str) -> VersionView:
        """Vouch for the code that a version brings along."""
        return self._run(self._async.trust(reference))

    def distrust(self, reference: str, *, why: str = "") -> None:
        """Take that back, for every version with the same content."""
        self._run(self._async.distrust(reference, why=why))

    def delete(self, reference: str, *, every: bool = False, why: str = "") -> builtins.list[Version]:
        """Delete a version, or ``every`` version of a model. Raises Conflict when an alias points to one."""
        return self._run(self._async.delete(reference, every=every, why=why))

    def verify(self, reference: str) -> tuple[str, ...]:
        """Have the server compare every file of a version with its digest; what is wrong with them."""
        return self._run(self._async.verify(reference))

    def pull(self, reference: str, folder: str | Path | None = None, *, progress: Progress = _ignore) -> Path:
        """Write the files of a version into a new folder (MODEL-VERSION), which appears when all of them are verified.

        Raises Conflict when there is something already, Corrupted."""
        return self._run(self._async.pull(reference, folder, progress=progress))

    def fetch(self, version: Version, target: Path, progress: Progress = _ignore) -> None:
        """The same for a version that is known."""
        self._run(self._async.fetch(version, target, progress))

    def collect(self, grace_s: float = 86_400.0, *, dry_run: bool = False) -> tuple[int, int]:
        """Remove stored files that no version refers to and that are older; how many, and their bytes."""
        return self._run(self._async.collect(grace_s, dry_run=dry_run))
