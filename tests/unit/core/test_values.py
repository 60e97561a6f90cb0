"""The small values of the vocabulary: envelopes, errors, calls, replica states, routes."""

from __future__ import annotations

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from headrace.core import envelope, errors
from headrace.core.calls import Call
from headrace.core.replicas import ReplicaState, move
from headrace.core.requests import Outcome
from headrace.core.routes import RouteTable
from tests import fakes


@given(st.lists(st.binary(max_size=300), max_size=10), st.lists(st.integers(1, 50), max_size=60))
def test_envelopes_cut_anywhere(sent: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(envelope.wrap(message) for message in sent)
    splitter = envelope.Splitter()
    found: list[bytes] = []
    at = 0
    for cut in [*cuts, len(stream)]:
        found += [bytes(m) for m in splitter.feed(stream[at : at + cut])]
        at += cut
    assert found == sent


def test_envelope_beyond_the_limit_is_refused() -> None:
    with pytest.raises(errors.Bug, match="a message of"):
        envelope.Splitter().feed((envelope.MAX_MESSAGE + 1).to_bytes(4, "little"))


def every_error() -> list[type[errors.HeadraceError]]:
    found: list[type[errors.HeadraceError]] = []
    waiting: list[type[errors.HeadraceError]] = [errors.HeadraceError]
    while waiting:
        cls = waiting.pop()
        found.append(cls)
        waiting += cls.__subclasses__()
    return found


@pytest.mark.parametrize("cls", every_error(), ids=lambda c: c.__name__)
def test_errors_survive_a_process_boundary(cls: type[errors.HeadraceError]) -> None:
    back = errors.from_code(cls.code, "why")
    assert type(back) is cls
    assert (back.message, str(back)) == ("why", "why")
    assert cls().message == (cls.__doc__ or "").strip()


def test_codes_are_unique_and_unknown_codes_are_the_runtimes() -> None:
    codes = [cls.code for cls in every_error()]
    assert len(set(codes)) == len(codes)
    assert type(errors.from_code("from the future", "x")) is errors.RuntimeFailed


def test_the_drawing_shows_every_error() -> None:
    assert errors.__doc__ is not None
    for cls in every_error():
        assert cls.__name__ in errors.__doc__


def test_untraced_errors_hold_no_frames() -> None:
    try:
        try:
            raise ValueError("inner")
        except ValueError as inner:
            raise errors.InvalidInput("outer") from inner
    except errors.InvalidInput as error:
        kept = error.untraced()
    assert kept.__traceback__ is kept.__cause__ is kept.__context__ is None


def test_retry_after_is_per_error() -> None:
    assert errors.Overloaded("x", retry_after=7.0).retry_after == 7.0
    assert errors.Overloaded().retry_after == 1.0
    assert errors.InvalidInput().retry_after is None


def test_call_ends_once() -> None:
    call = Call(fakes.bound(3), 10.0, 1.0, fakes.FakeWaiter())
    call.fail(errors.NotReady("first"))
    call.fail(errors.Bug("second"))
    assert isinstance(call.error, errors.NotReady)
    assert (call.rows, call.deaths, call.taken) == (3, 0, False)


def test_outcomes_have_names() -> None:
    numbers = [v for k, v in vars(Outcome).items() if k.isupper() and isinstance(v, int)]
    assert sorted(numbers) == list(range(len(Outcome.NAMES)))


@pytest.mark.parametrize(
    ("current", "to", "legal"),
    [
        (ReplicaState.STARTING, ReplicaState.LOADING, True),
        (ReplicaState.LOADING, ReplicaState.WARMING, True),
        (ReplicaState.WARMING, ReplicaState.READY, True),
        (ReplicaState.STARTING, ReplicaState.READY, True),
        (ReplicaState.READY, ReplicaState.DRAINING, True),
        (ReplicaState.DRAINING, ReplicaState.STOPPED, True),
        (ReplicaState.READY, ReplicaState.LOADING, False),
        (ReplicaState.DRAINING, ReplicaState.READY, False),
        (ReplicaState.STOPPED, ReplicaState.STARTING, False),
        (ReplicaState.FAILED, ReplicaState.READY, False),
    ],
)
def test_moves(current: ReplicaState, to: ReplicaState, legal: bool) -> None:
    if legal:
        assert move(current, to) is to
    else:
        with pytest.raises(errors.Bug, match=f"from {current} to {to}"):
            move(current, to)
    assert move(current, current) is current


def test_every_live_state_may_fail() -> None:
    for state in ReplicaState:
        if state is not ReplicaState.STOPPED:
            assert move(state, ReplicaState.FAILED) is ReplicaState.FAILED


def test_route_tables_cross_processes() -> None:
    table = fakes.route_table(3, 9, 2, m=[fakes.deployment_route(reason="ü")], **{"a/b": [fakes.deployment_route()]})
    raw = msgspec.msgpack.encode(table)
    assert msgspec.msgpack.decode(raw, type=RouteTable) == table
