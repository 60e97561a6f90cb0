"""Models of the registry among the things to serve: ``fraud@champion`` becomes a verified copy on disk.

The copy is served like any path, under the version's number. A reference is resolved once, when serving begins: moving
an alias changes nothing that runs.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from headrace.app.registry.stored_versions import Progress
from headrace.app.registry.version_copies import local_copy
from headrace.app.settings.model_sources import is_reference
from headrace.app.settings.serve_settings import ModelSource, ServeSettings
from headrace.app.state.registry_state import Location, RegistryState, open_registry
from headrace.core import errors, names
from headrace.core.versions import Version


def with_registered(settings: ServeSettings, location: Location, progress: Progress) -> ServeSettings:
    """Replace references by copies below the state directory, and trust what is trusted in the registry.

    Raises UnknownModel, Corrupted, StoreFailed."""
    with open_registry(location) as state:
        return resolved(settings, state, location.directory, progress)


def resolved(settings: ServeSettings, state: RegistryState, directory: Path, progress: Progress) -> ServeSettings:
    """The same with an opened registry; copies are made below ``directory``."""
    models: list[ModelSource] = []
    trusted = list(settings.trust)
    for source in settings.models:
        if not is_reference(source):
            if (source.settings or settings.deployment).follow == "rollout":
                raise _no_alias(source)
            models.append(source)
            continue
        source = _following(source, settings)
        version = state.registry.resolve(source.path)
        models.append(_source(source, version, local_copy(state, version, directory, progress)))
        if state.registry.trust_in(version) is not None:
            trusted.append(version.draft.trust_digest)
    return msgspec.structs.replace(settings, models=tuple(models), trust=tuple(trusted))


def _following(source: ModelSource, settings: ServeSettings) -> ModelSource:
    """With the alias that is followed, which is resolved to a number now."""
    own = source.settings or settings.deployment
    if own.follow != "rollout":
        return source
    choice = names.split_reference(source.path)[1]
    if choice is None or choice.isdigit():
        raise _no_alias(source)
    return msgspec.structs.replace(source, settings=msgspec.structs.replace(own, follow=f"rollout:{choice}"))


def _no_alias(source: ModelSource) -> errors.BadSettings:
    return errors.BadSettings(
        f"follow: rollout needs a model that is named by an alias, e.g. model: fraud@champion; {source.path} is none"
    )


def _source(source: ModelSource, version: Version, folder: Path) -> ModelSource:
    artifact = version.draft.artifact
    return msgspec.structs.replace(
        source,
        path=str(folder / artifact.path),
        name=source.name or version.draft.model,
        attribute=artifact.attribute,
        registered=version.ref,
        requirements=None if version.draft.requirements is None else str(folder / version.draft.requirements),
    )
