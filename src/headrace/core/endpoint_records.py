"""What the state keeps of an endpoint: what was asked for, what it came to, and who decides its traffic.

A record is replaced as a whole, under a number that only grows; so that of two writers who read the same one, one is
told."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from headrace.core import errors
from headrace.core.endpoints import DeploymentSpec
from headrace.core.slo import Slo
from headrace.core.traffic import MAIN, EndpointTraffic

Document = dict[str, Any]
"""An endpoint as in ``endpoints.NAME`` of ``headrace.yaml``, complete in itself, with absolute paths and with
versions of the registry by number."""


OF_ENDPOINT = ("fallback", "rollout", "slo")
"""Keys that may stand beside the only model of an endpoint, and are no settings of its deployment."""


def entries(document: Document) -> dict[str, Document]:
    """A document's deployments by name; one that names none has ``main``."""
    found: dict[str, Document] = document.get("deployments", {MAIN: document})
    return found


def with_entry(document: Document, name: str, entry: Document) -> Document:
    """The document with another entry for a deployment that it has."""
    if "deployments" not in document:
        return entry
    return {**document, "deployments": {**document["deployments"], name: entry}}


class OwnerKind(StrEnum):
    """Who may change an endpoint's traffic; others must take it over."""

    MANUAL = "manual"
    """Whoever gives commands."""
    FILE = "file"
    """A file that is applied."""
    ROLLOUT = "rollout"
    EXPERIMENT = "experiment"


class Owner(msgspec.Struct, frozen=True):
    """``name``: the path of the file, the id of the rollout or experiment; empty for manual."""

    kind: OwnerKind
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind.value} {self.name}".strip()


MANUAL = Owner(OwnerKind.MANUAL)


class EndpointRecord(msgspec.Struct, frozen=True):
    """An endpoint as it shall be. ``deployments`` are all its versions that run, ``traffic`` who gets its requests."""

    name: str
    document: Document
    deployments: tuple[DeploymentSpec, ...]
    traffic: EndpointTraffic
    owner: Owner = MANUAL
    generation: int = 0
    """Grows with every change; 0: not kept yet."""
    who: str = ""
    at: float = 0.0
    """Of the last change, in seconds since 1970 (UTC)."""
    paused: str = ""
    """Why it refuses requests; empty: it does not."""
    slo: Slo = Slo()
    before: EndpointRecord | None = None
    """What serves until the replicas of this record have loaded, and again when they cannot."""

    @property
    def vouched(self) -> list[str]:
        """What ``trust`` of a file with this endpoint must name."""
        return sorted({spec.vouched for spec in self.deployments if spec.vouched})

    def deployment(self, deployment_id: str) -> DeploymentSpec | None:
        return next((spec for spec in self.deployments if spec.id == deployment_id), None)

    def named(self, name: str) -> DeploymentSpec:
        """The version that shall serve under this name. Raises UnknownModel."""
        spec = self.deployment(self.traffic.targets.get(name, ""))
        if spec is None:
            raise errors.UnknownModel(
                f"endpoint {self.name!r} has no deployment {name!r}; it has: {', '.join(self.traffic.targets)}"
            )
        return spec

    def at_work(self, spec: DeploymentSpec) -> DeploymentSpec:
        """A deployment as its replicas are to be started: nobody waits for answers of one that is only mirrored to, so
        it must not take processors from those that callers wait for. What a rollout mirrors to is judged by its times
        and shares as the others do; the document does not know that name."""
        names = {name for name, target in self.traffic.targets.items() if target == spec.id}
        mirrored = {shadow.deployment for shadow in self.traffic.policy.shadows} & entries(self.document).keys()
        yields = bool(names) and names <= mirrored and not names & self.traffic.policy.asked
        return msgspec.structs.replace(spec, yields=yields)

    def settled(self) -> EndpointRecord:
        """The same without a way back."""
        return msgspec.structs.replace(self, before=None)
