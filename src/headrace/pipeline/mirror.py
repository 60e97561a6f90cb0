"""Shadow traffic at one gateway: answered requests are computed again by deployments that take no traffic.

Never on the live path: a request comes here after its answer has been sent, waits in a bounded queue, and goes to the
shadow only when the shadow is idle and nobody waits for the deployment that answered. What finds no place is dropped
and counted. Outputs are compared where they arrive; nothing of a request is kept but a few disagreements.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import msgspec

from headrace.core.binding import Bound, rebind
from headrace.core.calls import Call
from headrace.core.comparison import compare
from headrace.core.shadows import Disagreement, Mirrored, Shadow, ShadowLoad
from headrace.core.tensors import Tensor
from headrace.pipeline.deployment import Deployment
from headrace.pipeline.ports import Clock

CAPACITY = 256
"""Requests that may wait for one shadow."""
CAPACITY_BYTES = 64 << 20
"""Bytes of their inputs and outputs."""
PATIENCE_S = 5.0
"""After this long without idle capacity a request is dropped."""
SAMPLE = 16
"""Disagreements that are kept."""


class Job(NamedTuple):
    """One request to be computed again. ``compute``: seconds that its live batch took."""

    bound: Bound
    outputs: list[Tensor]
    compute: float
    request_id: str
    live: Deployment
    since: float
    nbytes: int


class Mirror:
    """The shadow ``target``. Single-threaded: every method runs on the gateway's event loop."""

    def __init__(self, target: Deployment, clock: Clock) -> None:
        self.target = target
        target.shadow_load = ShadowLoad()
        self._clock = clock
        self._jobs: deque[Job] = deque()
        self._bytes = 0
        self._running = 0
        self._closed = False
        self._sample: deque[Disagreement] = deque(maxlen=SAMPLE)

    def offer(self, bound: Bound, outputs: list[Tensor], compute: float, request_id: str, live: Deployment) -> None:
        """Take a request whose answer has been sent."""
        route = self.target.route
        mine, signature = live.route.signature, route.signature
        agree = mine is not None and signature is not None and signature.agrees(mine)
        fits = agree and bound.rows <= route.batching.max_batch_size
        nbytes = bound.nbytes + sum(tensor.array.nbytes for tensor in outputs)
        if not fits or len(self._jobs) >= CAPACITY or self._bytes + nbytes > CAPACITY_BYTES:
            self._count(Mirrored.DROPPED)
            return
        self._jobs.append(Job(bound, outputs, compute, request_id, live, self._clock(), nbytes))
        self._bytes += nbytes
        self.pump()

    def pump(self) -> None:
        """Give the shadow one request if it is idle. Also called by the coarse timer."""
        while self._jobs and self._clock() - self._jobs[0].since > PATIENCE_S:
            self._take()
            self._count(Mirrored.DROPPED)
        if self._jobs and not self._running and self._idle(self._jobs[0].live):
            self._send(self._take())

    def close(self) -> None:
        """The shadow is none any more."""
        while self._jobs:
            self._take()
            self._count(Mirrored.DROPPED)
        self._closed = True
        self.target.shadow_load = None

    def _idle(self, live: Deployment) -> bool:
        target = self.target
        return target.ready and target.idle and not target.closed and not live.queue.count

    def _take(self) -> Job:
        job = self._jobs.popleft()
        self._bytes -= job.nbytes
        return job

    def _send(self, job: Job) -> None:
        now = self._clock()
        future = self.target.make_future()
        bound = job.bound
        if self.target.signature.padding is not None or bound.padded is not None:
            bound = rebind(bound, self.target.signature)
        call = Call(bound, now + self.target.route.timeout_s, now, future)
        self._running += 1
        future.add_done_callback(partial(self._done, job, call))
        self.target.enqueue(call)

    def _done(self, job: Job, call: Call, _: object) -> None:
        self._running -= 1
        if self._closed:
            return
        if call.outputs is None:
            self._count(Mirrored.FAILED)
        else:
            self._compare(job, call, call.outputs)
        self.pump()

    def _compare(self, job: Job, call: Call, outputs: list[Tensor]) -> None:
        found = compare(job.outputs, outputs)
        load = self.target.shadow_load or ShadowLoad()
        if not found.agrees:
            self._sample.append(Disagreement(job.request_id, found.output, found.expected, found.got))
        self._count(
            Mirrored.AGREED if found.agrees else Mirrored.DISAGREED,
            max_absolute=max(load.max_absolute, found.absolute),
            max_relative=max(load.max_relative, found.relative),
            live_ms=load.live_ms + job.compute * 1e3,
            shadow_ms=load.shadow_ms + call.compute * 1e3,
        )
        self.target.compared(job.compute, call.compute)

    def _count(self, outcome: Mirrored, **changes: float) -> None:
        load = self.target.shadow_load or ShadowLoad()
        counted = {outcome.value: getattr(load, outcome.value) + 1}
        self.target.shadow_load = msgspec.structs.replace(load, **counted, **changes, sample=tuple(self._sample))
        self.target.mirrored(outcome)


class Mirrors:
    """All shadows of one endpoint; ``draw`` gives numbers from 0 to 1."""

    def __init__(self, draw: Callable[[], float], clock: Clock) -> None:
        self._draw = draw
        self._clock = clock
        self._mirrors: list[tuple[Mirror, float]] = []

    def follow(self, shadows: tuple[Shadow, ...], named: Mapping[str, Deployment]) -> None:
        """Shadows of a newer route table; what is known of those that stay, stays."""
        known = {id(mirror.target): mirror for mirror, _ in self._mirrors}
        self._mirrors = []
        for shadow in shadows:
            target = named.get(shadow.deployment)
            if target is not None:
                mirror = known.pop(id(target), None) or Mirror(target, self._clock)
                self._mirrors.append((mirror, shadow.percent / 100))
        for gone in known.values():
            gone.close()

    def offer(self, bound: Bound, outputs: list[Tensor], compute: float, request_id: str, live: Deployment) -> None:
        """Mirror the request to those shadows that chance chooses."""
        for mirror, share in self._mirrors:
            if mirror.target is not live and self._draw() < share:
                mirror.offer(bound, outputs, compute, request_id, live)

    def pump(self) -> None:
        for mirror, _ in self._mirrors:
            mirror.pump()

    def __bool__(self) -> bool:
        return bool(self._mirrors)
