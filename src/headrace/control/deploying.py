"""``headrace deploy``: a version of the registry under an endpoint, without a file. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.control.endpoint_changes import owned_by_another
from headrace.core import errors, names
from headrace.core.endpoint_records import (
    MANUAL,
    OF_ENDPOINT,
    Document,
    EndpointRecord,
    OwnerKind,
    entries,
    with_entry,
)
from headrace.core.traffic import MAIN

MAX_REPLICAS = 1024


class Deploy(msgspec.Struct, frozen=True):
    """What is asked for. None: as it is, or the default of what is new."""

    endpoint: str
    model: str
    """``fraud@7`` or ``fraud@champion``."""
    deployment: str | None = None
    """Name under the endpoint; None: its only one."""
    replicas: int | None = None
    lazy: bool | None = None
    take_over: bool = False
    """Decide the traffic of an endpoint that another decides now."""

    def __post_init__(self) -> None:
        names.check_endpoint(self.endpoint)
        if self.deployment is not None:
            names.check_deployment(self.deployment)
        model, choice = names.split_reference(self.model)
        if choice is None:
            raise errors.BadSettings(f"{self.model!r} names no version: write {model}@7 or {model}@champion")
        if self.replicas is not None and not 0 <= self.replicas <= MAX_REPLICAS:
            raise errors.BadSettings(f"replicas: expected a number from 0 to {MAX_REPLICAS}, got {self.replicas}")


def document_for(wanted: Deploy, record: EndpointRecord | None) -> Document:
    """The document of the endpoint afterwards; ``record`` is what is there. Of a deployment that is there everything
    but its version stays; it follows no alias any more. A new one beside others gets no requests yet.

    Raises BadSettings when there are several and none is named."""
    asked: dict[str, Any] = {"model": wanted.model, "replicas": wanted.replicas, "lazy": wanted.lazy}
    entry = {key: value for key, value in asked.items() if value is not None}
    if record is None:
        name = wanted.deployment or MAIN
        return entry if name == MAIN else {"deployments": {name: entry}}
    there = entries(record.document)
    if wanted.deployment is None and len(there) != 1:
        raise errors.BadSettings(
            f"endpoint {record.name!r} has several deployments; say which gets the version:"
            f" --deployment {' | '.join(there)}"
        )
    name = wanted.deployment or next(iter(there))
    if name not in there:
        return _beside(record.document, name, entry)
    kept = {key: value for key, value in there[name].items() if key not in ("version", "follow")}
    return with_entry(record.document, name, kept | entry)


def _beside(document: Document, name: str, entry: Document) -> Document:
    if "deployments" not in document:
        shared = {key: value for key, value in document.items() if key in OF_ENDPOINT}
        only = {key: value for key, value in document.items() if key not in OF_ENDPOINT}
        document = {"deployments": {MAIN: only}, "traffic": {MAIN: 1}, **shared}
    return {**document, "deployments": {**document["deployments"], name: entry}}


def check_free(wanted: Deploy, record: EndpointRecord | None) -> None:
    """Raises Conflict that names the owner when somebody else decides the traffic."""
    if record is None or record.owner == MANUAL or wanted.take_over:
        return
    refusal = owned_by_another(record.name, record.owner)
    if record.owner.kind is not OwnerKind.FILE:
        raise refusal
    raise errors.Conflict(
        f"{refusal.message}. A rollout moves it to the version without that:"
        f" headrace rollout start {record.name} --to {wanted.model}"
    )
