from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from headrace.core import errors
from headrace.core.endpoint_records import EndpointRecord, Owner, OwnerKind
from headrace.core.endpoints import DeploymentSpec
from headrace.core.models import Artifact, Format
from headrace.core.traffic import EndpointTraffic
from headrace.store.state import State

replace = msgspec.structs.replace


def record(name: str = "fraud", generation: int = 1, version: str = "7") -> EndpointRecord:
    spec = DeploymentSpec(name, version, Artifact("/m.onnx", Format.ONNX, "onnx", "sha256:aa"))
    return EndpointRecord(
        name,
        {"model": f"{name}@{version}", "replicas": 2},
        (spec,),
        EndpointTraffic().aimed("main", spec.id),
        Owner(OwnerKind.FILE, "/etc/headrace.yaml"),
        generation,
        "ada",
        12.5,
    )


def kept(state: State, name: str = "fraud") -> EndpointRecord | None:
    with state.reading() as transaction:
        return transaction.endpoints.get(name)


def put(state: State, new: EndpointRecord) -> None:
    with state.writing() as transaction:
        transaction.endpoints.put(new)


def test_a_record_comes_back_as_it_was(state: State) -> None:
    first = record()
    put(state, first)
    assert kept(state) == first
    second = replace(record(generation=2, version="8"), before=first)
    put(state, second)
    assert kept(state) == second
    assert kept(state, "nobody") is None


def test_all_come_by_name(state: State) -> None:
    for name in ("b", "a", "ü/c"):
        put(state, record(name))
    with state.reading() as transaction:
        assert [r.name for r in transaction.endpoints.all()] == sorted(["b", "a", "ü/c"])


@pytest.mark.parametrize("generation", [1, 2, 4])
def test_a_writer_who_read_another_generation_is_told(state: State, generation: int) -> None:
    put(state, record())
    put(state, record(generation=2))
    with pytest.raises(errors.Conflict, match="'fraud' was changed by somebody else"):
        put(state, record(generation=generation, version="9"))
    assert kept(state) == record(generation=2)


def test_of_many_writers_one_wins(state: State) -> None:
    put(state, record())

    def write(number: int) -> bool:
        try:
            put(state, record(generation=2, version=str(number)))
        except errors.Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    assert won.count(True) == 1
    assert kept(state) == record(generation=2, version=str(won.index(True)))


def test_deleting_needs_the_generation_too(state: State) -> None:
    put(state, record())
    with pytest.raises(errors.Conflict), state.writing() as transaction:
        transaction.endpoints.delete("fraud", 2)
    with state.writing() as transaction:
        transaction.endpoints.delete("fraud", 1)
    assert kept(state) is None
    put(state, record())


def test_a_record_of_an_older_release_has_no_objectives() -> None:
    older = msgspec.to_builtins(record())
    del older["slo"]
    assert msgspec.json.decode(msgspec.json.encode(older), type=EndpointRecord) == record()
