"""From what the user named to deployments: discover, inspect in a short-lived worker, check trust, build specs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from headrace.app import inspection
from headrace.app.settings import DeploymentSettings, ModelSource, ServeSettings
from headrace.core import errors, names
from headrace.core.endpoints import DeploymentSpec
from headrace.core.models import Artifact
from headrace.runtimes import repository, trust


class Candidate(msgspec.Struct, frozen=True):
    """A version found on disk, not yet inspected. ``served``: gets the endpoint's traffic."""

    endpoint: str
    version: str
    path: str
    attribute: str | None
    served: bool
    typed: bool
    """The user named this very file."""
    settings: DeploymentSettings
    registered: str | None = None
    """The version of the registry that this is a copy of."""


class Failure(msgspec.Struct, frozen=True):
    endpoint: str
    version: str
    reason: str


def discover(settings: ServeSettings) -> tuple[list[Candidate], list[Failure]]:
    """Everything the sources name, by listing folders only; what cannot be used does not keep the rest from serving."""
    found: dict[tuple[str, str], Candidate] = {}
    failures: list[Failure] = []
    for source in settings.models:
        try:
            candidates = _candidates(source, source.settings or settings.deployment)
        except errors.HeadraceError as error:
            failures.append(
                Failure(source.name or names.endpoint_from_path(Path(source.path).stem), "1", error.message)
            )
            continue
        for candidate in candidates:
            key = candidate.endpoint, candidate.version
            if key in found:
                reason = (
                    f"{found[key].path} is version {key[1]} of endpoint {key[0]!r} already;"
                    f" name this one, e.g. {key[0]}-2={candidate.path}"
                )
                failures.append(Failure(f"{key[0]}-2", key[1], reason))
            else:
                found[key] = candidate
    return list(found.values()), failures


def _candidates(source: ModelSource, settings: DeploymentSettings) -> list[Candidate]:
    found = repository.discover(Path(source.path))
    endpoints = {f.name for f in found}
    if source.name is not None and len(endpoints) > 1:
        raise errors.BadSettings(
            f"{source.path} holds {len(endpoints)} models ({', '.join(sorted(endpoints)[:5])}); it cannot be named"
            f" {source.name!r}: serve it without a name, or name one of its folders"
        )
    return [
        Candidate(
            endpoint=names.check_endpoint(source.name or f.name),
            version=names.check_version(source.registered.rpartition("@")[2] if source.registered else f.version),
            path=str(Path(f.path).absolute()),
            attribute=source.attribute or f.attribute,
            served=f.served,
            # A copy from the registry was not typed: its code is trusted when somebody said so there.
            typed=source.registered is None and Path(f.path).absolute() == Path(source.path).absolute(),
            settings=settings,
            registered=source.registered,
        )
        for f in found
    ]


async def inspect(candidates: Sequence[Candidate], trusted: Sequence[str]) -> list[DeploymentSpec | Failure]:
    """Inspect artifacts (one short-lived process for all) and check trust; one result per candidate, in order."""
    targets = [c.path if c.attribute is None else f"{c.path}:{c.attribute}" for c in candidates]
    results = await inspection.inspect_targets(targets)
    return [_judge(candidate, result, trusted) for candidate, result in zip(candidates, results, strict=True)]


def _judge(
    candidate: Candidate, result: Artifact | errors.HeadraceError, trusted: Sequence[str]
) -> DeploymentSpec | Failure:
    if isinstance(result, errors.HeadraceError):
        return Failure(candidate.endpoint, candidate.version, result.message)
    try:
        trust.check(result, trusted, typed_path=candidate.typed)
    except errors.HeadraceError as error:
        reason = error.message
        if candidate.registered is not None:
            reason = reason.replace(trust.command(result), f"headrace models trust {candidate.registered}")
        return Failure(candidate.endpoint, candidate.version, reason)
    settings = candidate.settings
    options = dict(settings.options)
    if trust.is_trusted(result, trusted, typed_path=candidate.typed):
        options[trust.OPTION] = "yes"
    return DeploymentSpec(
        endpoint=candidate.endpoint,
        version=candidate.version,
        artifact=result,
        replicas=settings.replicas,
        threads=settings.threads,
        isolation=settings.isolation,
        resources=settings.resources,
        batching=settings.batching,
        admission=settings.admission,
        idempotent=settings.idempotent,
        timeout_s=settings.timeout_s,
        replica_timeout_s=settings.replica_timeout_s,
        stream_stall_s=settings.stream_stall_s,
        warmup=settings.warmup,
        platform_options=options,
    )
