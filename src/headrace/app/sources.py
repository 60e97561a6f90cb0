"""From what the user named to deployments: discover, inspect in a short-lived worker, check trust, build specs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from headrace.app import inspection
from headrace.app.registry import required_packages
from headrace.app.registry.required_packages import RequiredPackages
from headrace.app.settings.serve_settings import DeploymentSettings, ModelSource, ServeSettings
from headrace.core import errors, names
from headrace.core.endpoints import DeploymentSpec
from headrace.core.models import Artifact
from headrace.core.traffic import MAIN
from headrace.runtimes import repository, trust


class Candidate(msgspec.Struct, frozen=True):
    """A version found on disk, not yet inspected. ``served``: gets the traffic of its deployment."""

    endpoint: str
    version: str
    path: str
    attribute: str | None
    served: bool
    typed: bool
    """The user named this very file."""
    settings: DeploymentSettings
    deployment: str = MAIN
    registered: str | None = None
    """The version of the registry that this is a copy of."""
    model: str = ""
    """How a document names where it comes from: ``fraud@7``, or an absolute path with its class."""
    numbered: bool = False
    """The version was asked for, or given because there are several deployments: the model brings none itself."""
    asked: bool = False
    """The version was asked for."""
    requirements: str | None = None
    """The ``requirements.txt`` that the version brings along."""
    source_builds: bool = False
    """Its packages may be built where they have no wheel."""


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
            candidates = _candidates(source, source.settings or settings.deployment, settings.source_builds)
        except errors.HeadraceError as error:
            name = source.name or names.endpoint_from_path(Path(source.path).stem)
            failures.append(Failure(name, source.version or source.default_version, error.message))
            continue
        for candidate in candidates:
            key = candidate.endpoint, candidate.version
            if key in found:
                failures.append(_taken(found[key], candidate))
            else:
                found[key] = candidate
    return list(found.values()), failures


def _taken(first: Candidate, second: Candidate) -> Failure:
    """Two models of one version."""
    endpoint, version = second.endpoint, second.version
    reason = f"{first.path} is version {version} of endpoint {endpoint!r} already; "
    if first.deployment == second.deployment:
        return Failure(f"{endpoint}-2", version, f"{reason}name this one, e.g. {endpoint}-2={second.path}")
    reason += f"give deployment {second.deployment!r} another one (version: N)"
    return Failure(f"{endpoint}-{second.deployment}", version, reason)


def _candidates(source: ModelSource, settings: DeploymentSettings, source_builds: bool) -> list[Candidate]:
    found = repository.discover(Path(source.path))
    endpoints = {f.name for f in found}
    if source.name is not None and len(endpoints) > 1:
        raise errors.BadSettings(
            f"{source.path} holds {len(endpoints)} models ({', '.join(sorted(endpoints)[:5])}); it cannot be named"
            f" {source.name!r}: serve it without a name, or name one of its folders"
        )
    candidates = [
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
            model=_document_model(source, f.name if len(endpoints) > 1 else ""),
            requirements=source.requirements or f.requirements,
            source_builds=source_builds,
        )
        for f in found
    ]
    return candidates if source.deployment is None else [_of_deployment(source, source.deployment, candidates)]


def _document_model(source: ModelSource, folder: str) -> str:
    """``folder``: the model's own, of a repository that holds several."""
    if source.registered is not None:
        return source.registered
    path = Path(source.path).absolute() / folder
    return f"{path}:{source.attribute}" if source.attribute else str(path)


def _of_deployment(source: ModelSource, name: str, candidates: list[Candidate]) -> Candidate:
    """The one version that a named deployment serves: as the file says, else what a folder would serve by itself."""
    replace = msgspec.structs.replace
    if len(candidates) == 1 and candidates[0].typed:
        version = source.version or source.default_version
        asked = source.version is not None
        return replace(candidates[0], version=version, deployment=name, numbered=True, asked=asked)
    if source.version is not None:
        fitting = [replace(c, served=True) for c in candidates if c.version == source.version]
    else:
        fitting = [c for c in candidates if c.served]
    if len(fitting) != 1:
        versions = ", ".join(c.version for c in candidates)
        raise errors.BadSettings(
            f"deployment {name!r} of endpoint {source.name!r} serves one version, and {source.path} has {versions};"
            " choose with version: N"
        )
    asked = source.version is not None
    return replace(fitting[0], deployment=name, numbered=asked, asked=asked)


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
    settings = candidate.settings
    try:
        packages = _packages(candidate)
        if packages is not None:
            trusted = _with_packages(candidate, result, packages, trusted)
        trust.check(result, trusted, typed_path=candidate.typed)
    except errors.HeadraceError as error:
        reason = error.message
        if candidate.registered is not None:
            reason = reason.replace(trust.command(result), f"headrace models trust {candidate.registered}")
        return Failure(candidate.endpoint, candidate.version, reason)
    options = dict(settings.options)
    if trust.is_trusted(result, trusted, typed_path=candidate.typed):
        options[trust.OPTION] = "yes"
    environment = None
    if packages is not None:
        environment = required_packages.environment(result, packages.lines, source_builds=candidate.source_builds)
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
        lazy=settings.lazy,
        platform_options=options,
        environment=environment,
        vouched=_vouched(candidate, result, packages),
    )


def _vouched(candidate: Candidate, artifact: Artifact, packages: RequiredPackages | None) -> str:
    """What must be trusted for it wherever else it is served, but for what is trusted in the registry."""
    if candidate.registered is not None:
        return ""
    if packages is not None and not packages.named:
        return packages.trust_digest(artifact)
    if not artifact.code_bearing or trust.is_trusted(artifact, (), typed_path=candidate.typed):
        return ""
    return artifact.digest


def _packages(candidate: Candidate) -> RequiredPackages | None:
    """What the version's environment has, or the one that the user wants for versions without; None for neither."""
    if candidate.requirements is not None and (candidate.registered or candidate.settings.requirements is None):
        return required_packages.read(Path(candidate.requirements), named=False)
    if candidate.settings.requirements is not None:
        return required_packages.read(Path(candidate.settings.requirements), named=True)
    return None


def _with_packages(
    candidate: Candidate, artifact: Artifact, packages: RequiredPackages, trusted: Sequence[str]
) -> Sequence[str]:
    """What is trusted for this artifact, given that its packages are; raise UntrustedArtifact when they are not."""
    if not packages.is_trusted(artifact, trusted):
        refusal = packages.refusal(artifact)
        if candidate.registered is not None:
            refusal = refusal.replace(packages.command(artifact), f"headrace models trust {candidate.registered}")
        raise errors.UntrustedArtifact(refusal)
    # Who vouched for both together vouched for each.
    return [*trusted, artifact.digest] if packages.trust_digest(artifact) in trusted else trusted
