"""Servers that tests of several folders need; each starts when the first test asks for it."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from headrace.store.database import sqlite_url
from tests import postgres
from tests.object_servers import SERVERS, Bucket, Server


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
def object_servers() -> Iterator[Callable[[str], Server]]:
    """The server of ``s3``, ``gs`` or ``az``; each starts when it is asked for first."""
    with ExitStack() as running:
        started: dict[str, Server] = {}

        def server(scheme: str) -> Server:
            if scheme not in started:
                started[scheme] = running.enter_context(SERVERS[scheme]())
            return started[scheme]

        yield server


@pytest.fixture
def new_bucket(object_servers: Callable[[str], Server], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Bucket]:
    def make(scheme: str) -> Bucket:
        server = object_servers(scheme)
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        return Bucket(f"{scheme}://{server.new_bucket()}")

    return make


@pytest.fixture(params=sorted(SERVERS))
def bucket(request: pytest.FixtureRequest, new_bucket: Callable[[str], Bucket]) -> Bucket:
    """An empty bucket of each kind of object store."""
    return new_bucket(request.param)
