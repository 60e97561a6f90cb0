"""One deployment at this gateway: its queue, its replicas, and the rules by which batches leave.

An idle replica takes a batch at once. A busy one is given a second batch only when that batch is full or the running
one is about to end; everything else waits here, where it can still be joined, expire, or go to another replica.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from headrace.core import errors
from headrace.core.calls import Batch, Call, ChunkSink
from headrace.core.models import Signature, SlotKind
from headrace.core.routes import DeploymentRoute
from headrace.pipeline import admission, batching
from headrace.pipeline.latency import LatencyModel
from headrace.pipeline.ports import CallLater, CallSoon, Clock, Recorder, Replica
from headrace.pipeline.queue import CallQueue
from headrace.telemetry.metrics import Refusal

HOP_S = 0.0005
"""A running batch that is predicted to end within this is as good as an idle replica."""
STREAM_CREDIT = 16
"""Chunks a replica may send ahead of the reader of a stream."""
_DECIDE_EVERY = 32
_MAX_DEATHS = 2


class Deployment:
    """Single-threaded: every method runs on the gateway's event loop."""

    def __init__(
        self,
        endpoint: str,
        route: DeploymentRoute,
        gateways: int,
        *,
        clock: Clock,
        call_soon: CallSoon,
        call_later: CallLater,
        recorder: Recorder,
    ) -> None:
        self.endpoint = endpoint
        self.route = route
        self.latency = LatencyModel()
        self.queue = CallQueue(route.batching.cost)
        self.replicas: list[Replica] = []
        self.finished_requests = 0
        self.refused_requests = 0
        self.next_deadline = float("inf")
        self._gateways = gateways
        self._clock = clock
        self._call_soon = call_soon
        self._call_later = call_later
        self._recorder = recorder
        self._budget = admission.RetryBudget()
        self._suspects: deque[Call] = deque()
        self._tested: Replica | None = None
        self._flush_scheduled = False
        self._delay_scheduled = False
        self._since_decision = 0
        self._batches = 0
        self._turn = 0
        self.update(route, gateways)

    # --- following the route table ---

    def update(self, route: DeploymentRoute, gateways: int) -> None:
        """Settings, signature or bounds changed."""
        self.route = route
        self._gateways = gateways
        self._decide()

    @property
    def signature(self) -> Signature:
        """Raises NotReady, with the reason, while nothing has loaded."""
        signature = self.route.signature
        if signature is None:
            raise errors.NotReady(
                f"model {self.endpoint!r} version {self.route.version} is not ready"
                + (f": {self.route.reason}" if self.route.reason else "; it is loading")
            )
        return signature

    @property
    def ready(self) -> bool:
        """Some replica can take work now."""
        return any(r.alive and not r.draining for r in self.replicas)

    def add_replica(self, replica: Replica) -> None:
        self.replicas.append(replica)
        self._decide()
        self.flush()

    def remove_replica(self, replica: Replica) -> None:
        if replica in self.replicas:
            self.replicas.remove(replica)
        if self._tested is replica:
            self._tested = None
        self._decide()

    def close(self) -> None:
        """The deployment left the route table: end what waits."""
        gone = errors.UnknownModel(f"model {self.endpoint!r} version {self.route.version} is no longer deployed")
        self.queue.fail_all(gone)
        while self._suspects:
            self._suspects.popleft().fail(gone)
        for replica in self.replicas:
            replica.close()
        self.replicas = []

    def learn(self, timings: Iterable[tuple[int, float]]) -> None:
        """Seed the latency model, e.g. with warm-up timings (rows, seconds)."""
        for rows, seconds in timings:
            self.latency.observe(rows, seconds)
        self._decide()

    def _decide(self) -> None:
        route = self.route
        self._since_decision = 0
        if route.signature is None:
            self.decision = batching.Decision(1, True, "the model has not loaded yet")
        else:
            self.decision = batching.decide(route.batching, route.signature, route.slots, self.latency)
        self.bounds = admission.derive(
            route.admission,
            route.slots,
            self.latency,
            self.decision.limit,
            sum(1 for r in self.replicas if not r.draining),
            self._gateways,
        )

    # --- in ---

    def admit(self, rows: int, nbytes: int, now: float, deadline: float) -> None:
        """Raise Overloaded or DeadlineExceeded when the request may not wait."""
        queue, bounds = self.queue, self.bounds
        refusal = admission.check(
            bounds, queue.rows, queue.bytes, rows, nbytes, deadline - now, self.latency.predict(min(rows, 1))
        )
        if refusal is not None:
            self.refused_requests += 1
            reason, error = refusal
            self._recorder.refused(self.endpoint, self.route.version, reason)
            raise error

    def enqueue(self, call: Call) -> None:
        """Let an admitted call wait for a replica."""
        self.queue.push(call)
        if call.deadline < self.next_deadline:
            self.next_deadline = call.deadline
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._call_soon(self._scheduled_flush)

    def _scheduled_flush(self) -> None:
        self._flush_scheduled = False
        self.flush()

    # --- out ---

    def flush(self) -> None:
        """Give replicas that can take work everything they can take."""
        if self._suspects:
            self._test_suspects()
        queue = self.queue
        while queue.count:
            now = self._clock()
            replica = self._choose(now)
            if replica is None or self._held_back(replica, now):
                return
            limit = self._limit()
            calls = queue.take(
                limit, self.route.batching.max_batch_cost, self.decision.alone, now, self.latency.predict(1)
            )
            if not calls:
                return
            self._send(replica, calls, now, limit)

    def _send(self, replica: Replica, calls: list[Call], now: float, limit: int) -> None:
        if calls[0].sink is not None:
            self._start_stream(replica, calls[0], calls[0].sink, now)
            return
        replica.submit(calls, now, 1 if self.decision.alone else limit, idempotent=self.route.idempotent)
        self._batches += 1

    def _start_stream(self, replica: Replica, call: Call, sink: ChunkSink, now: float) -> None:
        call.sent = now
        call.stream = replica.start_stream(call, sink, STREAM_CREDIT, idempotent=self.route.idempotent)
        call.waiter.set_result(None)

    def _limit(self) -> int:
        limit = self.decision.limit
        if limit == 1 and not self.decision.alone and self._batches % batching.EXPLORE_EVERY == 0:
            return min(batching.EXPLORE_ROWS, self.route.batching.max_batch_size)
        return limit

    def _choose(self, now: float) -> Replica | None:
        replicas = self.replicas
        if self.route.slots.kind is SlotKind.CONCURRENT:
            return self._choose_concurrent()
        second: Replica | None = None
        count = len(replicas)
        self._turn += 1
        for offset in range(count):
            replica = replicas[(self._turn + offset) % count]
            if replica is self._tested or not replica.alive or replica.draining:
                continue
            load = len(replica.batches)
            if load == 0:
                return replica
            if load == 1 and second is None and self._about_to_end(replica, now):
                second = replica
        return second

    def _choose_concurrent(self) -> Replica | None:
        able = [r for r in self.replicas if r.alive and not r.draining and r.outstanding < self.route.slots.count]
        return min(able, key=lambda r: r.outstanding, default=None)

    def _about_to_end(self, replica: Replica, now: float) -> bool:
        if self.queue.rows >= self.decision.limit and not self.decision.alone:
            return True
        for batch in replica.batches.values():
            return batch.sent + self.latency.predict(batch.rows) - now < HOP_S
        return True

    def _held_back(self, replica: Replica, now: float) -> bool:
        """max_queue_delay: an idle replica waits for a fuller batch, if the operator asked for that."""
        delay = self.route.batching.max_queue_delay_ms / 1e3
        if delay <= 0 or replica.outstanding or self.decision.alone or self.queue.rows >= self.decision.limit:
            return False
        oldest = self.queue.oldest()
        if oldest is None or now >= oldest.enqueued + delay:
            return False
        if not self._delay_scheduled:
            self._delay_scheduled = True
            self._call_later(oldest.enqueued + delay - now, self._delay_over)
        return True

    def _delay_over(self) -> None:
        self._delay_scheduled = False
        self.flush()

    # --- back ---

    def finished(self, replica: Replica, batch: Batch, busy: float, batch_rows: int) -> None:
        """A batch came back: learn, refill the replica, then let the callers go on."""
        self.latency.observe(batch_rows, busy)
        self._since_decision += 1
        if self._since_decision >= _DECIDE_EVERY:
            self._decide()
        if replica is self._tested:
            self._tested = None
        self.finished_requests += len(batch.calls)
        self._budget.earn(len(batch.calls))
        if self.queue.count or self._suspects:
            self.flush()
        for call in batch.calls:
            if not call.waiter.done():
                call.waiter.set_result(None)

    def stream_ended(self) -> None:
        """A stream gave its slot back."""
        self.finished_requests += 1
        self.flush()

    def find(self, replica_id: str) -> Replica | None:
        """The connected replica of this id."""
        return next((r for r in self.replicas if r.id == replica_id), None)

    def died(self, replica: Replica, computing: list[Batch], waiting: list[Batch]) -> None:
        """A replica died: what only waited goes back to the queue; what was computed is suspect."""
        self.remove_replica(replica)
        back = [call for batch in waiting for call in batch.calls if not call.waiter.done()]
        if back:
            self.queue.push_front(back)
        for batch in computing:
            for call in batch.calls:
                self._suspect(call, replica)
        self.flush()

    def _suspect(self, call: Call, replica: Replica) -> None:
        if call.waiter.done():
            return
        call.deaths += 1
        if not self.route.idempotent:
            call.fail(errors.ReplicaDied(f"replica {replica.id} died; the model is not idempotent, so no re-run"))
        elif call.deaths >= _MAX_DEATHS:
            call.fail(
                errors.PoisonRequest(
                    f"replicas died {call.deaths} times while they computed this request; it is not tried again"
                )
            )
        elif not self._budget.spend():
            self._recorder.refused(self.endpoint, self.route.version, Refusal.RETRY_BUDGET)
            call.fail(errors.ReplicaDied(f"replica {replica.id} died and the retry budget is used up"))
        else:
            self._recorder.retried(self.endpoint, self.route.version, 1)
            self._suspects.append(call)

    def _test_suspects(self) -> None:
        """Re-run suspects one at a time, alone on one replica, so that only the culprit can be hit again."""
        while self._suspects and self._tested is None:
            call = self._suspects[0]
            now = self._clock()
            if call.waiter.done() or call.deadline <= now:
                self._suspects.popleft()
                call.fail(errors.DeadlineExceeded("its deadline passed while it waited to be re-run after a death"))
                continue
            replica = next((r for r in self.replicas if r.alive and not r.draining and not r.outstanding), None)
            if replica is None:
                return
            self._suspects.popleft()
            self._tested = replica
            replica.submit([call], now, 1, idempotent=True, solo=True)

    # --- time ---

    def sweep(self, now: float) -> None:
        """End calls whose deadline has passed, waiting or in flight. Called by the gateway's coarse timer."""
        if self.queue.count or self._suspects:
            self.flush()
        if now < self.next_deadline:
            return
        earliest = self.queue.expire(now)
        for replica in self.replicas:
            for batch in replica.batches.values():
                for call in batch.calls:
                    if call.waiter.done():
                        continue
                    if call.deadline <= now:
                        call.fail(errors.DeadlineExceeded("the deadline passed while the model computed"))
                    elif call.deadline < earliest:
                        earliest = call.deadline
        for call in self._suspects:
            earliest = min(earliest, call.deadline)
        self.next_deadline = earliest
