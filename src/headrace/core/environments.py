"""The environment that a version's replicas run in, as a value: what is installed in it and what it is known by."""

from __future__ import annotations

import hashlib

import msgspec

REQUIREMENTS = "requirements.txt"
"""The file that gives a version an environment of its own."""

MANIFEST = "environment.json"
"""In a complete environment: what it is. Code that runs in there can tell by it."""


class EnvironmentSpec(msgspec.Struct, frozen=True):
    """An environment to build, or that was built before: the same ``key`` is the same content.

    ``requirements`` are lines of the version's ``requirements.txt`` in their normal form; ``needs`` is what the worker
    itself imports, resolved together with them."""

    key: str
    requirements: tuple[str, ...]
    needs: tuple[str, ...]
    source_builds: bool = False
    """Packages without a wheel are built, which runs code of their authors."""

    @property
    def short(self) -> str:
        """The key for people: enough of it to tell environments apart."""
        return self.key[:12]


def trust_digest(artifact: str, requirements: str | None) -> str:
    """What is vouched for: an artifact alone, or with the packages that it asks for, whose code runs beside it.

    Both are ``sha256:…`` digests; of the two the result is the digest of their ``sha256sum`` listing."""
    if requirements is None:
        return artifact
    listed = {"model": artifact, REQUIREMENTS: requirements}
    listing = "".join(f"{digest.removeprefix('sha256:')}  {name}\n" for name, digest in listed.items())
    return f"sha256:{hashlib.sha256(listing.encode()).hexdigest()}"
