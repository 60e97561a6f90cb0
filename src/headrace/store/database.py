"""The state's database: SQLite in a file, or PostgreSQL. Transactions, and the schema brought up to date.

SQLite runs with a write-ahead log, so that readers never wait for the writer, and a write takes its lock when it
begins: it never fails half way because another process wrote in between.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from headrace.core import errors

HEAD = "0006"
"""Revision of the newest migration: what this program reads and writes."""

_BUSY_TIMEOUT_S = 15.0
_MIGRATION_LOCK = 0x68656164  # an arbitrary number; every Headrace takes the same
_WRITE = "headrace_write"

Fence = Callable[[sa.Connection], None]
"""Called first in every write; raises when the writer may not write any more."""


class Database:
    """A database at the newest revision. Thread-safe; blocking."""

    def __init__(self, engine: sa.Engine, fence: Fence | None = None) -> None:
        self.engine = engine
        self._fence = fence

    def fenced(self, fence: Fence) -> Database:
        """The same database for a writer whose right to write is checked in every transaction."""
        return Database(self.engine, fence)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """One consistent view of the data. Raises StoreFailed."""
        with _typed(self.engine), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that commits at the end and rolls back on an error. Raises StoreFailed, LeaseLost."""
        engine = self.engine.execution_options(**{_WRITE: True})
        with _typed(self.engine), engine.connect() as connection, connection.begin():
            if self._fence is not None:
                self._fence(connection)
            yield connection

    def close(self) -> None:
        self.engine.dispose()


def sqlite_url(path: Path) -> str:
    return sa.URL.create("sqlite+pysqlite", database=str(path)).render_as_string()


def open_database(url: str) -> Database:
    """Connect and bring the schema up to date; several processes may do so at once.

    Raises BadSettings for a URL that names no database, StoreFailed when it cannot be reached or is newer."""
    database = Database(_engine(url))
    try:
        _migrate(database)
    except BaseException:
        database.close()
        raise
    return database


def insert(connection: sa.Connection, table: sa.TableClause) -> Any:
    """An INSERT that knows ``on_conflict_do_nothing`` and ``on_conflict_do_update``; both databases have them."""
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite

        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)


def _engine(text: str) -> sa.Engine:
    try:
        url = sa.make_url(text)
    except sa.exc.ArgumentError:
        raise errors.BadSettings(  # without the text: there may be a password in it
            "--database is no database URL; write postgresql://user@host:5432/name or sqlite:////path/state.db"
        ) from None
    match url.get_backend_name():
        case "sqlite":
            engine = sa.create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S})
            sa.event.listen(engine, "connect", _prepare_sqlite)
            sa.event.listen(engine, "begin", _begin_sqlite)
            return engine
        case "postgresql" | "postgres":
            return _postgresql(url)
        case other:
            raise errors.BadSettings(f"--database: {other!r} is not supported; use postgresql:// or sqlite://")


def _postgresql(url: sa.URL) -> sa.Engine:
    try:
        return sa.create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    except ImportError as error:
        raise errors.BadSettings("PostgreSQL needs its driver: pip install 'headrace[postgres]'") from error


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver's own idea of transactions: BEGIN is ours
    _use_write_ahead_log(connection)
    for pragma in ("foreign_keys=ON", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _use_write_ahead_log(connection: Any) -> None:
    """The first of several starters switches to it; SQLite refuses the others at once meanwhile, whatever their
    timeout."""
    deadline = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


@contextmanager
def _typed(engine: sa.Engine) -> Iterator[None]:
    try:
        yield
    except sa.exc.DBAPIError as error:
        where = engine.url.render_as_string(hide_password=True)
        if "disk is full" in str(error.orig) or "No space left" in str(error.orig):
            raise errors.StorageFull(f"{where}: the disk is full; nothing was changed") from error
        raise errors.StoreFailed(f"{where}: {str(error.orig).strip()}") from error


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return revision


def _migrate(database: Database) -> None:
    with database.reading() as connection:
        if _revision(connection) == HEAD:
            return
    with database.writing() as connection:  # on SQLite this transaction is the lock already
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        found = _revision(connection)
        if found != HEAD:  # nobody else has done it meanwhile
            _upgrade(connection, found)


def _upgrade(connection: sa.Connection, found: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise errors.StoreFailed(
            f"{connection.engine.url.render_as_string(hide_password=True)} was written by a newer Headrace"
            f" (schema {found}, this one knows {HEAD}): upgrade, or use another --state"
        )
    command.upgrade(config, "head")
