"""What the registry keeps: versions of models, aliases, trust and events, as values.

A version is immutable: its number, its files and where it came from never change once it is registered.
"""

from __future__ import annotations

import msgspec

from headrace.core.models import Artifact, Signature


class StoredFile(msgspec.Struct, frozen=True):
    """One file of a version. ``path`` is relative, with ``/``; ``digest`` is ``sha256:`` + hex; ``size`` in bytes."""

    path: str
    digest: str
    size: int


class Origin(msgspec.Struct, frozen=True):
    """The run of an experiment tracker (MLflow) that a model came from, as it was told when it was pushed."""

    uri: str
    """The model there, with its alias resolved: ``models:/fraud/3``, ``runs:/RUN_ID/model``."""
    server: str
    """Address of the tracker, without credentials."""
    run_id: str | None = None
    params: dict[str, str] = {}
    tags: dict[str, str] = {}


class Provenance(msgspec.Struct, frozen=True):
    """Where a version came from. ``at`` is in seconds since 1970 (UTC)."""

    who: str
    at: float
    source: str
    """What was pushed: a path or a URL, as it was given."""
    git_sha: str | None = None
    """Commit of the repository that the source lies in, or that the run was started from."""
    packages: dict[str, str] = {}
    """Packages that the model says it was made with, by name."""
    metrics: dict[str, float] = {}
    metadata: dict[str, str] = {}
    origin: Origin | None = None
    """For models out of an experiment tracker."""


class Draft(msgspec.Struct, frozen=True):
    """A version that is inspected and whose files are stored, but that has no number yet."""

    model: str
    artifact: Artifact
    """Its ``path`` is relative to the version's files."""
    files: tuple[StoredFile, ...]
    provenance: Provenance
    signature: Signature | None = None
    golden: str | None = None
    """Path of the golden requests among the files."""
    reference: str | None = None
    """Path of the reference data among the files."""
    requirements: str | None = None
    """Path of the packages that it asks for (pip's ``requirements.txt``) among the files."""


class Version(msgspec.Struct, frozen=True):
    """A registered version of a model."""

    number: int
    draft: Draft

    @property
    def ref(self) -> str:
        """How people name it: ``fraud@7``."""
        return f"{self.draft.model}@{self.number}"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.draft.files)


class Summary(msgspec.Struct, frozen=True):
    """A model in a list: how many versions it has, the newest of them, and where its aliases point to."""

    model: str
    versions: int
    newest: Version
    aliases: dict[str, int]


class AliasMove(msgspec.Struct, frozen=True):
    """One step in an alias's history; ``version`` None: it was removed."""

    alias: str
    version: int | None
    before: int | None
    who: str
    at: float


class TrustGrant(msgspec.Struct, frozen=True):
    """Somebody vouched for the code in an artifact."""

    digest: str
    who: str
    at: float


class Event(msgspec.Struct, frozen=True):
    """A change of the registry: who did what to what, and what it was before and after (JSON values)."""

    at: float
    who: str
    what: str
    """Verb of the change: ``version.push``, ``alias.move``, …"""
    subject: str
    before: dict[str, str | int | None] | None = None
    after: dict[str, str | int | None] | None = None
    why: str = ""
