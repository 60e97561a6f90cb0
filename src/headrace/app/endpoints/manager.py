"""Endpoints as they shall be, and how the world gets there: records are made, kept in the state, and put into effect.

A change is kept first and takes effect then. A version that replaces another one serves only when all its replicas
are ready; when they cannot load, the record before it is put back, in the state too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from headrace.app import events
from headrace.app.controller.state import Switch
from headrace.app.endpoints.documents import policy_document
from headrace.app.endpoints.effect import Effect
from headrace.app.state.answer_memory import AnswerMemory
from headrace.app.state.owned_state import OwnedState
from headrace.app.state.registry_state import who_am_i
from headrace.control.observed import Desired, Observed
from headrace.control.rollout_story import Rollout
from headrace.core import errors
from headrace.core.answers import Answer, Answering
from headrace.core.endpoint_records import EndpointRecord, OwnerKind
from headrace.core.endpoints import DeploymentSpec, endpoint_and_version
from headrace.core.traffic import EndpointTraffic
from headrace.core.versions import Event
from headrace.telemetry import logging

_TRY_AGAIN_S = 2.0

replace = msgspec.structs.replace


class EndpointManager:
    """On the controller's event loop. ``desired`` and ``switches`` are the controller's own: what the reconcile loop
    works for."""

    def __init__(
        self,
        directory: Path,
        desired: Desired,
        observed: Observed,
        switches: dict[tuple[str, str], Switch],
        *,
        say: Callable[[events.Event], None],
        changed: asyncio.Event,
        experiments: Path | None = None,
    ) -> None:
        """``experiments``: where the requests of endpoints with an experiment are written down."""
        self.records: dict[str, EndpointRecord] = {}
        self.state: OwnedState | None = None
        """None: what is served lasts as long as this run of ``headrace serve``."""
        self.kept = False
        """There is a state, whether or not it could be opened yet: nothing changes that it does not keep."""
        self.answers = AnswerMemory()
        """To requests with an idempotency key, where no state keeps them."""
        self.lock = asyncio.Lock()
        """Held by whoever makes a change, from reading the records until they are replaced."""
        self.experiments_folder = experiments or directory / "experiments"
        self._effect = Effect(directory, self.experiments_folder, desired, observed, switches)
        self._switches = switches
        self._say = say
        self._changed = changed
        self._unsettled: dict[str, str] = {}
        """Endpoints whose record is to be settled, or put back for a reason."""
        self.doubtful = False
        """A change failed in a way that leaves open what the state holds now."""
        self._work = asyncio.Event()
        self._log = logging.Log("headrace.controller")

    # --- into effect ---

    def restore(self, record: EndpointRecord) -> None:
        """Go for what the state holds, whatever was known until now."""
        self._unsettled.pop(record.name, None)
        known = self.records.get(record.name)
        if known is not None and record.generation <= known.generation:
            # Deleted and made again, or an older state: nothing that serves leads to it.
            self.forget(record.name)
        self.adopt(record)

    def compare(self, kept: EndpointRecord) -> None:
        """The state holds the change that is gone for. A process before this one may have seen how the change ended
        and not have lived to keep that."""
        known = self.records[kept.name]
        if kept.before is None or known.before is not None or kept.name in self._unsettled:
            return
        same = known.traffic.targets == kept.traffic.targets
        self._unsettled[kept.name] = "" if same else "a version could not be loaded"
        self._work.set()

    def adopt(self, record: EndpointRecord) -> None:
        """Go for this record from now on. Safe to repeat."""
        self.records[record.name] = record
        self._effect.put(record)
        self._changed.set()

    def log_requests(self, record: EndpointRecord) -> None:
        """Write answered requests down where the record says so; a controller before this one did."""
        self._effect.log_requests(record)

    def forget(self, name: str) -> None:
        """The endpoint leaves."""
        self.records.pop(name, None)
        self._effect.remove(name)
        self._changed.set()

    # --- how switches ended ---

    def switched(self, endpoint: str, failure: str = "") -> None:
        """A switch of this endpoint is done, or cannot be done because of ``failure``."""
        record = self.records.get(endpoint)
        if record is None or record.before is None:
            return
        if failure:
            self._unsettled[endpoint] = failure
            # Its generation is still the newest that anybody has seen, and who paused it meant the endpoint.
            self.adopt(replace(record.before, generation=record.generation, at=record.at, paused=record.paused))
        elif any(key[0] == endpoint for key in self._switches):
            return
        else:
            self._unsettled.setdefault(endpoint, "")
            self.records[endpoint] = record.settled()
        self._work.set()

    async def keep_settling(self) -> None:
        """Keep in the state how switches ended; for as long as the controller runs."""
        while True:
            await self._work.wait()
            self._work.clear()
            if not await self.settle():
                asyncio.get_running_loop().call_later(_TRY_AGAIN_S, self._work.set)

    async def settle(self) -> bool:
        """Keep how switches ended until now; False when that must be tried again."""
        done = True
        for endpoint in list(self._unsettled):
            try:
                await self._settle(endpoint)
            except errors.HeadraceError as error:
                done = False
                self._log.warning(
                    "the state could not be told how a change ended; trying again",
                    action="settle_failed",
                    endpoint=endpoint,
                    reason=error.message,
                )
        return done

    async def _settle(self, endpoint: str) -> None:
        async with self.lock:
            reason = self._unsettled.get(endpoint)
            record = self.records.get(endpoint)
            if reason is not None and record is not None and record.before is None:
                generation = await self._generation(record)
                if generation is None:
                    return
                settled = replace(record, generation=generation + 1)
                tell = [] if not reason else [self._event("endpoint.revert", settled, record, "headrace", reason)]
                await self._keep([settled], [], tell)
                self.records[endpoint] = settled
            self._unsettled.pop(endpoint, None)

    async def _generation(self, record: EndpointRecord) -> int | None:
        """Of the record in the state, where a change may stand whose outcome was lost; None: another who owned the
        state meanwhile has deleted the endpoint, and so will this one when it looks."""
        if self.state is None:
            return record.generation
        kept = {r.name: r.generation for r in await asyncio.to_thread(self.state.records)}
        return kept.get(record.name)

    # --- changes; the caller holds the lock ---

    async def change(
        self,
        records: Sequence[EndpointRecord],
        *,
        deleted: Iterable[str] = (),
        what: str,
        who: str,
        why: str = "",
        quiet: bool = False,
        rollouts: Sequence[Rollout] = (),
        answering: Answering[list[EndpointRecord]] | None = None,
    ) -> list[EndpointRecord]:
        """Keep these records, and go for them. Their generation, author and time are filled in. ``quiet``: whoever
        watches the server is told otherwise. ``rollouts`` are kept with them, in the same transaction, and so is what
        ``answering`` makes of the new records.

        Raises Conflict, StoreFailed; nothing is changed then."""
        if not self.lock.locked():
            raise errors.Bug("a change needs the lock")
        before = {record.name: self.records.get(record.name) for record in records}
        made = [self._next(record, before[record.name], who) for record in records]
        gone = [self.records[name] for name in deleted if name in self.records]
        tell = [self._event(what, record, before[record.name], who, why) for record in made]
        tell += [self._event("endpoint.delete", None, record, who, why) for record in gone]
        await self._keep(made, gone, tell, rollouts, [] if answering is None else [answering(made)])
        for record in made:
            if not quiet:
                self._effect.forget_failures(record.name)
            self._unsettled.pop(record.name, None)
            self.adopt(record)
        for record in gone:
            self.forget(record.name)
        for event in () if quiet else tell:
            self._say(events.EndpointChanged(event.subject, event.what, who, why))
        return made

    def _next(self, record: EndpointRecord, before: EndpointRecord | None, who: str) -> EndpointRecord:
        generation = 1 if before is None else before.generation + 1
        made = replace(record, generation=generation, who=who, at=time.time(), before=None)
        if before is not None:
            made = replace(made, deployments=tuple(_with_restarts(spec, before) for spec in made.deployments))
        if before is None:
            return made
        # While one change is still under way, what is known to work is what was there before both.
        known = before.before or before
        return replace(made, before=known) if _replaces(known, made) else made

    async def _keep(
        self,
        records: Sequence[EndpointRecord],
        deleted: Sequence[EndpointRecord],
        tell: Sequence[Event],
        rollouts: Sequence[Rollout] = (),
        answers: Sequence[Answer] = (),
    ) -> None:
        state = self._opened()
        if state is None:
            for answer in answers:
                self.answers.keep(answer)
            return
        try:
            await asyncio.to_thread(state.change, records, deleted, tell, rollouts, answers)
        except (errors.HeadraceError, asyncio.CancelledError):
            # The answer to a commit may be what got lost, or its caller be gone while it goes on.
            self.doubtful = True
            raise

    def _opened(self) -> OwnedState | None:
        """None: this server keeps none. Raises StoreFailed when there is one that could not be opened yet."""
        if self.state is None and self.kept:
            raise errors.StoreFailed(
                "the state could not be opened since this process started, so that nothing can be changed; what is"
                " served goes on. Try again when the database answers"
            )
        return self.state

    async def earlier(self, key: str) -> Answer | None:
        """What was answered to an idempotency key before. Raises StoreFailed."""
        found = self.answers.of(key)
        state = self._opened() if found is None else None
        return found if state is None else await asyncio.to_thread(state.answer, key)

    def force(self, record: EndpointRecord, reason: str) -> None:
        """Go for this record at once, and keep it as soon as the state can be reached: nothing may hold up the way
        back from a version that does harm."""
        self._unsettled[record.name] = reason
        self.adopt(replace(record, before=None))
        self._work.set()

    @staticmethod
    def _event(
        what: str, after: EndpointRecord | None, before: EndpointRecord | None, who: str, why: str = ""
    ) -> Event:
        subject = after or before
        assert subject is not None
        return Event(time.time(), who, what, subject.name, _told(before), _told(after), why)

    async def begin(self, records: Sequence[EndpointRecord]) -> None:
        """What the command names, when it starts: it was put into effect already where nothing else was served."""
        async with self.lock:
            kept = [_with_experiment(r, self.records.get(r.name)) for r in records]
            new = [self.paused_still(r) for r in kept if not _same(self.records.get(r.name), r)]
            for record in [r for r in new if self._is_busy(r.name)]:
                # A server that is started again must not end what was under way.
                new.remove(record)
                owner = self.records[record.name].owner
                self._say(
                    events.EndpointChanged(record.name, "endpoint.kept", who_am_i(), f"it belongs to the {owner}")
                )
            await self.change(new, what="endpoint.serve", who=who_am_i(), quiet=True)

    def _is_busy(self, name: str) -> bool:
        known = self.records.get(name)
        return known is not None and known.owner.kind is OwnerKind.ROLLOUT

    async def watched(self, endpoint: str, *, added: DeploymentSpec, name: str | None, replaces: bool) -> None:
        """--watch found another version. ``name``: of the deployment that it is to serve under, None for none;
        ``replaces``: the one that serves there now leaves."""
        async with self.lock:
            known = self.records[endpoint]
            leaves = known.traffic.targets.get(name) if replaces and name is not None else None
            rest = [spec for spec in known.deployments if spec.id not in (added.id, leaves)]
            traffic = known.traffic if name is None else known.traffic.aimed(name, added.id)
            record = replace(known, deployments=(*rest, added), traffic=traffic)
            await self.change([record], what="endpoint.watch", who="headrace serve --watch", quiet=True)

    def paused_still(self, record: EndpointRecord) -> EndpointRecord:
        """No file says that an endpoint takes requests again: whoever paused it does."""
        known = self.records.get(record.name)
        return record if known is None else replace(record, paused=known.paused)

    def require(self, name: str, generation: int | None = None) -> EndpointRecord:
        """The record of an endpoint. Raises UnknownModel, or Conflict when it has another generation."""
        record = self.records.get(name)
        if record is None:
            known = ", ".join(sorted(self.records)[:20]) or "none"
            raise errors.UnknownModel(f"there is no endpoint {name!r}; there are: {known}")
        if generation is not None and generation != record.generation:
            raise errors.PreconditionFailed(
                f"endpoint {name!r} has generation {record.generation} by now, not {generation}; look at it again"
            )
        return record


def _with_experiment(record: EndpointRecord, known: EndpointRecord | None) -> EndpointRecord:
    """An experiment goes on when the server is started again with the same deployments: it decides their shares."""
    if known is None or known.owner.kind is not OwnerKind.EXPERIMENT:
        return record
    if known.traffic.targets.keys() != record.traffic.targets.keys():
        return record
    policy = replace(record.traffic.policy, weights=known.traffic.policy.weights)
    document = {**record.document, **policy_document(policy)}
    return replace(
        record, traffic=EndpointTraffic(policy, record.traffic.targets), document=document, owner=known.owner
    )


def _replaces(before: EndpointRecord, after: EndpointRecord) -> bool:
    """Some deployment gets another version: that must load before the old one may go."""
    old = before.traffic.targets
    return any(old.get(name, target) != target for name, target in after.traffic.targets.items())


def _with_restarts(spec: DeploymentSpec, before: EndpointRecord) -> DeploymentSpec:
    """Replicas that were restarted by hand are as good as those that a file asks for."""
    known = before.deployment(spec.id)
    return spec if known is None else replace(spec, restarts=max(spec.restarts, known.restarts))


def _same(before: EndpointRecord | None, after: EndpointRecord) -> bool:
    """They ask for the same."""
    if before is None:
        return False
    kept = replace(before, deployments=tuple(replace(spec, restarts=0) for spec in before.deployments))
    told = {"generation": after.generation, "who": after.who, "at": after.at, "before": None, "paused": after.paused}
    return replace(kept, **told) == after


def _told(record: EndpointRecord | None) -> dict[str, str | int | None] | None:
    """What an event tells of a record."""
    if record is None:
        return None
    weights = record.traffic.policy.weights
    told: dict[str, str | int | None] = {"generation": record.generation, "owner": str(record.owner)}
    for name, target in record.traffic.targets.items():
        told[name] = f"version {endpoint_and_version(target)[1]}, weight {weights.get(name, 0.0):g}"
    if record.paused:
        told["paused"] = record.paused
    return told
