"""Which versions the models of a file are, beside those that their endpoint has already. Pure.

A version never changes what it is: a model that is there already keeps its number, one that changed gets a number that
was not given yet. What the file or the registry numbers stays as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import msgspec

from headrace.app.sources import Candidate
from headrace.core import errors
from headrace.core.endpoint_records import EndpointRecord
from headrace.core.endpoints import DeploymentSpec

replace = msgspec.structs.replace

Found = tuple[Candidate, DeploymentSpec]
"""A model of the file: where it was found, and what it is."""


def renumbered(found: Sequence[Found], there: Mapping[str, EndpointRecord]) -> list[Found]:
    """The same models, numbered. Raises BadSettings when a version is asked for that is another model already."""
    made: list[Found] = []
    for endpoint in dict.fromkeys(candidate.endpoint for candidate, _ in found):
        mine = [pair for pair in found if pair[0].endpoint == endpoint]
        made += _of_endpoint(mine, _versions(there.get(endpoint)))
    return made


def _versions(record: EndpointRecord | None) -> dict[str, DeploymentSpec]:
    """Those that serve or shall serve, and those that come back when what shall serve cannot load."""
    if record is None:
        return {}
    older = () if record.before is None else record.before.deployments
    return {spec.version: spec for spec in (*older, *record.deployments)}


def _of_endpoint(found: Sequence[Found], known: Mapping[str, DeploymentSpec]) -> list[Found]:
    fixed = [pair for pair in found if _is_fixed(pair[0])]
    for _, spec in fixed:
        _check_unchanged(spec, known.get(spec.version))
    taken = {spec.version for _, spec in fixed}
    numbers: dict[str, str] = {}
    for candidate, spec in (pair for pair in found if not _is_fixed(pair[0])):
        number = _kept(spec, known, taken) or _own(candidate, spec, known, taken)
        if number:
            numbers[spec.version] = number
            taken.add(number)
    highest = max((int(version) for version in (*known, *taken) if version.isdigit()), default=0)
    free = (str(number) for number in itertools.count(highest + 1))
    for candidate, spec in found:
        if not _is_fixed(candidate) and spec.version not in numbers:
            numbers[spec.version] = next(free)
    return [(c, s) if _is_fixed(c) else _numbered(c, s, numbers[s.version]) for c, s in found]


def _is_fixed(candidate: Candidate) -> bool:
    return candidate.asked or candidate.registered is not None or not candidate.version.isdigit()


def _check_unchanged(spec: DeploymentSpec, known: DeploymentSpec | None) -> None:
    if known is not None and known.artifact.digest != spec.artifact.digest:
        raise errors.BadSettings(
            f"{spec.artifact.path} is not what endpoint {spec.endpoint!r} serves as version {spec.version}, and a"
            " version does not change: give it another number (version: N)"
        )


def _kept(spec: DeploymentSpec, known: Mapping[str, DeploymentSpec], taken: set[str]) -> str | None:
    """The version that this model is already; of two that are alike the one of its number, so that nothing moves that
    need not."""
    same = [s.version for s in known.values() if s.artifact == spec.artifact and s.version not in taken]
    return spec.version if spec.version in same else next(iter(same), None)


def _own(
    candidate: Candidate, spec: DeploymentSpec, known: Mapping[str, DeploymentSpec], taken: set[str]
) -> str | None:
    """The number that a folder gives; a single file gives none that would mean anything once there are versions."""
    if spec.version in taken or spec.version in known or (known and candidate.typed):
        return None
    return spec.version


def _numbered(candidate: Candidate, spec: DeploymentSpec, version: str) -> Found:
    return replace(candidate, version=version), replace(spec, version=version)
