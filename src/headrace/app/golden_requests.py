"""Asks a new version its golden requests: straight at a replica that has no traffic yet, within bounds of time.

Every request is computed alone, as it was recorded; one whose rows pass the limit of a batch is cut into pieces as a
gateway cuts it. What a death of the replica took with it is asked again at another one, one request at a time, so that
only the culprit can be hit a second time. Whether the answers are right, ``control/golden.py`` says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic

import msgspec

from headrace.control import golden
from headrace.control.analysis.verdict import Finding
from headrace.control.golden import GoldenAnswer, GoldenReport
from headrace.core import binding, errors
from headrace.core.binding import Bound
from headrace.core.calls import Batch, Call
from headrace.core.models import Signature, SlotKind, Slots
from headrace.core.routes import ReplicaRoute
from headrace.core.tensors import Tensor
from headrace.pipeline import chain
from headrace.protocols import golden_lines
from headrace.protocols.golden_lines import GoldenRequest
from headrace.replica.handle import ReplicaHandle
from headrace.replica.messages import ResultHead
from headrace.runtimes import version_files

_CONNECT_S = 5.0
_MAX_DEATHS = 2
"""A request that was being computed at so many deaths is the culprit."""


class Terms(msgspec.Struct, frozen=True):
    """How a deployment is asked: settings of the deployment, and times in seconds."""

    slots: Slots = Slots()
    max_batch_size: int = 64
    """Rows in one call of the model."""
    idempotent: bool = True
    """A request that may have run may run again."""
    timeout_s: float = 60.0
    """One request that has no answer by then fails, and nothing more is asked of the replica, which hangs."""
    total_s: float = 300.0
    """All requests; what has no answer by then could not be asked."""


NextReplica = Callable[[str], Awaitable[ReplicaRoute | None]]
"""Waits for a ready replica of the deployment other than the one with this id, which died. None: there will be none."""


async def ask(
    route: ReplicaRoute,
    signature: Signature,
    path: Path,
    terms: Terms = Terms(),  # noqa: B008 - frozen
    another: NextReplica | None = None,
) -> GoldenReport:
    """Ask the golden requests in the file ``path`` of the replica behind ``route``, whose model has ``signature``.

    FAIL: an answer differs, the version refuses a request that it was promised to answer (a renamed input), raises,
    hangs, or dies of the same request at two replicas. INCONCLUSIVE: the replica cannot be reached, died and there is
    no other, the time is over, the file cannot be read, or the model streams its answers."""
    if signature.streaming:
        reason = "golden requests are not compared with streams of answers, and this model streams; promote it by hand"
        return GoldenReport(Finding.INCONCLUSIVE, reason)
    ends = monotonic() + terms.total_s
    try:
        requests = await asyncio.to_thread(_read, path)
        questions = [_Question(request) for request in requests]
        await _Asker(route, signature, terms, another, ends).ask(questions)
    except (errors.InvalidInput, errors.NotReady) as error:
        return GoldenReport(Finding.INCONCLUSIVE, error.message)
    # Many large outputs take their time to compare.
    return await asyncio.to_thread(golden.report, [question.answer() for question in questions])


def _read(path: Path) -> list[GoldenRequest]:
    return list(golden_lines.read(version_files.read_golden(path, path.name), path.name))


class _Question:
    """A golden request, and what has come of it so far: nothing, outputs or an error."""

    def __init__(self, request: GoldenRequest) -> None:
        self.request = request
        self.bound: Bound | None = None
        self.outputs: list[Tensor] | None = None
        self.error: errors.HeadraceError | None = None
        self.deaths = 0
        """Of replicas that computed it."""

    @property
    def open(self) -> bool:
        return self.outputs is None and self.error is None

    def answer(self) -> GoldenAnswer:
        request = self.request
        outputs = tuple(self.outputs or ())
        return GoldenAnswer(request.title, request.outputs, outputs, self.error, request.tolerances)


class _ReplicaLostError(Exception):
    """The replica died while a call was with it. ``computing``: it may have been the cause."""

    def __init__(self, computing: bool) -> None:
        self.computing = computing


class _Asker:
    """Asks questions of one replica after the other. Its other half hears what the handle says."""

    def __init__(
        self, route: ReplicaRoute, signature: Signature, terms: Terms, another: NextReplica | None, ends: float
    ) -> None:
        self._signature = signature
        self._terms = terms
        self._another = another
        self._ends = ends
        self._handle = ReplicaHandle(route, self)
        self._computing: set[Call] = set()
        """Calls that a replica computed when it died."""
        self._over: errors.HeadraceError | None = None
        """Why nothing more is asked."""

    async def ask(self, questions: Sequence[_Question]) -> None:
        """Bring every question to its end. Raises NotReady when the replica cannot be reached to begin with."""
        try:
            await self._connect()
            self._bind_all(questions)
            slots = self._terms.slots
            beside = slots.count if slots.kind is SlotKind.CONCURRENT else 1
            rest = iter(questions)
            async with asyncio.TaskGroup() as group:
                for _ in range(min(beside, len(questions))):
                    group.create_task(self._ask_in_turn(rest))
            await self._ask_again(questions)
            for question in questions:
                if question.open:
                    question.error = self._over or errors.Bug("a golden request was not asked")
        finally:
            self._handle.close()

    def _bind_all(self, questions: Sequence[_Question]) -> None:
        """Refuse what the model does not take, before anything is computed."""
        for question in questions:
            try:
                question.bound = binding.bind(self._signature, question.request.inputs, question.request.parameters)
            except errors.CallerError as error:
                question.error = error.untraced()

    async def _ask_in_turn(self, rest: Iterator[_Question]) -> None:
        """As long as the first replica lives."""
        for question in rest:
            if self._over is not None or not self._handle.alive:
                return
            if question.bound is not None:
                await self._ask_one(question, question.bound)

    async def _ask_again(self, questions: Sequence[_Question]) -> None:
        """What was not answered before the first replica died, one at a time."""
        for question in questions:
            while question.open and question.bound is not None and self._over is None:
                if self._handle.alive:
                    await self._ask_one(question, question.bound)
                else:
                    await self._replace()

    async def _ask_one(self, question: _Question, bound: Bound) -> None:
        """Sets outputs or the error of a question; neither when the replica died and it is to be asked again."""
        ends = monotonic() + self._terms.timeout_s
        try:
            question.outputs = await self._compute(bound, ends)
        except _ReplicaLostError as lost:
            question.deaths += lost.computing
            question.error = self._verdict_of_death(question) if lost.computing else None
        except errors.DeadlineExceeded as error:
            question.error = error.untraced()
            self._stop(f"not asked, since {question.request.title} had no answer")
        except errors.HeadraceError as error:
            question.error = error.untraced()

    def _verdict_of_death(self, question: _Question) -> errors.HeadraceError | None:
        """The error of a question that a replica may have died of; None: it is to be asked again."""
        title = question.request.title
        if question.deaths >= _MAX_DEATHS:
            self._stop(f"not asked, since replicas die of {title}")
            return errors.PoisonRequest(f"{question.deaths} replicas died while they computed it")
        if not self._terms.idempotent:
            return errors.ReplicaDied("the replica died while it computed this; the model is not idempotent, no re-run")
        return None

    def _stop(self, why: str) -> None:
        self._over = self._over or errors.Cancelled(why)

    async def _compute(self, bound: Bound, ends: float) -> list[Tensor]:
        """Outputs of a request; ``ends`` in monotonic seconds."""
        limit = self._terms.max_batch_size
        if bound.rows <= limit or not self._signature.batchable:
            return await self._run(bound, ends)
        return chain.join([await self._run(piece, ends) for piece in chain.split(bound, limit)])

    async def _run(self, bound: Bound, ends: float) -> list[Tensor]:
        """Outputs of one call of the model. Raises its error, or _ReplicaLostError."""
        if not self._handle.alive:
            raise _ReplicaLostError(computing=False)
        now = monotonic()
        call = Call(bound, ends, now, asyncio.get_running_loop().create_future())
        batch = self._handle.submit([call], now, 1, idempotent=self._terms.idempotent, solo=True)
        try:
            async with asyncio.timeout(min(ends, self._ends) - now):
                await call.waiter  # type: ignore[misc]  # the future made above
        except TimeoutError:
            self._handle.withdraw(batch.id, [0])
            raise self._late(ends) from None
        if call in self._computing:
            raise _ReplicaLostError(computing=True)
        if call.error is not None:
            raise call.error
        if call.outputs is None:
            raise _ReplicaLostError(computing=False)
        return call.outputs

    def _late(self, ends: float) -> errors.HeadraceError:
        if ends <= self._ends:
            return errors.DeadlineExceeded(f"no answer within {self._terms.timeout_s:g} s")
        self._over = errors.NotReady(f"no answer within the {self._terms.total_s:g} s for all golden requests")
        return self._over

    # --- replicas ---

    async def _connect(self) -> None:
        await self._handle.connect(max(min(_CONNECT_S, self._ends - monotonic()), 0.0))

    async def _replace(self) -> None:
        """Go over to another replica, or say why nothing more can be asked."""
        dead = self._handle.id
        try:
            async with asyncio.timeout(self._ends - monotonic()):
                route = await self._another(dead) if self._another is not None else None
            if route is None:
                raise errors.NotReady(f"replica {dead} died, and there is no other to ask")
            self._handle = ReplicaHandle(route, self)
            await self._connect()
        except TimeoutError:
            self._over = errors.NotReady(
                f"replica {dead} died, and no other was ready within {self._terms.total_s:g} s"
            )
        except errors.NotReady as error:
            self._over = error.untraced()

    # --- Listener of the handle ---

    def finished(self, handle: ReplicaHandle, batch: Batch, head: ResultHead) -> None:
        self._wake(batch)

    def died(self, handle: ReplicaHandle, computing: list[Batch], waiting: list[Batch]) -> None:
        for batch in computing:
            self._computing.update(batch.calls)
        for batch in (*computing, *waiting):
            self._wake(batch)

    def stream_ended(self, handle: ReplicaHandle) -> None:
        raise errors.Bug("a golden request was answered with a stream")

    @staticmethod
    def _wake(batch: Batch) -> None:
        for call in batch.calls:
            if not call.waiter.done():
                call.waiter.set_result(None)
