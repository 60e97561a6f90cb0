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


class Provenance(msgspec.Struct, frozen=True):
    """Where a version came from. ``at`` is in seconds since 1970 (UTC)."""

    who: str
    at: float
    source: str
    """What was pushed: a path or a URL."""
    git_sha: str | None = None
    """Commit of the repository that the source lies in."""
    packages: dict[str, str] = {}
    """Packages that the model says it was made with, by name."""
    metrics: dict[str, float] = {}
    metadata: dict[str, str] = {}


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


class Registration(msgspec.Struct, frozen=True):
    """What is asked to become a version: files that are stored, and what is said about them.

    Nothing in it is taken for granted: what the model is, is found out from the files."""

    path: str
    """Of the model among the files: a file, or the folder that holds it."""
    files: tuple[StoredFile, ...]
    source: str = ""
    attribute: str | None = None
    """For Python files: the class."""
    number: int | None = None
    """Of an imported repository; None: the next free one."""
    signature: Signature | None = None
    golden: str | None = None
    reference: str | None = None
    git_sha: str | None = None
    metrics: dict[str, float] = {}
    metadata: dict[str, str] = {}
    trusted: bool = False
    """Whoever asks vouches for the code that the model brings along."""
    alias: str = ""
    """To be pointed at the new version; empty: none."""


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


class VersionView(msgspec.Struct, frozen=True):
    """A version as things stand: the aliases that point to it, who vouches for its code, and whether that may run."""

    version: Version
    aliases: list[str]
    trust: TrustGrant | None
    runnable: bool


class ModelLine(msgspec.Struct, frozen=True):
    """A model in a list, short: ``newest`` is a number, what follows is about that version."""

    name: str
    versions: int
    newest: int
    format: str
    flavor: str | None
    size: int
    pushed_at: float
    pushed_by: str
    aliases: dict[str, int]

    @classmethod
    def of(cls, summary: Summary) -> ModelLine:
        newest, artifact = summary.newest, summary.newest.draft.artifact
        provenance = newest.draft.provenance
        return cls(
            name=summary.model,
            versions=summary.versions,
            newest=newest.number,
            format=artifact.format.value,
            flavor=artifact.flavor,
            size=newest.size,
            pushed_at=provenance.at,
            pushed_by=provenance.who,
            aliases=summary.aliases,
        )


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
