"""The state as the controller holds it: owned for as long as it runs, by a lock on the directory or by a lease.

Every call blocks and may be made from any thread. When the state cannot be reached, or another process owns it, calls
raise typed errors; what is served does not depend on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from headrace.app.state import controller_address
from headrace.app.state.location import Location
from headrace.app.state.registry_state import LEASE, RegistryState, who_am_i
from headrace.control.rollout_story import Rollout
from headrace.core import errors
from headrace.core.answers import Answer
from headrace.core.endpoint_records import EndpointRecord
from headrace.core.versions import Event
from headrace.store import lease
from headrace.store.artifacts import open_artifacts
from headrace.store.database import Database, open_database, sqlite_url
from headrace.store.directory_lock import owning
from headrace.store.state import State, Transaction

LEASE_TTL_S = 10.0
RENEW_EVERY_S = LEASE_TTL_S / 4


class OwnedState:
    """Opened and owned. ``registry`` shares the ownership."""

    def __init__(self, location: Location, url: str | None = None, *, clock: Callable[[], float] = time.time) -> None:
        """``url``: where the controller answers, for commands that want to change the state meanwhile.

        Raises StateInUse, StoreFailed, BadSettings."""
        self._owned = ExitStack()
        self._lease: lease.Lease | None = None
        self._clock = clock
        self.who = who_am_i()
        try:
            self._open(location, url)
        except BaseException:
            self.close()
            raise

    def _open(self, location: Location, url: str | None) -> None:
        try:
            location.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise errors.BadSettings(f"--state {location.directory}: {error.strerror}") from error
        if location.database is None:
            self._owned.enter_context(owning(location.directory, f"headrace serve, {url}" if url else "headrace serve"))
        database = open_database(location.database or sqlite_url(location.directory / "state.db"))
        self._owned.callback(database.close)
        self._database = database
        self._holder = f"{self.who} (headrace serve)"
        if url is not None:
            self._holder = controller_address.in_holder(self._holder, url)
        if location.database is not None:
            self._acquire()
        self.artifacts = open_artifacts(location.artifacts)
        self._location = location
        if location.database is None and url is not None:
            controller_address.announce(location.directory, url)
            self._owned.callback(controller_address.withdraw, location.directory)
        self._open_registry()

    def _acquire(self) -> None:
        self._lease = lease.acquire(self._database, LEASE, self._holder, ttl_s=LEASE_TTL_S, clock=self._clock)

    def _open_registry(self) -> None:
        self.registry = RegistryState(self._location, self._database, self.artifacts, self._writable)
        """The registry in this state; its changes need no further lock."""

    @property
    def _writable(self) -> Database:
        return self._database if self._lease is None else self._lease.database

    def renew(self) -> None:
        """Show that the owner lives; called every ``RENEW_EVERY_S``. One that lost its lease, because it could not
        renew it in time, takes it again when nobody has it. Raises StateInUse, StoreFailed."""
        if self._lease is None:
            with self._database.reading():
                return
        try:
            self._lease.renew()
        except errors.LeaseLost:
            self._acquire()
            self._open_registry()

    def close(self) -> None:
        """Let the next one in. Safe to repeat."""
        held, self._lease = self._lease, None
        if held is not None:
            with suppress(errors.StoreFailed):
                held.release()
        self._owned.close()

    # --- endpoints ---

    def records(self) -> list[EndpointRecord]:
        with State(self._database).reading() as transaction:
            return transaction.endpoints.all()

    def rollouts(self, endpoint: str | None, limit: int) -> list[Rollout]:
        """Newest first; of one endpoint, or of all."""
        with State(self._database).reading() as transaction:
            kept = transaction.rollouts
            return kept.all(limit, Rollout) if endpoint is None else kept.of(endpoint, limit, Rollout)

    def active_rollouts(self) -> list[Rollout]:
        with State(self._database).reading() as transaction:
            return transaction.rollouts.active(Rollout)

    def change(
        self,
        records: Sequence[EndpointRecord],
        deleted: Sequence[EndpointRecord],
        tell: Sequence[Event],
        rollouts: Sequence[Rollout] = (),
        answers: Sequence[Answer] = (),
    ) -> None:
        """Everything happens, with its events and what is answered to those who asked for it, or nothing.

        Raises Conflict, LeaseLost, StoreFailed."""
        with self._writing() as transaction:
            for record in records:
                transaction.endpoints.put(record)
            for record in deleted:
                transaction.endpoints.delete(record.name, record.generation)
            for rollout in rollouts:
                transaction.rollouts.put(rollout)
            for event in tell:
                transaction.events.add(event)
            for answer in answers:
                transaction.answers.keep(answer)

    def answer(self, key: str) -> Answer | None:
        """What was answered to an idempotency key before. Raises StoreFailed."""
        with State(self._database).reading() as transaction:
            return transaction.answers.of(key, self._clock())

    def open_state(self) -> State:
        """For what changes the state by itself; not to be kept, since ownership may be lost and taken again."""
        return State(self._writable)

    @contextmanager
    def _writing(self) -> Iterator[Transaction]:
        with State(self._writable).writing() as transaction:
            yield transaction


def probe(location: Location) -> int:
    """How many endpoints the state holds, when it can be owned now. Raises StateInUse, StoreFailed, BadSettings."""
    state = OwnedState(location)
    try:
        return len(state.records())
    finally:
        state.close()
