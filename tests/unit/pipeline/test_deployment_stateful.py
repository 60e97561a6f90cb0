"""Any order of arrivals, answers, deaths, departures and time: every call ends exactly once, and nothing leaks."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headrace.core import errors
from headrace.core.calls import Call
from headrace.core.endpoints import BatchingSettings, BatchMode
from headrace.core.models import SlotKind, Slots
from tests.fakes import FakeReplica, FakeWaiter, World


class Traffic(RuleBasedStateMachine):
    """Drives a deployment the way gateway, replicas and clients do."""

    @initialize(
        limit=st.sampled_from([1, 3, 8]),
        cost=st.sampled_from([None, 4.0]),
        delay=st.sampled_from([0.0, 20.0]),
        mode=st.sampled_from(list(BatchMode)),
        concurrent=st.booleans(),
        idempotent=st.booleans(),
    )
    def begin(
        self, limit: int, cost: float | None, delay: float, mode: BatchMode, concurrent: bool, idempotent: bool
    ) -> None:
        self.limit, self.cost, self.idempotent = limit, cost, idempotent
        self.alone = concurrent or mode in (BatchMode.OFF, BatchMode.EXACT) or limit == 1
        self.slots = Slots(SlotKind.CONCURRENT, 3) if concurrent else Slots()
        self.world = World(
            batching=BatchingSettings(mode=mode, max_batch_size=limit, max_batch_cost=cost, max_queue_delay_ms=delay),
            idempotent=idempotent,
            slots=self.slots,
        )
        self.calls: list[Call] = []
        self.replicas: list[FakeReplica] = []
        self.seen: Counter[int] = Counter()
        self.computing_at_death: Counter[int] = Counter()
        self.deaths = 0

    # --- what happens ---

    @rule(rows=st.integers(0, 10), mode=st.sampled_from("ab"), timeout=st.sampled_from([0.01, 0.5, 3.0, 60.0]))
    def arrive(self, rows: int, mode: str, timeout: float) -> None:
        self.calls.append(self.world.call(rows, mode=mode, timeout=timeout))

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.03, 0.7, 5.0]))
    def wait(self, seconds: float) -> None:
        self.world.run(seconds)

    @rule(which=st.integers(0, 100), late=st.booleans())
    def leave(self, which: int, late: bool) -> None:
        if self.calls:
            call = self.calls[which % len(self.calls)]
            assert isinstance(call.waiter, FakeWaiter)
            call.waiter.cancel()

    @rule()
    def connect(self) -> None:
        if len([r for r in self.replicas if r.alive]) < 3:
            self.replicas.append(self.world.replica())

    @rule(
        which=st.integers(0, 100), batch=st.integers(0, 1), fail=st.booleans(), busy=st.sampled_from([1e-4, 0.01, 2.0])
    )
    def answer(self, which: int, batch: int, fail: bool, busy: float) -> None:
        busy_ones = [r for r in self.replicas if r.batches]
        if busy_ones:
            replica = busy_ones[which % len(busy_ones)]
            batches = list(replica.batches.values())
            replica.answer(batches[batch % len(batches)], busy=busy, error=errors.ModelRaised() if fail else None)

    @rule(which=st.integers(0, 100), computing=st.integers(0, 3))
    def die(self, which: int, computing: int) -> None:
        alive = [r for r in self.replicas if r.alive]
        if alive:
            replica = alive[which % len(alive)]
            for batch in list(replica.batches.values())[:computing]:
                self.computing_at_death.update(id(c) for c in batch.calls if not c.waiter.done())
            self.deaths += 1
            replica.die(computing)

    @precondition(lambda self: self.replicas)
    @rule(which=st.integers(0, 100), draining=st.booleans())
    def drain(self, which: int, draining: bool) -> None:
        self.replicas[which % len(self.replicas)].draining = draining

    # --- what holds at all times ---

    @invariant()
    def queue_counts_what_waits(self) -> None:
        queue = self.world.deployment.queue
        waiting = [c for group in queue._groups.values() for c in group]
        assert queue.count == len(waiting)
        assert queue.rows == sum(c.rows for c in waiting)
        assert queue.bytes == sum(c.bound.nbytes for c in waiting)
        assert all(not c.taken for c in waiting)

    @invariant()
    def every_call_is_in_one_place(self) -> None:
        deployment = self.world.deployment
        places: Counter[int] = Counter(id(c) for group in deployment.queue._groups.values() for c in group)
        places.update(id(c) for c in deployment._suspects)
        places.update(id(c) for r in self.replicas for b in r.batches.values() for c in b.calls)
        for call in self.calls:
            assert places[id(call)] <= 1
            assert call.waiter.done() or places[id(call)] == 1, "a call is nowhere and has not ended"

    @invariant()
    def batches_keep_the_rules(self) -> None:
        for replica in self.replicas:
            room = self.slots.count if self.slots.kind is SlotKind.CONCURRENT else 2
            assert len(replica.batches) <= room
            for calls, limit, idempotent, solo in replica.sent[self.seen[id(replica)] :]:
                self.check_batch(calls, limit, idempotent, solo)
            self.seen[id(replica)] = len(replica.sent)

    def check_batch(self, calls: list[Call], limit: int, idempotent: bool, solo: bool) -> None:
        rows = sum(c.rows for c in calls)
        if self.alone:
            assert len(calls) == 1
        if len(calls) > 1:
            assert rows <= self.limit
            assert self.cost is None or rows <= self.cost
        assert solo == any(self.computing_at_death[id(c)] for c in calls), "suspects, and only they, run solo"
        assert not solo or (len(calls) == 1 and limit == 1 and self.idempotent)
        assert idempotent or not self.idempotent
        if not self.deaths:
            order = [self.calls.index(c) for c in calls]
            assert order == sorted(order), "first in, first out"

    @invariant()
    def poison_after_exactly_two_deaths(self) -> None:
        for call in self.calls:
            if isinstance(call.error, errors.PoisonRequest):
                assert self.computing_at_death[id(call)] == 2
            if self.computing_at_death[id(call)] and not self.idempotent:
                assert call.waiter.done()

    # --- the end ---

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        for replica in self.replicas:
            replica.draining = False
        self.replicas.append(self.world.replica())
        for _ in range(len(self.calls) * 3 + 5):
            self.world.run(0.05)
            for replica in self.replicas:
                while replica.batches:
                    replica.answer(next(iter(replica.batches.values())))
        deployment = self.world.deployment
        assert all(c.waiter.done() for c in self.calls)
        assert all((c.error is None) != (c.outputs is None) for c in self.calls if resolved_in_time(c))
        assert (deployment.queue.count, deployment.queue.rows, deployment.queue.bytes) == (0, 0, 0)
        assert deployment.idle
        assert deployment._aside is None
        assert deployment._test is None
        assert all(r.rows_in_flight == 0 for r in self.replicas)


def resolved_in_time(call: Call) -> bool:
    """Neither cancelled nor ended by its deadline while a replica worked: there both may be set, the error counts."""
    assert isinstance(call.waiter, FakeWaiter)
    return not call.waiter.cancelled and not isinstance(call.error, errors.DeadlineExceeded)


TestTraffic = Traffic.TestCase
TestTraffic.settings = settings(
    max_examples=120,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


class NoReplicas(RuleBasedStateMachine):
    """With no replica at all, time alone ends every call, at its deadline and not much later."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.calls: list[Call] = []

    @rule(timeout=st.sampled_from([0.0, 0.01, 0.5, 3.0]))
    def arrive(self, timeout: float) -> None:
        self.calls.append(self.world.call(timeout=timeout))

    @rule()
    def connect_and_lose(self) -> None:
        replica = self.world.replica()
        self.world.run()
        replica.die(computing=1)

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0]))
    def wait(self, seconds: float) -> None:
        self.world.run(seconds)
        now = self.world.clock()
        assert all(c.waiter.done() for c in self.calls if c.deadline <= now)

    def teardown(self) -> None:
        self.world.run(10.0)
        assert all(c.waiter.done() for c in self.calls)
        assert self.world.deployment.queue.count == 0


TestNoReplicas = NoReplicas.TestCase
TestNoReplicas.settings = settings(max_examples=50, stateful_step_count=25, deadline=None)
