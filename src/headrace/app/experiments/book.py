"""All experiments of a server: which there are, the requests and outcomes that are indexed for them, and what these add
up to. Knows nothing of traffic."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import msgspec

from headrace.app.endpoints.manager import EndpointManager
from headrace.app.experiments.places import Indexes, KeptExperiments
from headrace.core import errors
from headrace.core.endpoint_records import OwnerKind
from headrace.core.experiments import Experiment, HourTally, Outcome, Receipt

P = ParamSpec("P")
T = TypeVar("T")


class ExperimentBook:
    """On the controller's event loop; disk work runs in threads, that on indexes one at a time. Calls raise
    StoreFailed, StorageFull, and NotReady while the state has not been reached."""

    def __init__(self, manager: EndpointManager, *, owns_state: bool, retention_s: float, most_requests: int) -> None:
        self._manager = manager
        self._kept = KeptExperiments(manager, owns_state=owns_state)
        self._indexes = Indexes(manager.experiments_folder)
        self._retention_s = retention_s
        self._most_requests = most_requests
        self._known: dict[str, Experiment] = {}
        """By id, oldest first."""
        self._loaded: object = None
        """The state that they are from."""
        self._written: dict[str, list[HourTally]] = {}
        """Tallies as they are in the state, by experiment."""
        self._disk = asyncio.Lock()
        self._closed = False

    async def load(self) -> None:
        """What the state knows, whenever it has become another."""
        if not self._kept.reached:
            if self._loaded is None:
                raise errors.NotReady("the state cannot be reached, and experiments are kept in it; try again later")
            return
        source = self._manager.state or self
        if self._loaded is source:
            return
        found = await asyncio.to_thread(self._kept.all)
        self._known = {experiment.id: experiment for experiment in found}
        for experiment in self.running():
            kept = await asyncio.to_thread(self._kept.tallies, experiment.id)
            await self._on_disk(self._seed, experiment, kept)
        self._loaded = source

    def _seed(self, experiment: Experiment, kept: Sequence[HourTally]) -> None:
        self._indexes.of(experiment.endpoint).seed(experiment.id, kept)

    # --- which there are ---

    def all(self) -> list[Experiment]:
        """Newest first."""
        return list(self._known.values())[::-1]

    def running(self, endpoint: str | None = None) -> list[Experiment]:
        return [e for e in self._known.values() if e.running and endpoint in (None, e.endpoint)]

    def last(self, endpoint: str) -> Experiment:
        """The latest on this endpoint. Raises UnknownExperiment."""
        mine = [e for e in self._known.values() if e.endpoint == endpoint]
        if not mine:
            raise _none(endpoint)
        return mine[-1]

    async def put(self, experiment: Experiment) -> None:
        await asyncio.to_thread(self._kept.put, experiment)
        self._known[experiment.id] = experiment

    async def end(self, experiment: Experiment, why: str) -> None:
        await self.put(msgspec.structs.replace(experiment, ended=time.time(), why=why))
        await self.keep(experiment)

    # --- requests and outcomes ---

    async def make_index(self, endpoint: str) -> None:
        """Before the first request is written down."""
        await self._on_disk(self._indexes.of, endpoint)

    async def join(self, endpoint: str, outcomes: Sequence[Outcome]) -> list[Receipt]:
        """Raises UnknownExperiment. Needs no state."""
        return await self._on_disk(self._join, endpoint, outcomes)

    def _join(self, endpoint: str, outcomes: Sequence[Outcome]) -> list[Receipt]:
        if not self._indexes.exists(endpoint):
            raise _none(endpoint)
        index = self._indexes.of(endpoint)
        # What was answered a moment ago may still stand in the gateways' files only.
        index.take_in()
        return index.join(outcomes, time.time())

    async def take_in(self) -> None:
        """Index what gateways have written; also while the state cannot be reached."""
        for endpoint in self._indexed():
            await self._on_disk(lambda name: self._indexes.of(name).take_in(), endpoint)

    async def forget(self) -> None:
        """Requests beyond the retention."""
        before = time.time() - self._retention_s
        for endpoint in self._indexed():
            await self._on_disk(lambda name: self._indexes.of(name).forget(before, self._most_requests), endpoint)

    def _indexed(self) -> set[str]:
        owned = {r.name for r in self._manager.records.values() if r.owner.kind is OwnerKind.EXPERIMENT}
        return owned | {e.endpoint for e in self._lively() if self._indexes.exists(e.endpoint)}

    def _lively(self) -> list[Experiment]:
        """Running, or outcomes may still come."""
        since = time.time() - self._retention_s
        return [e for e in self._known.values() if e.ended is None or e.ended > since]

    # --- tallies ---

    async def tallies(self, experiment: Experiment) -> tuple[list[HourTally], int]:
        """As they are now, and how many answered requests could not be written down."""
        return await self._on_disk(self._tallies, experiment)

    def _tallies(self, experiment: Experiment) -> tuple[list[HourTally], int]:
        if not self._indexes.exists(experiment.endpoint):
            return self._kept.tallies(experiment.id), 0
        index = self._indexes.of(experiment.endpoint)
        index.take_in()
        return index.tallies(experiment.id) or self._kept.tallies(experiment.id), index.lost(experiment.id)

    async def keep_all(self) -> None:
        """Tallies into the state, for the day on which this disk is lost."""
        for experiment in self._lively():
            await self.keep(experiment)

    async def keep(self, experiment: Experiment) -> None:
        """Those of one experiment, where they have changed."""
        hours, _ = await self.tallies(experiment)
        before = self._written.get(experiment.id, [])
        changed = [hour for hour in hours if hour not in before]
        if changed:
            await asyncio.to_thread(self._kept.put_tallies, experiment.id, changed)
            self._written[experiment.id] = hours

    async def _on_disk(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        async with self._disk:
            if self._closed:
                raise errors.NotReady("the server is shutting down")
            return await asyncio.to_thread(work, *arguments, **named)

    async def close(self) -> None:
        """When what is under way on disk has ended; nothing begins any more."""
        async with self._disk:
            self._closed = True
        self._indexes.close()
        self._kept.close()


def _none(endpoint: str) -> errors.UnknownExperiment:
    return errors.UnknownExperiment(
        f"endpoint {endpoint!r} has had no experiment; start one: headrace experiment start {endpoint} --arms A,B"
    )
