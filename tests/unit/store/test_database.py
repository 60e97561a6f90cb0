"""Opening a database: migrations, several starters, transactions, errors."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory

import headrace.store
from headrace.core import errors
from headrace.store import database as module
from headrace.store import tables
from headrace.store.database import Database, open_database, sqlite_url


def revisions() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(Path(headrace.store.__file__).parent / "migrations"))
    return ScriptDirectory.from_config(config)


def test_the_program_knows_its_newest_migration() -> None:
    assert revisions().get_heads() == [module.HEAD]


def test_queries_name_the_columns_that_the_migrations_make(database: Database) -> None:
    with database.reading() as connection:
        found = sa.inspect(connection)
        made = {name: {c["name"] for c in found.get_columns(name)} for name in found.get_table_names()}
    declared = {t.name: set(t.c.keys()) for t in vars(tables).values() if isinstance(t, sa.TableClause)}
    made.pop("alembic_version")
    assert declared == made


def test_several_starters_migrate_once(url: str) -> None:
    start = threading.Barrier(4)

    def begin(_: int) -> str | None:
        start.wait(30)
        opened = open_database(url)
        try:
            with opened.reading() as connection:
                return connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        finally:
            opened.close()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(begin, range(4))) == [module.HEAD] * 4


def test_a_newer_schema_is_refused(url: str) -> None:
    opened = open_database(url)
    with opened.writing() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    opened.close()
    with pytest.raises(errors.StoreFailed, match=r"newer Headrace .*9999.*upgrade"):
        open_database(url)


def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    def fail() -> None:
        with database.writing() as connection:
            connection.execute(sa.insert(tables.MODELS), {"name": "fraud", "last_version": 1})
            raise KeyError("in the middle")

    with pytest.raises(KeyError):
        fail()
    with database.reading() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(tables.MODELS)) == 0


def test_errors_of_the_database_are_typed_and_hide_passwords(tmp_path: Path) -> None:
    with pytest.raises(errors.StoreFailed, match=r"127\.0\.0\.1:1/") as caught:
        open_database("postgresql://ada:secret@127.0.0.1:1/x?connect_timeout=2")
    assert "secret" not in caught.value.message
    with pytest.raises(errors.StoreFailed, match="unable to open"):
        open_database(sqlite_url(tmp_path / "missing" / "state.db"))


@pytest.mark.parametrize(("url", "says"), [("nonsense", "no database URL"), ("mysql://h/x", "not supported")])
def test_wrong_urls_say_what_to_write(url: str, says: str) -> None:
    with pytest.raises(errors.BadSettings, match=says):
        open_database(url)


def test_foreign_keys_are_enforced(database: Database) -> None:
    with pytest.raises(errors.StoreFailed, match=r"(?i)foreign key"), database.writing() as connection:
        connection.execute(sa.insert(tables.ALIASES), {"model": "no", "alias": "champion", "version": 1})


def test_sqlite_readers_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    opened = open_database(sqlite_url(tmp_path / "state.db"))
    with opened.writing() as writer:
        writer.execute(sa.insert(tables.MODELS), {"name": "fraud", "last_version": 1})
        with opened.reading() as reader:
            assert reader.scalar(sa.select(sa.func.count()).select_from(tables.MODELS)) == 0
    opened.close()
