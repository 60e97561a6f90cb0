"""Asks a new version its golden requests: straight at a replica that has no traffic yet, within bounds of time.

Every request is computed alone, as it was recorded; one whose rows pass the limit of a batch is cut into pieces as a
gateway cuts it. Of a stream one response more than was recorded is read, which is one too many. What a death of the
replica took with it is asked again at another one, one request at a time, so that only the culprit can be hit a second
time. Whether the answers are right, ``control/golden.py`` says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic

import msgspec

from headrace.app.rollouts.golden_replica import GoldenReplica, NoAnswerError, ReplicaLostError
from headrace.control import golden
from headrace.control.analysis.verdict import Finding
from headrace.control.golden import GoldenAnswer, GoldenReport
from headrace.core import binding, errors
from headrace.core.binding import Bound
from headrace.core.models import Signature, SlotKind, Slots
from headrace.core.routes import ReplicaRoute
from headrace.core.tensors import Tensor
from headrace.pipeline import chain
from headrace.protocols import golden_lines
from headrace.protocols.golden_lines import GoldenRequest
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
    """One request that has no answer by then fails, and nothing more is asked of the replica, which hangs; of a stream
    each response may take so long."""
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
    streams what was one answer or the other way round, hangs, or dies of the same request at two replicas.
    INCONCLUSIVE: the replica cannot be reached, died and there is no other, the time is over, the file cannot be
    read."""
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
    """A golden request, and what has come of it so far: nothing, responses or an error."""

    def __init__(self, request: GoldenRequest) -> None:
        self.request = request
        self.bound: Bound | None = None
        self.responses: list[list[Tensor]] | None = None
        self.error: errors.HeadraceError | None = None
        self.deaths = 0
        """Of replicas that computed it."""

    @property
    def open(self) -> bool:
        return self.responses is None and self.error is None

    def answer(self) -> GoldenAnswer:
        request = self.request
        responses = tuple(map(tuple, self.responses or ()))
        return GoldenAnswer(
            request.title, request.answer, responses, self.error, request.tolerances, streams=request.streams
        )


class _Asker:
    """Asks questions of one replica after the other."""

    def __init__(
        self, route: ReplicaRoute, signature: Signature, terms: Terms, another: NextReplica | None, ends: float
    ) -> None:
        self._signature = signature
        self._terms = terms
        self._another = another
        self._ends = ends
        self._replica = GoldenReplica(route, ends, idempotent=terms.idempotent)
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
            self._replica.close()

    def _bind_all(self, questions: Sequence[_Question]) -> None:
        """Refuse what the model does not take, before anything is computed."""
        for question in questions:
            try:
                self._check_streaming(question.request)
                question.bound = binding.bind(self._signature, question.request.inputs, question.request.parameters)
            except errors.CallerError as error:
                question.error = error.untraced()

    def _check_streaming(self, request: GoldenRequest) -> None:
        if self._signature.streaming and not request.streams:
            raise errors.Unsupported("the version answers with a stream, and one answer was recorded")
        if request.streams and not self._signature.streaming:
            raise errors.Unsupported("the version gives one answer, and a stream was recorded")

    async def _ask_in_turn(self, rest: Iterator[_Question]) -> None:
        """As long as the first replica lives."""
        for question in rest:
            if self._over is not None or not self._replica.alive:
                return
            if question.bound is not None:
                await self._ask_one(question, question.bound)

    async def _ask_again(self, questions: Sequence[_Question]) -> None:
        """What was not answered before the first replica died, one at a time."""
        for question in questions:
            while question.open and question.bound is not None and self._over is None:
                if self._replica.alive:
                    await self._ask_one(question, question.bound)
                else:
                    await self._replace()

    async def _ask_one(self, question: _Question, bound: Bound) -> None:
        """Sets responses or the error of a question; neither when the replica died and it is to be asked again."""
        try:
            question.responses = await self._responses(question.request, bound)
        except ReplicaLostError as lost:
            question.deaths += lost.computing
            question.error = self._verdict_of_death(question) if lost.computing else None
        except NoAnswerError as none:
            question.error = self._late(question.request, none)
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

    async def _responses(self, request: GoldenRequest, bound: Bound) -> list[list[Tensor]]:
        """All responses to a request; of one that is no stream it is one."""
        if request.streams:
            return await self._replica.stream(bound, len(request.answer) + 1, self._terms.timeout_s)
        ends = monotonic() + self._terms.timeout_s
        limit = self._terms.max_batch_size
        if bound.rows <= limit or not self._signature.batchable:
            return [await self._replica.answer(bound, ends)]
        return [chain.join([await self._replica.answer(piece, ends) for piece in chain.split(bound, limit)])]

    def _late(self, request: GoldenRequest, none: NoAnswerError) -> errors.HeadraceError:
        if none.in_total:
            self._over = errors.NotReady(f"no answer within the {self._terms.total_s:g} s for all golden requests")
            return self._over
        self._stop(f"not asked, since {request.title} had no answer")
        what = "response" if request.streams else "answer"
        return errors.DeadlineExceeded(f"no {what} within {self._terms.timeout_s:g} s")

    # --- replicas ---

    async def _connect(self) -> None:
        await self._replica.connect(max(min(_CONNECT_S, self._ends - monotonic()), 0.0))

    async def _replace(self) -> None:
        """Go over to another replica, or say why nothing more can be asked."""
        dead = self._replica.id
        try:
            async with asyncio.timeout(self._ends - monotonic()):
                route = await self._another(dead) if self._another is not None else None
            if route is None:
                raise errors.NotReady(f"replica {dead} died, and there is no other to ask")
            self._replica = GoldenReplica(route, self._ends, idempotent=self._terms.idempotent)
            await self._connect()
        except TimeoutError:
            self._over = errors.NotReady(
                f"replica {dead} died, and no other was ready within {self._terms.total_s:g} s"
            )
        except errors.NotReady as error:
            self._over = error.untraced()
