"""Aliases that deployments follow: ``follow: rollout`` beside ``model: fraud@champion``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from headrace.app.state.location import Location
from headrace.app.state.owned_state import OwnedState
from headrace.app.state.registry_state import open_registry
from headrace.core.endpoint_records import EndpointRecord, entries
from headrace.core.endpoints import endpoint_and_version

_PREFIX = "rollout:"


class Wish(NamedTuple):
    """``deployment`` of ``endpoint``, which serves ``version`` of ``model``, follows ``alias``."""

    endpoint: str
    deployment: str
    model: str
    version: str
    alias: str


def wishes(records: Iterable[EndpointRecord]) -> Iterator[Wish]:
    """Every deployment that follows an alias."""
    for record in records:
        for name, entry in entries(record.document).items():
            follow, (model, _, version) = str(entry.get("follow") or ""), str(entry["model"]).rpartition("@")
            if follow.startswith(_PREFIX) and model and name in record.traffic.targets:
                version = endpoint_and_version(record.traffic.targets[name])[1]
                yield Wish(record.name, name, model, version, follow.removeprefix(_PREFIX))


def target(wish: Wish, location: Location, state: OwnedState | None) -> str | None:
    """Where the alias points to now, when that is another version. Blocks. Raises UnknownModel, StoreFailed."""
    reference = f"{wish.model}@{wish.alias}"
    if state is not None:
        version = state.registry.registry.resolve(reference)
    else:
        with open_registry(location) as opened:
            version = opened.registry.resolve(reference)
    return None if str(version.number) == wish.version else version.ref
