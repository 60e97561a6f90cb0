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
from headrace.store.artifacts import Artifacts, open_artifacts
from headrace.store.database import Database, open_database, sqlite_url
from headrace.store.state import State
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


@pytest.fixture(params=["folder", "s3"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> Artifacts:
    """An empty home of blobs."""
    if request.param == "folder":
        return open_artifacts(str(tmp_path / "artifacts"))
    return open_artifacts(f"s3://{request.getfixturevalue('bucket')}/some/prefix")
