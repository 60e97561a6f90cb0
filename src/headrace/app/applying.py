"""From the text of a ``headrace.yaml`` to records of its endpoints: read, resolve, inspect."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from headrace.app import sources
from headrace.app.endpoint_documents import DeploymentEntry, document_of
from headrace.app.model_sources import check_sources, is_reference
from headrace.app.owned_state import OwnedState
from headrace.app.registered_models import resolved, with_registered
from headrace.app.settings import ServeSettings
from headrace.app.settings_file import parse_settings
from headrace.app.settings_layers import settings_of_file
from headrace.app.sources import Candidate, Failure
from headrace.app.state_location import Location
from headrace.core import errors
from headrace.core.endpoint_records import EndpointRecord, Owner
from headrace.core.endpoints import DeploymentSpec
from headrace.core.traffic import EndpointTraffic, TrafficPolicy

replace = msgspec.structs.replace


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
    candidates, failures = await asyncio.to_thread(sources.discover, settings)
    results = await sources.inspect(candidates, settings.trust) if candidates else []
    failures += [result for result in results if isinstance(result, Failure)]
    if failures:
        shown = "\n".join(f"endpoint {f.endpoint!r} version {f.version}: {f.reason}" for f in failures)
        raise errors.LoadFailed(f"nothing was changed:\n{shown}")
    return [renumbered(record, there) for record in records_of(candidates, results, settings.traffic, owner)]


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
    policies: Mapping[str, TrafficPolicy],
    owner: Owner,
) -> list[EndpointRecord]:
    """One record per endpoint, of what can be served of it."""
    found: dict[str, list[tuple[Candidate, DeploymentSpec]]] = {}
    for candidate, result in zip(candidates, results, strict=True):
        if isinstance(result, DeploymentSpec):
            found.setdefault(candidate.endpoint, []).append((candidate, result))
    return [_record(name, pairs, policies.get(name, TrafficPolicy()), owner) for name, pairs in found.items()]


def _record(
    name: str, pairs: Sequence[tuple[Candidate, DeploymentSpec]], policy: TrafficPolicy, owner: Owner
) -> EndpointRecord:
    entries: dict[str, DeploymentEntry] = {}
    targets: dict[str, str] = {}
    for candidate, spec in pairs:
        if candidate.served:
            version = candidate.version if candidate.numbered else None
            entries[candidate.deployment] = DeploymentEntry(candidate.model, candidate.settings, version)
            targets[candidate.deployment] = spec.id
    traffic = EndpointTraffic(policy, targets)
    return EndpointRecord(name, document_of(entries, policy), tuple(spec for _, spec in pairs), traffic, owner)


def renumbered(record: EndpointRecord, there: Mapping[str, EndpointRecord]) -> EndpointRecord:
    """A file that changed is another version: one that the endpoint does not have yet. Raises BadSettings when the
    versions are said to be what they are not."""
    known = {spec.id: spec for spec in there[record.name].deployments} if record.name in there else {}
    for spec in record.deployments:
        if spec.id not in known:
            same = [s for s in known.values() if s.artifact == spec.artifact]
            record = _with_version(record, spec, same[0].version) if same else record
            continue
        if known[spec.id].artifact.digest == spec.artifact.digest:
            continue
        if "deployments" in record.document or not spec.version.isdigit():
            raise errors.BadSettings(
                f"{spec.artifact.path} is not what endpoint {record.name!r} serves as version {spec.version}, and a"
                " version does not change: give it another number (version: N)"
            )
        taken = {int(s.version) for s in (*known.values(), *record.deployments) if s.version.isdigit()}
        record = _with_version(record, spec, str(max(taken) + 1))
    return record


def _with_version(record: EndpointRecord, spec: DeploymentSpec, version: str) -> EndpointRecord:
    renamed = replace(spec, version=version)
    deployments = tuple(renamed if s is spec else s for s in record.deployments)
    targets = {n: renamed.id if target == spec.id else target for n, target in record.traffic.targets.items()}
    return replace(record, deployments=deployments, traffic=EndpointTraffic(record.traffic.policy, targets))
