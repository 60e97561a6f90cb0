"""Every test of the store runs on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.core.models import Artifact, Format
from headrace.core.versions import Draft, Provenance, StoredFile
from headrace.store.artifacts import Artifacts, open_artifacts
from headrace.store.database import Database, open_database
from headrace.store.state import State
from tests.object_servers import SERVERS, Bucket


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


@pytest.fixture(params=["folder", *sorted(SERVERS)])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path, new_bucket: Callable[[str], Bucket]) -> Artifacts:
    """An empty home of blobs."""
    if request.param == "folder":
        return open_artifacts(str(tmp_path / "artifacts"))
    return open_artifacts(f"{new_bucket(request.param).url}/some/prefix")
