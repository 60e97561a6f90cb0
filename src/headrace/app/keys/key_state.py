"""The keys in a state: for commands that change them, and for servers that go by them."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from headrace.app.keys import secret as key_secret
from headrace.app.state.location import DATABASE_FILE, Location
from headrace.app.state.registry_state import who_am_i
from headrace.control.key_issuer import KeyIssuer, read_set
from headrace.core import errors
from headrace.core.keys import NO_KEYS, KeySet
from headrace.store.database import Database, open_database, sqlite_url
from headrace.store.state import State


@contextmanager
def open_issuer(location: Location, environ: Mapping[str, str], who: str = "") -> Iterator[KeyIssuer]:
    """Makes what is missing. ``who`` stands in events; default: the user of this process. Raises BadSettings,
    StoreFailed."""
    directory = location.directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.BadSettings(f"--state {directory}: {error.strerror}") from error

    def secret(first: bool) -> bytes:
        # Where keys exist a new secret would be a wrong one.
        return (key_secret.make_secret if first else key_secret.read_secret)(directory, environ)

    database = open_database(_url(location))
    try:
        yield KeyIssuer(State(database), secret, time.time, who or who_am_i(), secrets.token_bytes)
    finally:
        database.close()


class KeyReader:
    """Reads the keys of a state again and again, cheaply: one row says whether anything has changed. Blocking."""

    def __init__(self, location: Location, environ: Mapping[str, str] = os.environ) -> None:
        self._location = location
        self._environ = environ
        self._database: Database | None = None
        self._known: int | None = None

    def changed(self) -> KeySet | None:
        """The keys; None when they are as they were the last time. A state that is not there has none, and none is
        made. Raises BadSettings, StoreFailed."""
        if self._database is None:
            if not self._location.exists:
                return self._note(NO_KEYS if self._known is None else None)
            self._database = open_database(_url(self._location))
        secret_of = self._location.directory
        return self._note(
            read_set(State(self._database), lambda: key_secret.read_secret(secret_of, self._environ), self._known)
        )

    def _note(self, found: KeySet | None) -> KeySet | None:
        if found is not None:
            self._known = found.version
        return found

    def close(self) -> None:
        if self._database is not None:
            self._database.close()


def read_ring(location: Location, environ: Mapping[str, str] = os.environ) -> KeySet:
    """The keys of a state as they are now. Raises BadSettings, StoreFailed."""
    reader = KeyReader(location, environ)
    try:
        return reader.changed() or NO_KEYS
    finally:
        reader.close()


def _url(location: Location) -> str:
    return location.database or sqlite_url(location.directory / DATABASE_FILE)
