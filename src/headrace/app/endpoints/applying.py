"""From the text of a ``headrace.yaml`` to records of its endpoints: read, resolve, inspect."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from headrace.app import sources
from headrace.app.endpoints.documents import DeploymentEntry, document_of
from headrace.app.endpoints.numbering import renumbered
from headrace.app.registry.registered_models import resolved, with_registered
from headrace.app.settings.file import parse_settings
from headrace.app.settings.layers import settings_of_file
from headrace.app.settings.model_sources import check_sources, check_trust, is_reference
from headrace.app.settings.serve_settings import EndpointSettings, ServeSettings
from headrace.app.sources import Candidate, Failure
from headrace.app.state.location import Location
from headrace.app.state.owned_state import OwnedState
from headrace.core import errors
from headrace.core.endpoint_records import EndpointRecord, Owner
from headrace.core.endpoints import DeploymentSpec
from headrace.core.traffic import EndpointTraffic


async def read(
    text: str,
    path: Path,
    owner: Owner,
    there: Mapping[str, EndpointRecord],
    location: Location,
    state: OwnedState | None,
) -> list[EndpointRecord]:
    """Records of every endpoint in the text of a file; ``path`` is for messages, and its folder what relative paths
    count from.

    Raises BadSettings that names file, line and column, UnknownModel, or what keeps a model from being served: all or
    nothing."""
    settings = settings_of_file(parse_settings(text, path))
    settings = await asyncio.to_thread(_with_registered, settings, location, state)
    check_sources(settings.models)
    check_trust(settings.trust)
    candidates, failures = await asyncio.to_thread(sources.discover, settings)
    results = await sources.inspect(candidates, settings.trust) if candidates else []
    failures += [result for result in results if isinstance(result, Failure)]
    if failures:
        shown = "\n".join(f"endpoint {f.endpoint!r} version {f.version}: {f.reason}" for f in failures)
        raise errors.LoadFailed(f"nothing was changed:\n{shown}")
    specs = [result for result in results if isinstance(result, DeploymentSpec)]
    found = renumbered(list(zip(candidates, specs, strict=True)), there)
    return records_of([c for c, _ in found], [s for _, s in found], settings, owner)


def _with_registered(settings: ServeSettings, location: Location, state: OwnedState | None) -> ServeSettings:
    if not any(map(is_reference, settings.models)):
        return settings
    if state is None:
        return with_registered(settings, location, _silent)
    return resolved(settings, state.registry, location.directory, _silent)


def _silent(what: str, done: int, total: int) -> None:
    """Nobody watches this transfer."""


def records_of(
    candidates: Sequence[Candidate],
    results: Sequence[DeploymentSpec | Failure],
    settings: ServeSettings,
    owner: Owner,
) -> list[EndpointRecord]:
    """One record per endpoint, of what can be served of it."""
    found: dict[str, list[tuple[Candidate, DeploymentSpec]]] = {}
    for candidate, result in zip(candidates, results, strict=True):
        if isinstance(result, DeploymentSpec):
            found.setdefault(candidate.endpoint, []).append((candidate, result))
    return [_record(name, pairs, settings.endpoint(name), owner) for name, pairs in found.items()]


def _record(
    name: str, pairs: Sequence[tuple[Candidate, DeploymentSpec]], settings: EndpointSettings, owner: Owner
) -> EndpointRecord:
    entries: dict[str, DeploymentEntry] = {}
    targets: dict[str, str] = {}
    several = sum(candidate.served for candidate, _ in pairs) > 1
    for candidate, spec in pairs:
        if candidate.served:
            # The number of the only model of an endpoint is nobody's business, unless somebody asked for it.
            version = candidate.version if candidate.asked or (candidate.numbered and several) else None
            entries[candidate.deployment] = DeploymentEntry(candidate.model, candidate.settings, version)
            targets[candidate.deployment] = spec.id
    traffic = EndpointTraffic(settings.policy, targets)
    return EndpointRecord(
        name, document_of(entries, settings), tuple(spec for _, spec in pairs), traffic, owner, slo=settings.slo
    )
