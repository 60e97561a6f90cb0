"""From the text of a file to records: real files, inspected in real processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headrace.app.endpoints import applying
from headrace.app.state.location import Location
from headrace.core import errors
from headrace.core.endpoint_records import EndpointRecord, Owner, OwnerKind
from tests.operated import ECHO


def read(folder: Path, text: str, there: dict[str, EndpointRecord] | None = None) -> dict[str, EndpointRecord]:
    path = folder / "headrace.yaml"
    location = Location(folder / "state", None, str(folder / "state" / "artifacts"))
    owner = Owner(OwnerKind.FILE, str(path))
    records = asyncio.run(applying.read(text, path, owner, there or {}, location, None))
    return {record.name: record for record in records}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.echo").write_text(ECHO)
    (tmp_path / "b.echo").write_text(ECHO)
    for version in ("3", "10"):
        (tmp_path / "repository" / version).mkdir(parents=True)
        (tmp_path / "repository" / version / "model.echo").write_text(ECHO)
    return tmp_path


def test_records_hold_what_was_asked_for_and_what_it_came_to(folder: Path) -> None:
    (record,) = read(folder, "replicas: 2\nendpoints: {m: {model: a.echo, timeout: 7}}\n").values()
    (spec,) = record.deployments
    assert (spec.id, spec.replicas, spec.timeout_s, spec.artifact.path) == ("m@1", 2, 7.0, str(folder / "a.echo"))
    # Complete in itself: what stands at the top of the file is in it, and paths are absolute.
    assert record.document == {"model": str(folder / "a.echo"), "replicas": 2, "timeout": "7s"}
    assert record.traffic.targets == {"main": "m@1"}
    assert str(record.owner) == f"file {folder / 'headrace.yaml'}"


def test_several_deployments_have_their_numbers_in_the_document(folder: Path) -> None:
    text = "endpoints: {m: {traffic: {x: 1}, deployments: {x: {model: a.echo}, y: {model: b.echo}}}}\n"
    record = read(folder, text)["m"]
    assert {name: d["version"] for name, d in record.document["deployments"].items()} == {"x": "1", "y": "2"}
    # Named otherwise and in another order they are the same versions still.
    text = "endpoints: {m: {traffic: {y: 1}, deployments: {y: {model: b.echo}, z: {model: a.echo}}}}\n"
    again = read(folder, text, {"m": record})["m"]
    assert again.traffic.targets == {"y": "m@2", "z": "m@1"}
    assert {name: d["version"] for name, d in again.document["deployments"].items()} == {"y": "2", "z": "1"}


def test_versions_of_a_folder(folder: Path) -> None:
    record = read(folder, "endpoints: {m: {model: repository}}\n")["m"]
    assert record.traffic.targets == {"main": "m@10"}
    chosen = read(folder, "endpoints: {m: {deployments: {main: {model: repository, version: 3}}}}\n")["m"]
    assert chosen.traffic.targets == {"main": "m@3"}
    assert chosen.document["deployments"] == {"main": {"model": str(folder / "repository"), "version": "3"}}


def test_all_that_is_wrong_is_told_at_once(folder: Path) -> None:
    (folder / "bad.onnx").write_bytes(b"no model")
    (folder / "worse.onnx").write_bytes(b"none either")
    with pytest.raises(errors.LoadFailed) as caught:
        read(folder, "endpoints: {m: {model: bad.onnx}, n: {model: worse.onnx}, o: {model: a.echo}}\n")
    first, *rest = caught.value.message.splitlines()
    assert first == "nothing was changed:"
    assert [line.partition(":")[0] for line in rest if line.startswith("endpoint")] == [
        "endpoint 'm' version 1",
        "endpoint 'n' version 1",
    ]


def test_a_missing_model_is_told_with_its_place(folder: Path) -> None:
    with pytest.raises(errors.BadSettings, match=r"headrace.yaml line 1 column 24: there is no file or folder"):
        read(folder, "endpoints: {m: {model: c.echo}}\n")
