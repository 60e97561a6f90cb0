"""Servers that tests of several folders need; each starts when the first test asks for it."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from headrace.store.database import sqlite_url
from tests import postgres, s3


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[postgres.Server]:
    root = tmp_path_factory.getbasetemp()
    with postgres.shared_server((root if worker_id == "master" else root.parent) / "postgres") as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path / "state.db")
        return
    server: postgres.Server = request.getfixturevalue("postgres_server")
    with server.database(f"test_{uuid.uuid4().hex}") as address:
        yield address


@pytest.fixture(scope="session")
def s3_server() -> Iterator[s3.Server]:
    with s3.running() as server:
        yield server


@pytest.fixture
def bucket(s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an empty bucket that this process can reach."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server.new_bucket()
