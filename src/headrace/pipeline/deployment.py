"""One deployment at this gateway: its queue, its replicas, and the rules by which batches leave.

An idle replica takes a batch at once. A busy one is given a second batch only when that batch is full or the running
one is about to end; everything else waits here, where it can still be joined, expire, or go to another replica.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import monotonic

from headrace.core import errors
from headrace.core.binding import Bound
from headrace.core.calls import Batch, Call, ChunkSink
from headrace.core.fallbacks import Fallback, FallbackKind
from headrace.core.models import Signature, SlotKind
from headrace.core.routes import DeploymentRoute
from headrace.core.shadows import Mirrored, ShadowLoad
from headrace.core.tensors import Tensor
from headrace.pipeline import admission, batching
from headrace.pipeline.breaker import Breaker
from headrace.pipeline.latency import LatencyModel
from headrace.pipeline.ports import CallLater, CallSoon, Clock, MakeFuture, Note, Recorder, Replica
from headrace.pipeline.queue import CallQueue
from headrace.pipeline.tallying import DeploymentCounter
from headrace.telemetry.metrics import Refusal

Offer = Callable[[Bound, list[Tensor], float, str, "Deployment"], None]
"""(request, live outputs, seconds its live batch took, request id, who answered)."""

HOP_S = 0.0005
"""A running batch that is predicted to end within this is as good as an idle replica."""
SHARED_HOP_S = 0.0015
"""The same when several gateways feed a replica: each meets the end of a batch only as well as its timers do."""
STREAM_CREDIT = 16
"""Chunks a replica may send ahead of the reader of a stream."""
_DECIDE_EVERY = 32
_MAX_DEATHS = 2
_TRUST_S = 1.0
_TRUST_TIMES = 10.0
"""The prediction is believed while work goes on, and so many seconds or times its own length after the last batch."""
_OVERDUE_S = 0.1
_WITHDRAW_AFTER_S = 0.02
_LOOK_THROUGH_S = 0.25
_OVERDUE_TIMES = 10.0
"""A batch so late hangs, perhaps: nothing is put behind it."""
_LONE_BATCHES = 8
"""After so many batches of one call in a row the next call does not wait for company either, if it would be alone: a
turn of the event loop later is a twelfth of its latency later."""
_LATE_SUSPECT = "its deadline passed while it waited to be run again, alone"


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
        make_future: MakeFuture,
        recorder: Recorder,
    ) -> None:
        self.endpoint = endpoint
        self.route = route
        self.latency = LatencyModel()
        self.queue = CallQueue(route.batching.cost)
        self.replicas: list[Replica] = []
        self.reads_body = False
        """The endpoint's traffic policy reads bodies: which deployment answers is known after decoding."""
        self.header: tuple[bytes, bytes] | None = None
        """Told with every answer where an endpoint has several deployments: which of them it was."""
        self.fallback: tuple[Fallback, ...] = ()
        """What is tried when it fails; empty for most."""
        self.siblings: dict[str, Deployment] = {}
        """Named deployments of the endpoint, this one included."""
        self.breaker = Breaker()
        self.offer: Offer | None = None
        """Takes answered requests for the endpoint's shadows; None when it has none."""
        self._load_waiters: list[asyncio.Future[None]] = []
        self.counter: DeploymentCounter | None = None
        """Counts for the judge while a rollout of this deployment, or to it, runs."""
        self.note: Note | None = None
        """Told of every answered request before its answer leaves; None where the endpoint has no experiment."""
        self.shadow_load: ShadowLoad | None = None
        """What was compared, of a shadow."""
        self.finished_requests = 0
        self.refused_requests = 0
        self.next_deadline = float("inf")
        self.make_future = make_future
        """For the waiters of calls; asking for the running loop per request is a system call (it checks the pid)."""
        self._look_through_at = 0.0
        self._gateways = gateways
        self._clock = clock
        self._call_soon = call_soon
        self._call_later = call_later
        self._recorder = recorder
        self._budget = admission.RetryBudget()
        self._suspects: deque[Call] = deque()
        self._test: Batch | None = None
        self._aside: Replica | None = None
        self.closed = False
        """It left the route table and has finished: what comes now belongs to its successor."""
        self._shut: errors.NotReady | None = None
        """Told to whatever still comes after ``shut``."""
        self._trusted = True
        self._last_finished = clock()
        self._flush_scheduled = False
        self._delay_scheduled = False
        self._look_scheduled = False
        self._since_decision = 0
        self._batches = 0
        self._lone_batches = 0
        self._turn = 0
        self.update(route, gateways)

    # --- following the route table ---

    def update(self, route: DeploymentRoute, gateways: int) -> None:
        """Settings, signature or bounds changed."""
        self.route = route
        self._gateways = gateways
        self._max_rows = route.batching.max_batch_size
        self._decide()
        self._end_hopeless()
        if route.signature is not None or route.failed:
            self._wake_waiters()

    @property
    def asked_for(self) -> bool:
        """Requests wait for it to be loaded."""
        return bool(self._load_waiters)

    def loaded(self) -> asyncio.Future[None]:
        """Done when it has loaded, or cannot, or left."""
        waiter = self.make_future()
        self._load_waiters.append(waiter)
        return waiter

    def _dormant(self) -> errors.Dormant:
        version = f"model {self.endpoint!r} version {self.route.version}"
        error = errors.Dormant(f"{version} starts on its first inference request")
        error.loaded = self.loaded
        return error

    def _wake_waiters(self) -> None:
        waiters, self._load_waiters = self._load_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    @property
    def signature(self) -> Signature:
        """Raises NotReady, with the reason, while nothing has loaded."""
        signature = self.route.signature
        if signature is None and self._shut is not None:
            raise self._shut
        if signature is None and self.route.lazy and not self.route.failed:
            raise self._dormant()
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

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is being computed."""
        return not (self.queue.count or self._suspects or any(r.outstanding for r in self.replicas))

    def add_replica(self, replica: Replica) -> None:
        if self._shut is not None:
            return
        self.replicas.append(replica)
        self._decide()
        self.flush()

    def remove_replica(self, replica: Replica) -> None:
        if replica in self.replicas:
            self.replicas.remove(replica)
        if self._aside is replica:
            self._aside = None
        self._decide()
        self._end_hopeless()

    def close(self) -> None:
        """The deployment left the route table: end what waits, refuse what comes."""
        self.closed = True
        self.siblings = {}
        for replica in self.replicas:
            replica.close()
        self.replicas = []
        self._end_hopeless()
        self._wake_waiters()

    def shut(self, error: errors.NotReady) -> None:
        """The gateway ends: end with ``error`` what waits and what is being computed, refuse with it what comes."""
        self._shut = error
        for replica in self.replicas:
            replica.fail_all(error)
        self.replicas = []
        self._end_hopeless()
        self._wake_waiters()

    def _end_hopeless(self) -> None:
        """End what waits when no replica will ever come for it."""
        error = None if self.replicas else self._hopeless()
        if error is None:
            return
        self.queue.fail_all(error)
        while self._suspects:
            self._suspects.popleft().fail(error)

    def _hopeless(self) -> errors.HeadraceError | None:
        if self._shut is not None:
            return self._shut
        model = f"model {self.endpoint!r} version {self.route.version}"
        if self.closed:
            return errors.NotReady(f"{model} is no longer deployed; send the request again")
        if self.route.failed and not self.route.ready:
            return errors.NotReady(f"{model} cannot be served: {self.route.reason}")
        return None

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
        """Raise Overloaded, DeadlineExceeded or NotReady when the request may not wait."""
        if not self.replicas and (hopeless := self._hopeless()) is not None:
            raise hopeless
        queue, bounds = self.queue, self.bounds
        service = self.latency.predict(rows if rows < self._max_rows else self._max_rows) if self._trusted else 0.0
        refusal = admission.check(bounds, queue.rows, queue.bytes, rows, nbytes, deadline - now, service)
        if refusal is not None:
            self.refused_requests += 1
            reason, error = refusal
            self._recorder.refused(self.endpoint, self.route.version, reason)
            raise error

    def enqueue(self, call: Call) -> None:
        """Let an admitted call wait for a replica."""
        if self.closed or self._shut is not None:
            # A later piece of a large request: nobody sweeps this deployment any more.
            call.fail(self._hopeless() or errors.Bug("a closed deployment has no reason"))
            return
        self.queue.push(call)
        if call.deadline < self.next_deadline:
            self.next_deadline = call.deadline
        if self._lone_batches >= _LONE_BATCHES and self.queue.count == 1:
            self.flush()
        elif not self._flush_scheduled:
            self._flush_scheduled = True
            self._call_soon(self._scheduled_flush)

    def _scheduled_flush(self) -> None:
        self._flush_scheduled = False
        self.flush()

    # --- out ---

    def flush(self) -> None:
        """Give replicas that can take work everything they can take."""
        if self._suspects or self._aside is not None:
            self._test_suspects()
        queue = self.queue
        while queue.count:
            now = self._clock()
            replica = self._choose(now)
            if replica is None:
                self._look_again(now)
                return
            if self._held_back(replica, now):
                return
            limit = self._limit()
            service = self.latency.predict(1) if self._trusted else 0.0
            calls = queue.take(limit, self.route.batching.max_batch_cost, self.decision.alone, now, service)
            if not calls:
                return
            self._send(replica, calls, now, limit)

    def _send(self, replica: Replica, calls: list[Call], now: float, limit: int) -> None:
        try:
            if calls[0].sink is not None:
                self._start_stream(replica, calls[0], calls[0].sink, now)
                return
            # A worker joins batches by rows only: where cost is bounded, or a call runs alone, it must not.
            joinable = 1 if self.decision.alone or self.route.batching.max_batch_cost is not None else limit
            replica.submit(calls, now, joinable, idempotent=self.route.idempotent)
            self._batches += 1
            self._lone_batches = self._lone_batches + 1 if len(calls) == 1 else 0
        except Exception as error:
            self._not_sent(calls, error)

    @staticmethod
    def _not_sent(calls: Iterable[Call], error: Exception) -> None:
        # This runs in callbacks of the event loop: an exception would be logged there and the calls would be lost.
        for call in calls:
            call.fail(errors.Bug(f"the request could not be sent to a replica: {type(error).__name__}: {error}"))

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
            if replica is self._aside or not replica.alive or replica.draining:
                continue
            load = len(replica.batches)
            shared = replica.computing() if self._gateways > 1 else None
            if load == 0 and shared is None:
                return replica
            if load <= 1 and second is None and self._about_to_end(replica, shared, now):
                second = replica
        return second

    def _choose_concurrent(self) -> Replica | None:
        able = [r for r in self.replicas if r.alive and not r.draining and r.outstanding < self.route.slots.count]
        return min(able, key=lambda r: r.outstanding, default=None)

    def _about_to_end(self, replica: Replica, shared: tuple[float, int] | None, now: float) -> bool:
        """Whether what the replica computes, for us or (``shared``) for any gateway, ends so soon that the next batch
        may leave. A batch that is full may leave earlier; nothing is put behind one that is far too late."""
        full = self.queue.rows >= self.decision.limit and not self.decision.alone
        began, rows = shared or next(((b.sent, b.rows) for b in replica.batches.values()), (now, 0))
        expected = self.latency.predict(rows)
        left = began + expected - now
        soon = HOP_S if self._gateways == 1 else SHARED_HOP_S
        return (full or left < soon) and left > -(_OVERDUE_TIMES * expected + _OVERDUE_S)

    def _look_again(self, now: float) -> None:
        """With several gateways nobody tells this one that another's batch is about to end: come back for that moment,
        so that what waits here joins the next batch."""
        if self._gateways == 1 or self._look_scheduled:
            return
        ends = [
            began + self.latency.predict(rows)
            for began, rows in (r.computing() or (0.0, 0) for r in self.replicas)
            if began
        ]
        wait = min(ends, default=0.0) - now - SHARED_HOP_S
        if wait > 0:
            self._look_scheduled = True
            # Timers of the event loop have milliseconds: round down, the window is wider than one.
            self._call_later(max(int(wait * 1e3), 1) / 1e3, self._looked)

    def _looked(self) -> None:
        self._look_scheduled = False
        self.flush()

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
        ended = self._ended(batch)
        try:
            if busy > 0:  # else nothing was computed
                if not self._trusted:
                    self.latency.doubt()
                self.latency.observe(batch_rows, busy)
                if self.counter is not None:
                    self.counter.batch(batch_rows, busy)
                self._last_finished = self._clock()
                self._trusted = True
            self._since_decision += 1
            if self._since_decision >= _DECIDE_EVERY:
                self._decide()
            if batch is self._test:
                self._test = None
            self.finished_requests += len(ended)
            self._budget.earn(len(ended))
            if self.queue.count or self._suspects or self._aside is not None:
                self.flush()
        finally:
            # Whatever goes wrong above is not the fault of these callers.
            for call in ended:
                if not call.waiter.done():
                    call.waiter.set_result(None)

    def _ended(self, batch: Batch) -> Sequence[Call]:
        """The calls that are over. Those of a batch that was too large for the replica's memory are run alone, once."""
        if len(batch.calls) == 1 or not isinstance(batch.calls[0].error, errors.OutOfMemory):
            return batch.calls
        for call in batch.calls:
            call.error = None
            self._suspects.append(call)
        return ()

    def spend_retry(self) -> bool:
        """Whether a request of this deployment that may have run may be tried elsewhere."""
        if self._budget.spend():
            return True
        self._recorder.refused(self.endpoint, self.route.version, Refusal.RETRY_BUDGET)
        return False

    def fell_back(self, kind: FallbackKind) -> None:
        """A fallback answered a request of this deployment."""
        self._recorder.fell_back(self.endpoint, self.route.version, kind)

    def mirrored(self, outcome: Mirrored) -> None:
        """A request was mirrored to this shadow, or was to be."""
        self._recorder.mirrored(self.endpoint, self.route.version, outcome)

    def compared(self, live_s: float, shadow_s: float) -> None:
        """An answer of this shadow was compared; seconds that the batches of both took."""
        if self.shadow_load is not None:
            self._recorder.compared(self.endpoint, self.route.version, live_s, shadow_s, self.shadow_load)

    def stream_ended(self) -> None:
        """A stream gave its slot back."""
        self.finished_requests += 1
        self.flush()

    def find(self, replica_id: str) -> Replica | None:
        """The connected replica of this id."""
        return next((r for r in self.replicas if r.id == replica_id), None)

    def died(self, replica: Replica, computing: list[Batch], waiting: list[Batch]) -> None:
        """A replica died: what only waited goes back to the queue; what was computed is suspect."""
        if any(batch is self._test for batch in (*computing, *waiting)):
            self._test = None
        back: list[Call] = []
        for call in (call for batch in waiting for call in batch.calls if not call.waiter.done()):
            # Who was there at an earlier death stays suspect.
            (self._suspects if call.deaths else back).append(call)
        if back:
            self.queue.push_front(back)
        for batch in computing:
            for call in batch.calls:
                self._suspect(call, replica)
        self.remove_replica(replica)
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
        while self._suspects and self._test is None:
            call = self._suspects[0]
            now = self._clock()
            if call.waiter.done() or call.deadline <= now:
                self._suspects.popleft()
                call.fail(errors.DeadlineExceeded(_LATE_SUSPECT))
                continue
            replica = self._set_aside()
            if replica is None:
                return
            self._suspects.popleft()
            try:
                self._test = replica.submit([call], now, 1, idempotent=True, solo=True)
            except Exception as error:
                self._not_sent([call], error)
        if self._test is None and not self._suspects:
            self._aside = None

    def _set_aside(self) -> Replica | None:
        """The replica for the next suspect, or None while it is busy: it gets nothing else then, because under load
        no replica would ever be free by itself."""
        able = [r for r in self.replicas if r.alive and not r.draining]
        self._aside = min(able, key=lambda r: r.outstanding, default=None)
        # Calls of a concurrent model run beside each other; one may take minutes, nobody waits for that.
        room = self.route.slots.count if self.route.slots.kind is SlotKind.CONCURRENT else 1
        return self._aside if self._aside is not None and self._aside.outstanding < room else None

    # --- time ---

    def _withdraw(self, now: float) -> None:
        """Tell replicas which calls of batches that wait there are over: a batch may have been sent behind one that
        takes longer than was predicted."""
        for replica in self.replicas:
            for batch in replica.batches.values():
                if now - batch.sent < _WITHDRAW_AFTER_S:
                    continue
                over = [index for index, call in enumerate(batch.calls) if call.waiter.done()]
                if len(over) > batch.withdrawn:
                    batch.withdrawn = len(over)
                    replica.withdraw(batch.id, over)

    def sweep(self, now: float) -> None:
        """End calls whose deadline has passed, waiting or in flight. Called by the gateway's coarse timer."""
        if self._trusted:
            # A prediction that turns everybody away would never be put right: nothing would be computed any more.
            trust = max(_TRUST_S, _TRUST_TIMES * self.latency.predict(1))
            self._trusted = now - self._last_finished < trust or any(r.batches for r in self.replicas)
        if self.queue.count or self._suspects:
            self.flush()
        self._withdraw(now)
        if now < min(self.next_deadline, self._look_through_at):
            return
        # Now and then also for callers who left: what nobody waits for must not keep others out.
        self._look_through_at = now + _LOOK_THROUGH_S
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
            if call.deadline <= now:
                call.fail(errors.DeadlineExceeded(_LATE_SUSPECT))
            else:
                earliest = min(earliest, call.deadline)
        self.next_deadline = earliest


def maker(loop: asyncio.AbstractEventLoop, recorder: Recorder) -> Callable[[str, DeploymentRoute, int], Deployment]:
    """Makes the deployments of a gateway that runs on ``loop``, for its ``Router``."""

    def make(endpoint: str, route: DeploymentRoute, gateways: int) -> Deployment:
        return Deployment(
            endpoint,
            route,
            gateways,
            clock=monotonic,
            call_soon=loop.call_soon,
            call_later=loop.call_later,
            make_future=loop.create_future,
            recorder=recorder,
        )

    return make
