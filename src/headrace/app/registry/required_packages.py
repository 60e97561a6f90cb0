"""From a version's ``requirements.txt`` to the environment that it asks for, and whether its packages may run.

Packages are code like a pickle: those of a version that nobody vouched for are not even fetched. A file that the user
named in a setting is vouched for by that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from headrace.backends.environments import requirements, specification
from headrace.core import errors
from headrace.core.environments import EnvironmentSpec, trust_digest
from headrace.core.models import Artifact
from headrace.runtimes import needs, trust


class RequiredPackages(msgspec.Struct, frozen=True):
    """A ``requirements.txt`` as it was read, once: what is trusted is what gets installed."""

    path: str
    digest: str
    lines: tuple[str, ...]
    named: bool
    """The user named this file in a setting."""

    def trust_digest(self, artifact: Artifact) -> str:
        """What ``--trust`` names for the artifact together with these packages."""
        return trust_digest(artifact.digest, self.digest)

    def is_trusted(self, artifact: Artifact, trusted: Sequence[str]) -> bool:
        if self.named or self.trust_digest(artifact) in trusted:
            return True
        return trust.covers(Path(self.path), trusted)

    def refusal(self, artifact: Artifact) -> str:
        """Why they are not installed, and how to go on."""
        return (
            f"{self.path} asks for packages, whose code would run beside the model\n"
            f"  digest: {self.trust_digest(artifact)} (model and packages)\n"
            f"  it would install: {trust.shortened(self.lines)}\n"
            f"  if you know where it comes from: {self.command(artifact)}"
        )

    def command(self, artifact: Artifact) -> str:
        """The command line that serves both as trusted."""
        return trust.command(msgspec.structs.replace(artifact, digest=self.trust_digest(artifact)))


def read(path: Path, *, named: bool) -> RequiredPackages:
    """Raises InvalidInput that says which line is wrong."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise errors.InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return RequiredPackages(str(path), digest, requirements.parse(content, str(path)), named)


def environment(artifact: Artifact, lines: Sequence[str], *, source_builds: bool) -> EnvironmentSpec:
    """The environment in which a worker can load the artifact beside these packages."""
    named = {requirements.name_of(line) for line in lines}
    return specification.specify(lines, needs.of(artifact, named), source_builds=source_builds)
