"""Experiments while they run: starts and ends them, takes outcomes in, and moves the shares of bandits.

An experiment runs for as long as it owns its endpoint's traffic: that is kept with the endpoint's record, so that
there is one truth. Whoever takes the traffic over ends it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence

from headrace.app.endpoints.manager import EndpointManager
from headrace.app.experiments import records as records
from headrace.app.experiments.book import ExperimentBook
from headrace.control.experiments import thompson
from headrace.control.experiments.report import ExperimentReport, report
from headrace.core import errors
from headrace.core.endpoint_records import EndpointRecord
from headrace.core.experiments import MAX_OUTCOMES, BanditSettings, Experiment, Outcome, Receipt, Tally, totals
from headrace.core.routes import RouteTable
from headrace.telemetry import logging

_LOOK_EVERY_S = 1.0
_KEEP_EVERY_S = 10.0
_FORGET_EVERY_S = 30.0
_FOLLOWED_S = 5.0
_FOLLOWED_LOOK_S = 0.02


class Experiments:
    """On the controller's event loop."""

    def __init__(
        self,
        manager: EndpointManager,
        book: ExperimentBook,
        *,
        followed: Callable[[Callable[[RouteTable], bool]], bool],
    ) -> None:
        """``followed(fits)``: every gateway goes by a route table that fits."""
        self._manager = manager
        self._book = book
        self._followed = followed
        self._due: dict[str, float] = {}
        """When a bandit looks again, when tallies are kept, …: monotonic seconds."""
        self._troubles: dict[str, str] = {}
        self._log = logging.Log("headrace.experiments")

    # --- commands (api/ports.py) ---

    async def start(
        self,
        endpoint: str,
        arms: Sequence[str],
        *,
        weights: Mapping[str, float] | None,
        bandit: BanditSettings | None,
        metric: str,
        confidence: float,
        who: str,
        take_over: bool,
        generation: int | None,
    ) -> ExperimentReport:
        """Begin; answers when every gateway writes its requests down. Raises Conflict, BadSettings, UnknownModel,
        PreconditionFailed, StoreFailed."""
        await self._book.load()
        began = time.time()
        experiment = Experiment(secrets.token_hex(4), endpoint, tuple(arms), began, who, metric, bandit, confidence)
        async with self._manager.lock:
            record = self._manager.require(endpoint, generation)
            made = records.started(record, experiment, weights, take_over=take_over)
            await self._book.make_index(endpoint)
            before = self._book.running(endpoint)
            await self._book.put(experiment)
            await self._manager.change([made], what="experiment.start", who=who, why=f"experiment {experiment.id}")
            for other in before:
                await self._book.end(other, f"experiment {experiment.id} took over")
        await self._wait_until_followed(experiment)
        return await self.report(endpoint)

    async def stop(self, endpoint: str, *, who: str, generation: int | None) -> ExperimentReport:
        """End it; the shares stay, and are set by hand from now on. Raises UnknownExperiment, StoreFailed, …."""
        await self._book.load()
        async with self._manager.lock:
            record = self._manager.require(endpoint, generation)
            running = self._book.running(endpoint)
            if not running:
                raise errors.UnknownExperiment(f"no experiment runs on endpoint {endpoint!r}")
            for experiment in running:
                if records.owns(experiment, record):
                    why = f"experiment {experiment.id}"
                    await self._manager.change([records.stopped(record)], what="experiment.stop", who=who, why=why)
                await self._book.end(experiment, f"stopped by {who}")
        return await self.report(endpoint)

    async def report(self, endpoint: str) -> ExperimentReport:
        """Of the last experiment on this endpoint, running or not. Raises UnknownExperiment."""
        await self._book.load()
        experiment = self._book.last(endpoint)
        hours, lost = await self._book.tallies(experiment)
        record = self._manager.records.get(endpoint)
        now = {} if record is None else records.shares(record)
        return await asyncio.to_thread(report, experiment, hours, now, self._notes(record, lost))

    async def all(self) -> list[Experiment]:
        """Newest first."""
        await self._book.load()
        return self._book.all()

    async def feedback(self, endpoint: str, outcomes: Sequence[Outcome]) -> list[Receipt]:
        """Join outcomes to the requests that they are of, in order; all are kept or none. Raises UnknownExperiment,
        PayloadTooLarge, StorageFull, StoreFailed."""
        if len(outcomes) > MAX_OUTCOMES:
            raise errors.PayloadTooLarge(f"{len(outcomes)} outcomes; send at most {MAX_OUTCOMES} at once")
        return await self._book.join(endpoint, outcomes)

    # --- the loop ---

    async def run(self) -> None:
        """For as long as the controller runs."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Take in what gateways wrote, end what was taken over, move what is to be moved."""
        await self._trying("load", self._book.load)
        await self._trying("end", self._end_what_was_taken_over)
        await self._trying("index", self._book.take_in)
        if self._is_due("forget", _FORGET_EVERY_S):
            await self._trying("forget", self._book.forget)
        if self._is_due("keep", _KEEP_EVERY_S):
            await self._trying("keep", self._book.keep_all)
        await self._trying("move", self._move_bandits)

    async def close(self) -> None:
        """Leaves the tallies as they are now in the state."""
        await self._trying("keep", self._book.keep_all)
        await self._book.close()

    async def _trying(self, what: str, step: Callable[[], Awaitable[None]]) -> None:
        """A step that fails is tried again; it is told once."""
        try:
            await step()
        except errors.HeadraceError as error:
            if self._troubles.get(what) != error.message:
                self._log.warning(
                    "an experiment cannot go on; trying again", action=f"experiment_{what}", reason=error.message
                )
            self._troubles[what] = error.message
        else:
            self._troubles.pop(what, None)

    def _is_due(self, what: str, every_s: float) -> bool:
        now = time.monotonic()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + every_s
        return True

    async def _end_what_was_taken_over(self) -> None:
        async with self._manager.lock:
            for experiment in self._book.running():
                record = self._manager.records.get(experiment.endpoint)
                if not records.owns(experiment, record):
                    why = "the endpoint was deleted" if record is None else f"taken over ({record.owner})"
                    await self._book.end(experiment, why)

    async def _move_bandits(self) -> None:
        for experiment in self._book.running():
            if experiment.bandit is not None and self._is_due(experiment.id, experiment.bandit.every_s):
                await self._move(experiment, experiment.bandit)

    async def _move(self, experiment: Experiment, bandit: BanditSettings) -> None:
        hours, _ = await self._book.tallies(experiment)
        tallies = {total.arm: total.tally for total in totals(experiment.arms, hours)}
        wanted = await asyncio.to_thread(thompson.shares, tallies, bandit, _seed(experiment, tallies))
        if wanted is None:
            return
        async with self._manager.lock:
            record = self._manager.records.get(experiment.endpoint)
            if record is None or not records.owns(experiment, record):
                return
            if thompson.worth_it(records.shares(record), wanted, bandit):
                made = records.reweighted(record, wanted, record.owner)
                why = f"experiment {experiment.id}"
                await self._manager.change([made], what="experiment.move", who="headrace", why=why)

    # --- parts ---

    def _notes(self, record: EndpointRecord | None, lost: int) -> list[str]:
        notes = []
        if lost:
            notes.append(f"{lost} answered requests are not indexed: the disk was full for too long")
        if record is not None and record.traffic.policy.sticky is not None:
            notes.append(
                "requests with the same sticky key have the same arm, and outcomes are taken as independent: where keys"
                " come back often, intervals are too narrow"
            )
        return notes + [f"{reason}; trying again" for reason in self._troubles.values()]

    async def _wait_until_followed(self, experiment: Experiment) -> None:
        """Gateways report by themselves when they have taken a table over; nothing tells us when all have."""

        def logged(table: RouteTable) -> bool:
            return any(e.log is not None and e.log.experiment == experiment.id for e in table.endpoints)

        ends = time.monotonic() + _FOLLOWED_S
        while not self._followed(logged) and time.monotonic() < ends:  # noqa: ASYNC110
            await asyncio.sleep(_FOLLOWED_LOOK_S)


def _seed(experiment: Experiment, tallies: Mapping[str, Tally]) -> int:
    """The same outcomes give the same shares, also in a controller that was started again."""
    outcomes = sum(tally.outcomes for tally in tallies.values())
    return zlib.crc32(f"{experiment.id} {outcomes}".encode())
