"""The queue against a plain list: same order, same drops, and counters that come back to zero."""

from __future__ import annotations

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headrace.core import errors
from headrace.core.calls import Call
from headrace.core.padding import PaddedInput, Padding
from headrace.pipeline.queue import CallQueue, call_cost
from tests.fakes import FakeWaiter, bound


def make(rows: int = 1, *, mode: str = "", deadline: float = 100.0, enqueued: float = 0.0) -> Call:
    return Call(bound(rows, mode=mode), deadline, enqueued, FakeWaiter())


def take(
    queue: CallQueue, limit: int = 100, *, cost: float | None = None, alone: bool = False, now: float = 1.0
) -> list[Call]:
    return queue.take(limit, cost, alone, now, 0.0)


def test_empty_queue_gives_nothing() -> None:
    assert take(CallQueue()) == []


def test_batch_is_the_oldest_call_and_its_key() -> None:
    queue = CallQueue()
    calls = [make(mode=m) for m in "abab"]
    for call in calls:
        queue.push(call)
    assert take(queue) == [calls[0], calls[2]]
    assert take(queue) == [calls[1], calls[3]]
    assert (queue.count, queue.rows, queue.bytes) == (0, 0, 0)


def test_calls_that_would_be_late_when_computed_are_dropped_with_their_waiting_time() -> None:
    queue = CallQueue()
    late, fine = make(deadline=1.4), make(deadline=1.6)
    queue.push(late)
    queue.push(fine)
    assert queue.take(10, None, False, 1.0, 0.5) == [fine]
    assert isinstance(late.error, errors.DeadlineExceeded)
    assert "1000 ms" in late.error.message
    assert (queue.expired, queue.abandoned) == (1, 0)


def test_a_call_that_was_sent_before_it_was_late_is_not_told_that_it_waited_in_the_queue() -> None:
    queue = CallQueue()
    call = make(deadline=1.4)
    queue.push(call)
    assert take(queue, now=0.5) == [call]
    call.sent, call.replica = 0.5, "m@1#0"
    queue.push_front([call])
    assert take(queue, now=2.0) == []
    assert isinstance(call.error, errors.DeadlineExceeded)
    assert "2000 ms: replica m@1#0 died before it answered" in call.error.message
    assert "queue" not in call.error.message


def test_abandoned_calls_are_dropped_and_counted() -> None:
    queue = CallQueue()
    gone, stays = make(), make()
    queue.push(gone)
    queue.push(stays)
    gone.waiter.cancel()  # type: ignore[attr-defined]
    assert take(queue) == [stays]
    assert (queue.expired, queue.abandoned) == (0, 1)


def test_zero_row_calls_ride_along() -> None:
    queue = CallQueue()
    calls = [make(rows) for rows in (0, 3, 0, 1)]
    for call in calls:
        queue.push(call)
    assert take(queue, 3) == calls[:3]
    assert take(queue, 3) == calls[3:]


def test_push_front_goes_before_everything_and_may_be_repeated() -> None:
    queue = CallQueue()
    first, second, third = make(mode="a"), make(mode="b"), make(mode="a")
    for call in (first, second):
        queue.push(call)
    for _ in range(3):
        assert take(queue) == [first]
        queue.push_front([first])
    queue.push(third)
    assert queue.oldest() is first
    assert take(queue) == [first, third]
    assert take(queue) == [second]
    assert queue.oldest() is None


def test_expire_ends_the_late_and_tells_the_next_deadline() -> None:
    queue = CallQueue()
    calls = [make(deadline=d, mode=m) for d, m in ((1.0, "a"), (3.0, "a"), (2.0, "b"))]
    for call in calls:
        queue.push(call)
    assert queue.expire(1.5) == 2.0
    assert isinstance(calls[0].error, errors.DeadlineExceeded)
    assert queue.count == 2
    assert queue.expire(5.0) == float("inf")
    assert (queue.count, queue.rows, queue.bytes) == (0, 0, 0)
    assert queue.oldest() is None


def test_fail_all_ends_everything_once() -> None:
    queue = CallQueue()
    calls = [make(mode=m) for m in "ab"]
    for call in calls:
        queue.push(call)
    queue.fail_all(errors.NotReady("gone"))
    queue.fail_all(errors.NotReady("gone"))
    assert all(isinstance(c.error, errors.NotReady) for c in calls)
    assert (queue.count, queue.rows, queue.bytes) == (0, 0, 0)


@pytest.mark.parametrize(("unit", "expected"), [("rows", 3), ("elements", 6), ("bytes", 24)])
def test_cost_units(unit: str, expected: float) -> None:
    assert call_cost(make(3), unit) == expected


@pytest.mark.parametrize(("unit", "expected"), [("rows", 3), ("elements", 3 * 8), ("bytes", 3 * 8 * 4)])
def test_a_call_that_may_be_padded_costs_what_its_bucket_takes(unit: str, expected: float) -> None:
    """Whoever shares its batch, the sum is not passed; ``bytes`` grow as the elements do."""
    padding = Padding(("n",), (8,), {"x": PaddedInput(((0, 0),), 0)}, {})
    call = make(3)
    call.bound = msgspec.structs.replace(call.bound, padded=padding.fit(["x"], [(2,)]))
    assert call_cost(call, unit) == expected


def test_many_keys_cost_no_more_than_few() -> None:
    """Linear: 20,000 calls of 20,000 keys and of one key are worked off without rescanning."""
    for modes in (20_000, 1):
        queue = CallQueue()
        for index in range(20_000):
            queue.push(make(mode=str(index % modes)))
        batches = 0
        while take(queue, 64):
            batches += 1
        assert batches == (20_000 if modes > 1 else 313)


class AgainstList(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.queue = CallQueue()
        self.waiting: list[Call] = []
        self.taken: list[Call] = []
        self.now = 0.0

    @rule(rows=st.integers(0, 5), mode=st.sampled_from("abc"), patience=st.sampled_from([0.5, 2.0, 50.0]))
    def push(self, rows: int, mode: str, patience: float) -> None:
        call = make(rows, mode=mode, deadline=self.now + patience, enqueued=self.now)
        self.queue.push(call)
        self.waiting.append(call)

    @rule(count=st.integers(1, 5))
    def push_front(self, count: int) -> None:
        back, self.taken = self.taken[:count], self.taken[count:]
        back = [c for c in back if not c.waiter.done()]
        self.queue.push_front(back)
        self.waiting[:0] = back

    @rule(limit=st.integers(1, 6), cost=st.sampled_from([None, 3.0]), alone=st.booleans())
    def take(self, limit: int, cost: float | None, alone: bool) -> None:
        expected: list[Call] = []
        live = [c for c in self.waiting if not c.waiter.done() and c.deadline > self.now]
        key = live[0].bound.key if live else None
        rows = 0
        for call in (c for c in live if c.bound.key == key):
            rows += call.rows
            if expected and (alone or rows > limit or (cost is not None and rows > cost)):
                break
            expected.append(call)
        assert take(self.queue, limit, cost=cost, alone=alone, now=self.now) == expected
        self.taken += expected
        self.waiting = [c for c in self.waiting if not c.taken]

    @rule(seconds=st.sampled_from([0.3, 1.0, 5.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        earliest = self.queue.expire(self.now)
        self.waiting = [c for c in self.waiting if not c.taken]
        assert earliest == min((c.deadline for c in self.waiting), default=float("inf"))
        assert all(c.deadline > self.now and not c.waiter.done() for c in self.waiting)

    @rule(which=st.integers(0, 50))
    def leave(self, which: int) -> None:
        if self.waiting:
            self.waiting[which % len(self.waiting)].waiter.cancel()  # type: ignore[attr-defined]

    @invariant()
    def counters_agree(self) -> None:
        left = [c for c in self.waiting if not c.taken]
        assert self.queue.count == len(left)
        assert self.queue.rows == sum(c.rows for c in left)
        assert self.queue.bytes == sum(c.bound.nbytes for c in left)


TestAgainstList = AgainstList.TestCase
TestAgainstList.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
