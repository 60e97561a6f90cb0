"""Every test of the store runs on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from headrace.core.models import Artifact, Format
from headrace.core.versions import Draft, Provenance, StoredFile
from headrace.store.database import Database, open_database, sqlite_url
from headrace.store.state import State
from tests import postgres


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


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = open_database(url)
    yield opened
    opened.close()


@pytest.fixture
def state(database: Database) -> State:
    return State(database)


def make_draft(model: str = "fraud", digest: str = "sha256:aa") -> Draft:
    return Draft(
        model=model,
        artifact=Artifact("model/m.onnx", Format.ONNX, "onnx", digest),
        files=(StoredFile("model/m.onnx", digest, 3), StoredFile("golden.jsonl", "sha256:gg", 2)),
        provenance=Provenance("ada", 12.5, "/m.onnx", packages={"onnx": "1.17"}, metadata={"team": "risk"}),
        golden="golden.jsonl",
    )


@pytest.fixture
def draft() -> Draft:
    return make_draft()
