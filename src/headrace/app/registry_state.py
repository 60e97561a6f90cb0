"""Where the registry lives: a state directory, or a shared database and an object store; and who may change it."""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TypeVar

from headrace.app.location import Location as Location
from headrace.app.location import locate as locate
from headrace.control.registry import Registry
from headrace.core import errors
from headrace.store import lease
from headrace.store.artifacts import Artifacts, open_artifacts
from headrace.store.database import Database, open_database, sqlite_url
from headrace.store.directory_lock import owning
from headrace.store.state import State

_WAIT_S = 15.0
"""Commands change the state for moments: one that finds it in use by another waits this long."""

_LEASE = "controller"
_LEASE_TTL_S = 10.0
"""Shorter than the wait: a command that is killed holds up no other one for good."""


T = TypeVar("T")


class RegistryState:
    """An opened registry with the files of its versions."""

    def __init__(self, location: Location, database: Database, artifacts: Artifacts) -> None:
        self._location = location
        self._database = database
        self.artifacts = artifacts
        self.who = who()
        self.registry = Registry(State(database), time.time, self.who)
        """For reading."""

    @contextmanager
    def changing(self, what: str) -> Iterator[Registry]:
        """The registry for changes, while no other process may make any; ``what`` tells them who it is.

        Raises StateInUse that names the owner when it does not let go within some seconds."""
        if self._location.database is None:
            with ExitStack() as owned:
                _patiently(lambda: owned.enter_context(owning(self._location.directory, what)))
                yield self.registry
            return
        holder = f"{self.who} ({what})"
        held = _patiently(lambda: lease.acquire(self._database, _LEASE, holder, ttl_s=_LEASE_TTL_S, clock=time.time))
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


def who() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"
