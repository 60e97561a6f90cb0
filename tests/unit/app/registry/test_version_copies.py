"""Copies of versions on disk go when their version has gone, and not before."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.app.registry import version_copies
from headrace.app.registry.collecting import collect
from headrace.app.state.location import Location
from headrace.app.state.owned_state import OwnedState
from headrace.core.endpoint_records import EndpointRecord
from headrace.core.endpoints import DeploymentSpec
from headrace.core.models import Artifact, Format
from headrace.core.traffic import EndpointTraffic
from headrace.core.versions import Draft, Event, Provenance, StoredFile

CONTENT = b"weights"
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
HOUR = 3600.0


@pytest.fixture
def state(tmp_path: Path) -> Iterator[OwnedState]:
    """A state whose registry has two versions of ``team/fraud``, with a copy of each that is a day old."""
    location = Location(tmp_path / "state", None, str(tmp_path / "state" / "artifacts"))
    (tmp_path / "m.onnx").write_bytes(CONTENT)
    opened = OwnedState(location)
    for number in (1, 2):
        opened.artifacts.put(tmp_path / "m.onnx", DIGEST, lambda _: None)
        files = (StoredFile("m.onnx", DIGEST, len(CONTENT)), StoredFile(f"{number}.txt", DIGEST, len(CONTENT)))
        artifact = Artifact("m.onnx", Format.ONNX, "onnx", DIGEST)
        version = opened.registry.registry.register(Draft("team/fraud", artifact, files, Provenance("ada", 1.0, "/m")))
        copy = version_copies.local_copy(opened.registry, version, location.directory, lambda *_: None)
        os.utime(copy, (time.time() - 24 * HOUR,) * 2)
    yield opened
    opened.close()


def copies(state: OwnedState) -> list[str]:
    return sorted(path.name for path in (state.registry.directory / "versions").iterdir())


def served(state: OwnedState, number: int) -> EndpointRecord:
    path = state.registry.directory / "versions" / f"team@fraud@{number}" / "m.onnx"
    spec = DeploymentSpec("fraud", str(number), Artifact(str(path), Format.ONNX, "onnx", DIGEST))
    return EndpointRecord("fraud", {"model": "/m"}, (spec,), EndpointTraffic(), generation=1)


def test_copies_of_versions_that_are_there_stay(state: OwnedState) -> None:
    assert collect(state.registry, state.registry.registry, HOUR, dry_run=False).blobs == 0
    assert copies(state) == ["team@fraud@1", "team@fraud@2"]


def test_the_copy_of_a_deleted_version_goes(state: OwnedState) -> None:
    state.registry.registry.delete("team/fraud", "1")
    would = collect(state.registry, state.registry.registry, HOUR, dry_run=True)
    assert (would.blobs, would.size) == (2, 2 * len(CONTENT))
    assert copies(state) == ["team@fraud@1", "team@fraud@2"]
    assert collect(state.registry, state.registry.registry, HOUR, dry_run=False) == would
    assert copies(state) == ["team@fraud@2"]


def test_a_copy_that_is_young_stays(state: OwnedState) -> None:
    state.registry.registry.delete("team/fraud", "1")
    assert collect(state.registry, state.registry.registry, 48 * HOUR, dry_run=False).blobs == 0
    assert copies(state) == ["team@fraud@1", "team@fraud@2"]


@pytest.mark.parametrize("way_back", [False, True])
def test_a_copy_that_an_endpoint_serves_or_goes_back_to_stays(state: OwnedState, way_back: bool) -> None:
    record = served(state, 1)
    if way_back:
        record = EndpointRecord("fraud", {"model": "/m"}, (), EndpointTraffic(), generation=1, before=record)
    state.change([record], [], [Event(1.0, "ada", "endpoint.apply", "fraud")])
    state.registry.registry.delete("team/fraud", None)
    collect(state.registry, state.registry.registry, HOUR, dry_run=False)
    assert copies(state) == ["team@fraud@1"]
