"""Where the registry lives: a state directory, or a shared database and an object store; and who may change it."""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from headrace.app.state.location import Location, locate
from headrace.control.registry import Registry
from headrace.core import errors
from headrace.core.endpoint_records import EndpointRecord
from headrace.store import lease
from headrace.store.artifacts import Artifacts, open_artifacts
from headrace.store.database import Database, open_database, sqlite_url
from headrace.store.directory_lock import owning
from headrace.store.state import State
from headrace.store.uploads import Uploads

__all__ = ["Location", "RegistryState", "locate", "open_registry"]

_WAIT_S = 15.0
"""Commands change the state for moments: one that finds it in use by another waits this long."""

LEASE = "controller"
"""Name of the lease on a shared database; its holder may change the state."""
_LEASE_TTL_S = 10.0
"""Shorter than the wait: a command that is killed holds up no other one for good."""


T = TypeVar("T")


class RegistryState:
    """An opened registry with the files of its versions. ``held``: the database as this process, which owns the state
    for as long as it runs, may write it."""

    def __init__(
        self, location: Location, database: Database, artifacts: Artifacts, held: Database | None = None
    ) -> None:
        self._location = location
        self._held = held
        self._database = database
        self.artifacts = artifacts
        self.who = who_am_i()
        self.uploads = Uploads(location.directory / "uploads", artifacts)
        """Files that clients of the management API send."""
        self.registry = Registry(State(database), time.time, self.who)
        """For reading."""

    @property
    def directory(self) -> Path:
        """The state directory: also what a shared database does not hold is there, for this machine."""
        return self._location.directory

    def records(self) -> list[EndpointRecord]:
        """Endpoints as they shall be."""
        with State(self._database).reading() as transaction:
            return transaction.endpoints.all()

    def holder(self, name: str, now: float) -> str | None:
        """Who holds a lease of a shared database now (seconds since 1970); None when nobody does."""
        return lease.holder_of(self._database, name, now)

    @contextmanager
    def changing(self, what: str) -> Iterator[Registry]:
        """The registry for changes, while no other process may make any; ``what`` tells them who it is.

        Raises StateInUse that names the owner when it does not let go within some seconds."""
        if self._held is not None:
            yield Registry(State(self._held), time.time, self.who)
            return
        if self._location.database is None:
            with ExitStack() as owned:
                _patiently(lambda: owned.enter_context(owning(self._location.directory, what)))
                yield self.registry
            return
        holder = f"{self.who} ({what})"
        held = _patiently(lambda: lease.acquire(self._database, LEASE, holder, ttl_s=_LEASE_TTL_S, clock=time.time))
        try:
            yield Registry(State(held.database), time.time, self.who)
        finally:
            # Lost to another meanwhile: every write was checked, and what was not written needs no lease.
            with suppress(errors.LeaseLost):
                held.release()


@contextmanager
def open_registry(location: Location) -> Iterator[RegistryState]:
    """Open the registry, making what is missing. Raises BadSettings, StoreFailed."""
    try:
        location.directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.BadSettings(f"--state {location.directory}: {error.strerror}") from error
    database = open_database(location.database or sqlite_url(location.directory / "state.db"))
    try:
        yield RegistryState(location, database, open_artifacts(location.artifacts))
    finally:
        database.close()


def _patiently(attempt: Callable[[], T]) -> T:
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            return attempt()
        except errors.StateInUse:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def who_am_i() -> str:
    """As events name the one who acts: ``ada@host``."""
    return f"{getpass.getuser()}@{socket.gethostname()}"
