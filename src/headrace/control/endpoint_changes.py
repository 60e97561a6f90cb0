"""What applying endpoints would change, and whether the one who asks may change it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from headrace.core import errors
from headrace.core.endpoint_records import Document, EndpointRecord, Owner, OwnerKind


class ChangeKind(StrEnum):
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    NONE = "none"


class FieldChange(msgspec.Struct, frozen=True):
    """One value of a document. ``path``: ``deployments.champion.replicas``; None: it is not there."""

    path: str
    before: Any
    after: Any


class EndpointChange(msgspec.Struct, frozen=True):
    """What would happen to an endpoint. ``generation``: the one this was worked out for."""

    endpoint: str
    kind: ChangeKind
    fields: tuple[FieldChange, ...]
    generation: int
    owner: Owner
    """Who decides its traffic afterwards."""
    taken_from: Owner | None = None
    """Who decides it now, if it is another."""


def differences(
    wanted: Mapping[str, Document], there: Mapping[str, EndpointRecord], owner: Owner
) -> tuple[EndpointChange, ...]:
    """By name. What the same file asked for before and does not name any more is deleted; other endpoints stay."""
    changes = [_change(name, document, there.get(name), owner) for name, document in wanted.items()]
    for name, record in there.items():
        if name not in wanted and owner.kind is OwnerKind.FILE and record.owner == owner:
            gone = tuple(_fields("", record.document, {}))
            changes.append(EndpointChange(name, ChangeKind.DELETE, gone, record.generation, owner))
    return tuple(sorted(changes, key=lambda change: change.endpoint))


def _change(name: str, document: Document, record: EndpointRecord | None, owner: Owner) -> EndpointChange:
    if record is None:
        return EndpointChange(name, ChangeKind.CREATE, tuple(_fields("", {}, document)), 0, owner)
    fields = tuple(_fields("", record.document, document))
    other = record.owner if record.owner != owner else None
    kind = ChangeKind.UPDATE if fields or other else ChangeKind.NONE
    return EndpointChange(name, kind, fields, record.generation, owner, other)


def check_owner(changes: Sequence[EndpointChange], *, take_over: bool) -> None:
    """Raises Conflict that names the owner when somebody else decides the traffic of an endpoint."""
    if take_over:
        return
    for change in changes:
        if change.taken_from is not None:
            raise owned_by_another(change.endpoint, change.taken_from)


def owned_by_another(endpoint: str, owner: Owner) -> errors.Conflict:
    what = {
        OwnerKind.MANUAL: "was set by hand",
        OwnerKind.FILE: f"belongs to the file {owner.name}",
        OwnerKind.ROLLOUT: f"belongs to the rollout {owner.name}; wait for its end, or abort it",
        OwnerKind.EXPERIMENT: f"belongs to the experiment {owner.name}; stop it (headrace experiment stop {endpoint})",
    }[owner.kind]
    return errors.Conflict(f"the traffic of endpoint {endpoint!r} {what}; use --take-over to decide it from now on")


def _fields(path: str, before: Any, after: Any) -> Iterator[FieldChange]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from _fields(f"{path}.{key}" if path else str(key), before.get(key), after.get(key))
    elif isinstance(after, dict) and before is None and after:
        yield from _fields(path, {}, after)
    elif isinstance(before, dict) and after is None and before:
        yield from _fields(path, before, {})
    elif before != after:
        yield FieldChange(path, before, after)
