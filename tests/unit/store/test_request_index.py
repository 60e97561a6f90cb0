"""The request index: everything that gateways write is found once, outcomes join it, and it forgets in time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core import errors, request_log
from headrace.core.experiments import HourTally, Joined, Outcome, Receipt
from headrace.core.request_log import SegmentHeader
from headrace.core.routes import RequestLogRoute
from headrace.gateway.request_log import Segment
from headrace.store.request_index import FILE, RequestIndex

NOON = 12 * 3600.0


class Writer:
    """A gateway's side."""

    def __init__(self, folder: Path, size: int = 1 << 16) -> None:
        self.segment = Segment(RequestLogRoute("x1", str(folder)), SegmentHeader("fraud", "x1", 0), size)

    def shares(self, **shares: float) -> None:
        assert self.segment.append(request_log.shares(shares))

    def answer(self, request_id: str, arm: str = "a", at: float = NOON, *, pinned: bool = False) -> None:
        assert self.segment.append(request_log.answered(request_id, arm.encode(), at, pinned, False))


@pytest.fixture
def index(tmp_path: Path) -> Iterator[RequestIndex]:
    opened = RequestIndex(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def writer(index: RequestIndex, tmp_path: Path) -> Writer:
    made = Writer(tmp_path)
    made.shares(a=0.75, b=0.25)
    return made


def by_arm(index: RequestIndex) -> dict[str, HourTally]:
    return {tally.arm: tally for tally in index.tallies("x1")}


def test_a_growing_log_is_read_once(index: RequestIndex, writer: Writer, tmp_path: Path) -> None:
    for count in (3, 4):
        for number in range(count):
            writer.answer(f"{count}-{number}", "ab"[number % 2])
        index.take_in()
        assert not index.take_in()
    found = by_arm(index)
    assert (found["a"].requests, found["b"].requests) == (4, 3)
    assert (found["a"].expected, found["b"].expected) == (5.25, 1.75)
    assert len(list(tmp_path.glob("*.requests"))) == 1, "it is still being written"
    writer.segment.close()
    index.take_in()
    assert not list(tmp_path.glob("*.requests"))
    assert by_arm(index)["a"].requests == 4


def test_reading_goes_on_in_another_process(index: RequestIndex, writer: Writer, tmp_path: Path) -> None:
    writer.answer("one")
    index.take_in()
    index.close()
    again = RequestIndex(tmp_path)
    writer.answer("two")
    assert again.take_in() == 1
    assert by_arm(again)["a"].expected == 1.5, "the shares of before hold"
    again.close()


def test_a_long_log(index: RequestIndex, tmp_path: Path) -> None:
    """Entries lie across the pieces in which it is read."""
    writer = Writer(tmp_path, 4 << 20)
    for number in range(20_000):
        writer.answer(f"{number:0100d}")
    assert index.take_in() == 20_000
    assert index.join([Outcome(f"{n:0100d}", 1.0) for n in range(0, 20_000, 7)], NOON)[-1].status is Joined.JOINED


def test_outcomes_join_by_request_id(index: RequestIndex, writer: Writer) -> None:
    writer.answer("one", "b")
    index.take_in()
    assert index.join([Outcome("one", 1.0), Outcome("two", 1.0)], NOON) == [
        Receipt("one", Joined.JOINED, "b"),
        Receipt("two", Joined.UNKNOWN),
    ]
    assert (by_arm(index)["b"].outcomes, by_arm(index)["b"].mean) == (1, 1.0)


def test_the_latest_outcome_of_a_request_counts(index: RequestIndex, writer: Writer) -> None:
    writer.answer("one")
    writer.answer("other")
    index.take_in()
    index.join([Outcome("other", 0.0)], NOON)

    def status(reward: float, at: float | None = None) -> Joined:
        return index.join([Outcome("one", reward, at)], NOON)[0].status

    assert status(1.0) is Joined.JOINED
    assert status(1.0) is Joined.UNCHANGED
    assert status(5.0, NOON - 1) is Joined.OLDER
    assert status(3.0, NOON + 1) is Joined.REPLACED
    found = by_arm(index)["a"]
    assert (found.outcomes, found.mean, found.variance, found.others) == (2, 1.5, 4.5, 1)
    assert status(1.0, NOON + 2) is Joined.REPLACED
    assert by_arm(index)["a"].others == 0


def test_a_late_outcome_counts_in_the_hour_of_its_request(index: RequestIndex, writer: Writer) -> None:
    writer.answer("one", at=NOON)
    index.take_in()
    index.join([Outcome("one", 1.0)], NOON + 20 * 3600)
    (found,) = [tally for tally in index.tallies("x1") if tally.outcomes]
    assert found.hour == 12


def test_requests_that_named_their_deployment_are_found_and_not_counted(index: RequestIndex, writer: Writer) -> None:
    writer.answer("one", pinned=True)
    index.take_in()
    assert index.join([Outcome("one", 1.0)], NOON) == [Receipt("one", Joined.NOT_COUNTED, "a")]
    found = by_arm(index)["a"]
    assert (found.pinned, found.requests, found.expected, found.outcomes) == (1, 0, 0, 0)


def test_the_first_answer_under_an_id_counts(index: RequestIndex, writer: Writer) -> None:
    writer.answer("one", "a")
    writer.answer("one", "b")
    index.take_in()
    assert index.join([Outcome("one", 1.0)], NOON)[0].arm == "a"
    assert (by_arm(index)["a"].requests, by_arm(index)["b"].requests, by_arm(index)["b"].repeated) == (1, 0, 1)


def test_a_batch_is_joined_as_a_whole_or_not_at_all(index: RequestIndex, writer: Writer) -> None:
    writer.answer("one")
    index.take_in()

    def broken() -> Iterator[Outcome]:
        yield Outcome("one", 1.0)
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        index.join(broken(), NOON)
    assert not by_arm(index)["a"].outcomes
    assert index.join([Outcome("one", 1.0)], NOON)[0].status is Joined.JOINED


def test_old_requests_are_forgotten_and_their_tallies_stay(index: RequestIndex, writer: Writer) -> None:
    for hour in range(10):
        writer.answer(f"at-{hour}", at=3600.0 * hour)
    index.take_in()
    assert index.forget(3 * 3600.0, most=1000) == 3
    assert index.forget(0.0, most=2) == 5
    receipts = index.join([Outcome(f"at-{hour}", 1.0) for hour in range(10)], NOON)
    assert [r.request_id for r in receipts if r.status is Joined.JOINED] == ["at-8", "at-9"]
    assert sum(tally.requests for tally in index.tallies("x1")) == 10
    assert index.forget(1e12, most=1000) == 2
    assert index.forget(1e12, most=1000) == 0


def test_a_new_disk_goes_on_from_what_the_state_has(index: RequestIndex, writer: Writer) -> None:
    kept = HourTally(4, 0.5, 1.0, 0, arm="a", hour=11, requests=9)
    index.seed("x1", [kept])
    assert index.tallies("x1") == [kept]
    index.seed("x1", [HourTally(arm="b", hour=1)])
    assert index.tallies("x1") == [kept]


def test_what_was_lost_is_known(index: RequestIndex, writer: Writer) -> None:
    assert index.lost("x1") == 0
    for count in (3, 4):
        writer.segment.append(request_log.lost(count))
        index.take_in()
    assert index.lost("x1") == 7


def test_what_a_killed_writer_was_making_is_removed(tmp_path: Path) -> None:
    old, new = tmp_path / "1-0-1.partial", tmp_path / "2-0-1.partial"
    for path in (old, new):
        path.write_bytes(b"")
    os.utime(old, (1.0, 1.0))
    RequestIndex(tmp_path).close()
    assert [path.name for path in tmp_path.glob("*.partial")] == [new.name]


def test_a_damaged_index_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(errors.StoreFailed, match=r"index\.db: file is not a database"):
        RequestIndex(tmp_path)


def test_a_foreign_file_is_named(index: RequestIndex, tmp_path: Path) -> None:
    (tmp_path / "9.requests").write_bytes(b"\x89PNG" + bytes(100))
    with pytest.raises(errors.Corrupted, match=r"9\.requests"):
        index.take_in()


def test_a_full_disk_changes_nothing(index: RequestIndex, writer: Writer) -> None:
    """SQLite's own bound on the size of a file gives the error that a full disk gives."""
    index.take_in()
    (pages,) = index._db.execute("PRAGMA page_count").fetchone()
    index._db.execute(f"PRAGMA max_page_count = {pages}")
    for number in range(500):
        writer.answer(f"{number:0100d}")
    with pytest.raises(errors.StorageFull):
        index.take_in()
    index._db.execute("PRAGMA max_page_count = 1000000")
    assert index.take_in() == 500


def test_what_a_power_cut_left_of_a_log_is_removed(index: RequestIndex, tmp_path: Path) -> None:
    path = tmp_path / "9.requests"
    path.write_bytes(bytes(4096))
    assert index.take_in() == 0
    assert not path.exists()


outcomes = st.tuples(st.integers(0, 4), st.sampled_from([0.0, 1.0, 2.5]), st.integers(0, 3))


@settings(max_examples=25, deadline=None)
@given(st.lists(outcomes, max_size=30), st.integers(1, 30))
def test_in_any_order_the_latest_outcome_of_each_request_counts(came: list[tuple[int, float, int]], batch: int) -> None:
    """Of those with the same time, the one that came last."""
    latest: dict[int, tuple[int, float]] = {}
    for number, reward, at in came:
        if number not in latest or at >= latest[number][0]:
            latest[number] = at, reward
    with TemporaryDirectory() as folder:
        index = RequestIndex(Path(folder))
        writer = Writer(Path(folder))
        for number in range(4):  # the fifth was never answered
            writer.answer(str(number), "ab"[number % 2])
        index.take_in()
        for begin in range(0, len(came), batch):
            part = came[begin : begin + batch]
            index.join([Outcome(str(n), reward, NOON + at) for n, reward, at in part], NOON)
        for arm, numbers in (("a", (0, 2)), ("b", (1, 3))):
            expected = [latest[number][1] for number in numbers if number in latest]
            found = by_arm(index)[arm]
            assert found.outcomes == len(expected)
            assert found.mean == pytest.approx(sum(expected) / len(expected) if expected else 0.0)
        writer.segment.close()
        index.close()
