"""Aliases that deployments follow: ``follow: rollout`` beside ``model: fraud@champion``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from headrace.app.endpoints.manager import EndpointManager
from headrace.app.state.location import Location
from headrace.app.state.owned_state import OwnedState
from headrace.app.state.registry_state import open_registry
from headrace.control.rollout_plan import RolloutRequest
from headrace.control.rollout_state import Phase
from headrace.control.rollout_story import Rollout
from headrace.core import errors
from headrace.core.endpoint_records import EndpointRecord, entries
from headrace.core.endpoints import deployment_id, endpoint_and_version
from headrace.telemetry import logging

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


class Starting(Protocol):
    """Rollouts as whoever follows an alias needs them (``app/rollouts/rollouts.py``)."""

    active: dict[str, Rollout]

    async def start(self, wanted: RolloutRequest, *, who: str) -> Rollout: ...
    async def rollouts(self, endpoint: str | None, limit: int) -> list[Rollout]: ...


class AliasFollower:
    """An alias that was moved begins a rollout, once for each version. On the controller's event loop."""

    def __init__(self, rollouts: Starting, manager: EndpointManager, location: Location) -> None:
        self._rollouts = rollouts
        self._manager = manager
        self._location = location
        self._begun: set[tuple[str, str]] = set()
        """(endpoint, reference) of rollouts that an alias began, or could not."""
        self._log = logging.Log("headrace.controller")

    async def follow(self) -> None:
        """Look at every alias that is followed."""
        for wish in wishes(self._manager.records.values()):
            if wish.endpoint in self._rollouts.active or self._manager.lock.locked():
                continue
            try:
                await self._follow(wish)
            except errors.HeadraceError as error:
                self._log.warning(
                    "an alias could not be followed",
                    action="follow_failed",
                    endpoint=wish.endpoint,
                    reason=f"{wish.model}@{wish.alias}: {error.message}",
                )

    async def _follow(self, wish: Wish) -> None:
        to = await asyncio.to_thread(target, wish, self._location, self._manager.state)
        if to is None or (wish.endpoint, to) in self._begun or await self._was_tried(wish, to):
            return
        self._begun.add((wish.endpoint, to))
        request = RolloutRequest(wish.endpoint, to, deployment=wish.deployment)
        await self._rollouts.start(request, who=f"alias {wish.model}@{wish.alias}")

    async def _was_tried(self, wish: Wish, to: str) -> bool:
        """It was rolled back or aborted: whoever wants it nevertheless says so."""
        new = deployment_id(wish.endpoint, to.rpartition("@")[2])
        tried = await self._rollouts.rollouts(wish.endpoint, 20)
        return any(r.spec.new == new and r.state.phase is not Phase.DONE for r in tried)
