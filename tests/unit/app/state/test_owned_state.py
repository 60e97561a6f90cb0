"""The state owned by a controller, in SQLite and PostgreSQL: everything or nothing, and only one owner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from headrace.app.state.location import Location
from headrace.app.state.owned_state import OwnedState, probe
from headrace.core import errors
from headrace.core.endpoint_records import EndpointRecord
from headrace.core.traffic import EndpointTraffic
from headrace.core.versions import Event
from headrace.store.state import State

replace = msgspec.structs.replace


@pytest.fixture
def location(url: str, tmp_path: Path) -> Location:
    """A state directory with SQLite in it, or a shared PostgreSQL."""
    database = None if url.startswith("sqlite") else url
    return Location(tmp_path / "state", database, str(tmp_path / "state" / "artifacts"))


@pytest.fixture
def state(location: Location) -> Iterator[OwnedState]:
    opened = OwnedState(location, "http://127.0.0.1:9000")
    yield opened
    opened.close()


def record(name: str = "m", generation: int = 1) -> EndpointRecord:
    return EndpointRecord(name, {"model": "/m"}, (), EndpointTraffic(), generation=generation)


def event(what: str = "endpoint.apply") -> Event:
    return Event(1.0, "ada", what, "m", None, {"generation": 1})


def events(state: OwnedState) -> list[str]:
    with State(state._database).reading() as transaction:
        return [event.what for event in transaction.events.latest(10)]


def test_records_come_back(state: OwnedState, location: Location) -> None:
    state.change([record("a"), record("b")], [], [event()])
    state.change([replace(record("a", 2), paused="lunch")], [record("b")], [event("endpoint.pause")])
    assert state.records() == [replace(record("a", 2), paused="lunch")]
    state.close()
    assert probe(location) == 1


def test_everything_is_kept_with_its_event_or_nothing(state: OwnedState) -> None:
    state.change([record("a")], [], [event()])
    with pytest.raises(errors.PreconditionFailed, match="'a' was changed by somebody else"):
        state.change([record("b"), record("a", 7)], [], [event("endpoint.pause")])
    assert state.records() == [record("a")]
    assert events(state) == ["endpoint.apply"]


def test_there_is_one_owner_who_says_where_it_answers(state: OwnedState, location: Location) -> None:
    with pytest.raises(errors.StateInUse, match=r"headrace serve, http://127.0.0.1:9000|controls this database"):
        OwnedState(location)
    with pytest.raises(errors.StateInUse):
        probe(location)
    state.close()
    OwnedState(location).close()


def test_an_owner_that_could_not_open_everything_owns_nothing(location: Location) -> None:
    broken = Location(location.directory, location.database, "nothing://such")
    with pytest.raises(errors.HeadraceError):
        OwnedState(broken)
    OwnedState(location).close()


def test_the_lease_is_taken_again_when_nobody_has_it(location: Location) -> None:
    """Of a database that several machines share: the owner slept longer than its lease."""
    now = [1000.0]

    def clock() -> float:
        return now[0]

    sleeper = OwnedState(location, clock=clock)
    sleeper.change([record()], [], [])
    now[0] += 60
    sleeper.renew()
    sleeper.change([record(generation=2)], [], [])
    if location.database is not None:
        now[0] += 60
        other = OwnedState(location, clock=clock)
        with pytest.raises(errors.StateInUse):
            sleeper.renew()
        with pytest.raises(errors.StoreFailed):
            sleeper.change([record(generation=3)], [], [])
        other.close()
        sleeper.renew()
    sleeper.change([record(generation=3)], [], [])
    assert sleeper.records() == [record(generation=3)]
    sleeper.close()
