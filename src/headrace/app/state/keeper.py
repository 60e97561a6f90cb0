"""Holds the state for the controller: opens it, shows that the owner lives, restores what was running from it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from headrace.app.endpoints.manager import EndpointManager
from headrace.app.registry.version_copies import local_copy
from headrace.app.rollouts.rollouts import Rollouts
from headrace.app.state.location import Location
from headrace.app.state.owned_state import RENEW_EVERY_S, OwnedState
from headrace.app.state.registry_state import RegistryState
from headrace.core import errors
from headrace.core.endpoint_records import EndpointRecord, entries
from headrace.core.endpoints import DeploymentSpec
from headrace.telemetry import logging
from headrace.telemetry.recording import ControlRecorder

replace = msgspec.structs.replace


class StateKeeper:
    """On the controller's event loop; every call of the state runs in a thread."""

    def __init__(
        self,
        manager: EndpointManager,
        rollouts: Rollouts,
        location: Location,
        recorder: ControlRecorder,
        url: str,
        *,
        open_state: Callable[[Location, str], OwnedState] = OwnedState,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._manager = manager
        self._rollouts = rollouts
        self._location = location
        self._recorder = recorder
        self._url = url
        self._open_state = open_state
        self._clock = clock
        self._wanted = False
        self._renewed = 0.0
        self._reachable = False
        self._log = logging.Log("headrace.controller")

    async def begin(self, *, patiently: bool) -> None:
        """Own the state and go for what it holds. ``patiently``: what is served is known already, from before this
        process was started again, so that a state that cannot be opened now is tried again later.

        Raises StateInUse, StoreFailed, BadSettings."""
        self._wanted = self._manager.kept = True
        try:
            await self._open()
        except errors.HeadraceError as error:
            if not patiently:
                raise
            self._unreachable(error)

    async def renew(self) -> None:
        """Called often; does something every few seconds."""
        if not self._wanted or self._clock() - self._renewed < RENEW_EVERY_S:
            return
        self._renewed = self._clock()
        state = self._manager.state
        try:
            if state is None:
                await self._open()
            else:
                await asyncio.to_thread(state.renew)
                if not self._reachable or self._manager.doubtful:
                    # Another may have owned it meanwhile, or a change be kept whose outcome nobody was told.
                    await self._adopt(state)
        except errors.HeadraceError as error:
            self._unreachable(error)
            return
        self._tell(True)

    def close(self) -> None:
        """Let the next one in."""
        if self._manager.state is not None:
            self._manager.state.close()

    async def _open(self) -> None:
        state = await asyncio.to_thread(self._open_state, self._location, self._url)
        self._renewed = self._clock()
        self._manager.state = state
        await self._adopt(state)
        self._tell(True)

    async def _adopt(self, state: OwnedState) -> None:
        """Go for what the state holds where that differs from what is gone for."""
        async with self._manager.lock:
            kept = await asyncio.to_thread(_records, state, self._location.directory)
            known = self._manager.records
            self._manager.doubtful = False
            for record in kept:
                if _same_change(known.get(record.name), record):
                    self._manager.compare(record)
                else:
                    self._manager.restore(record)
            for name in known.keys() - {record.name for record in kept}:
                self._manager.forget(name)
            self._rollouts.resume(await asyncio.to_thread(state.active_rollouts))

    def _unreachable(self, error: errors.HeadraceError) -> None:
        if self._reachable or not self._renewed:
            self._log.warning(
                "the state cannot be changed; what is served goes on",
                action="state_unreachable",
                reason=error.message,
            )
        self._renewed = self._clock()
        self._tell(False)

    def _tell(self, reachable: bool) -> None:
        self._reachable = reachable
        self._recorder.set_state_reachable(reachable)


def _same_change(known: EndpointRecord | None, kept: EndpointRecord) -> bool:
    """Generations begin anew when an endpoint is deleted and made again; times do not."""
    return known is not None and (known.generation, known.at) == (kept.generation, kept.at)


def _records(state: OwnedState, directory: Path) -> list[EndpointRecord]:
    """What the state holds, with copies on this machine of what comes from the registry."""
    return [_with_copies(record, state.registry, directory) for record in state.records()]


def _with_copies(record: EndpointRecord, registry: RegistryState, directory: Path) -> EndpointRecord:
    deployments = [_with_copy(spec, _references(record), registry, directory) for spec in record.deployments]
    before = None if record.before is None else _with_copies(record.before, registry, directory)
    return replace(record, deployments=tuple(deployments), before=before)


def _with_copy(
    spec: DeploymentSpec, references: Sequence[str], registry: RegistryState, directory: Path
) -> DeploymentSpec:
    """The state may have come from another machine, or the copy have been removed."""
    if Path(spec.artifact.path).exists():
        return spec
    for reference in references:
        if reference.rpartition("@")[2] == spec.version:
            version = registry.registry.resolve(reference)
            folder = local_copy(registry, version, directory, lambda what, done, total: None)
            path = str(folder / version.draft.artifact.path)
            return replace(spec, artifact=replace(spec.artifact, path=path))
    return spec


def _references(record: EndpointRecord) -> list[str]:
    """Versions of the registry that a document names."""
    models = [str(entry["model"]) for entry in entries(record.document).values()]
    return [model for model in models if "@" in model and not Path(model).exists()]
