"""THE list: what happens to a unary inference request, in order.

    head      request id, key, endpoint, size, shedding: from headers only, body unread    (gateway reads the body next)
    decode    bytes → InferenceRequest; where the traffic policy reads the body, the deployment is chosen here
    bind      names, dtypes and shapes against the signature; rows, bytes, batch key
    admit     bounds, predicted wait, deadline
    batch     wait for a replica to pull the call
    dispatch  the replica computes
    encode    outputs → bytes
    note      where the endpoint has an experiment: whose answer it is, written down before it leaves
    record    one RequestRecord

Stages up to the queue are plain functions run in a row; one future is awaited; then encode and record. Each leaves
its time in the exchange.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import Any

import msgspec
import numpy as np

from headrace.core import binding, errors
from headrace.core.binding import Bound
from headrace.core.calls import Call
from headrace.core.requests import InferenceRequest, InferenceResponse, Outcome, RequestRecord
from headrace.core.tensors import Tensor
from headrace.pipeline.deployment import Deployment
from headrace.pipeline.ports import Codec
from headrace.pipeline.tallying import DeploymentCounter

_PIECES_PER_REPLICA = 2
"""Pieces of one large request that wait or run at a time."""


class Exchange:
    """One request in progress. Times are monotonic seconds; the gateway fills in what head and body tell.

    ``request`` and ``rendering`` may be set before ``run`` when the body was decoded outside the event loop."""

    __slots__ = (
        "asked",
        "body",
        "body_read",
        "bound",
        "bytes_in",
        "bytes_out",
        "call",
        "caller",
        "codec",
        "deadline",
        "decoded",
        "deployment",
        "encode_seconds",
        "explicit_deadline",
        "fallback",
        "json_size",
        "pinned",
        "protocol",
        "rendering",
        "reply",
        "request",
        "request_id",
        "response",
        "signature",
        "started",
    )

    def __init__(
        self, deployment: Deployment, codec: Codec, protocol: str, started: float, deadline: float, request_id: str
    ) -> None:
        self.deployment = deployment
        self.asked: Deployment | None = None
        """Who was asked first, where fallbacks may answer."""
        self.signature = deployment.signature
        self.codec = codec
        self.protocol = protocol
        self.started = started
        self.deadline = deadline
        self.explicit_deadline = False
        self.pinned = False
        """The request names its version or deployment: nothing else may answer."""
        self.fallback = ""
        self.request_id = request_id
        self.caller = ""
        """Name of the key that the request came with; empty without one."""
        self.body: Any = b""
        self.json_size: int | None = None
        self.body_read = 0.0
        self.decoded = 0.0
        self.encode_seconds = 0.0
        self.bytes_in = 0
        self.bytes_out = 0
        self.request: InferenceRequest | None = None
        self.rendering: Any = None
        self.bound: Bound | None = None
        self.call: Call | None = None
        self.response: InferenceResponse | None = None
        self.reply: Any = None


async def run(exchange: Exchange) -> None:
    """From a complete body to ``exchange.response``. Raises core errors; the caller goes on with ``encode`` and
    ``record``."""
    for stage in BEFORE_QUEUE:
        stage(exchange)
    bound = exchange.bound
    assert bound is not None
    limit = exchange.deployment.route.batching.max_batch_size
    if bound.rows > limit and exchange.signature.batchable:
        outputs = await _split_and_join(exchange, bound, limit)
    else:
        # Here and not in a coroutine of its own: every layer is paid for twice, on the way in and when it resumes.
        future = exchange.deployment.make_future()
        call = exchange.call = Call(bound, exchange.deadline, exchange.decoded, future)
        exchange.deployment.enqueue(call)
        await future
        if call.error is not None:
            raise call.error
        if call.outputs is None:
            raise errors.Bug("a call ended without outputs or an error")
        outputs = call.outputs
    request = exchange.request
    assert request is not None
    deployment = exchange.deployment
    exchange.response = InferenceResponse(deployment.endpoint, deployment.route.version, outputs, request.id)


def _decode(exchange: Exchange) -> None:
    if exchange.request is None:
        exchange.body_read = monotonic()
        exchange.request, exchange.rendering = exchange.codec.parse_request(
            exchange.body, exchange.json_size, exchange.signature
        )
        exchange.body = b""


def read(exchange: Exchange) -> None:
    """Decode and bind, for answers that need no model. Raises InvalidInput and the like."""
    _decode(exchange)
    if exchange.bound is None:
        _bind(exchange)


def choose_by_body(exchange: Exchange, find: Callable[[InferenceRequest], Deployment]) -> bool:
    """Decode, and go over to the deployment that ``find`` says. False when that one's signature is another: the
    exchange must be given its body again. Raises what decoding and ``find`` raise."""
    _decode(exchange)
    assert exchange.request is not None
    deployment = find(exchange.request)
    agrees = deployment.signature.agrees(exchange.signature)
    exchange.deployment, exchange.signature = deployment, deployment.signature
    if not exchange.explicit_deadline:
        exchange.deadline = exchange.started + deployment.route.timeout_s
    if not agrees:
        exchange.request = exchange.rendering = None
    return agrees


def _bind(exchange: Exchange) -> None:
    request = exchange.request
    assert request is not None
    exchange.bound = binding.bind(exchange.signature, request.tensors, request.parameters)
    exchange.decoded = monotonic()


def _admit(exchange: Exchange) -> None:
    bound = exchange.bound
    assert bound is not None
    rows, nbytes = bound.rows, bound.nbytes
    together = _PIECES_PER_REPLICA * exchange.deployment.route.batching.max_batch_size
    if rows > together:
        # The rest of a large request does not wait in the queue, see ``_split_and_join``.
        nbytes = nbytes * together // rows
        rows = together
    exchange.deployment.admit(rows, nbytes, exchange.decoded, exchange.deadline)


BEFORE_QUEUE: Sequence[Callable[[Exchange], None]] = (_decode, _bind, _admit)


async def _split_and_join(exchange: Exchange, bound: Bound, limit: int) -> list[Tensor]:
    """A client batch larger than the limit: pieces compute like any calls, and the answer is whole again. Only a few
    pieces wait at a time, so that small requests take their turns between them."""
    calls: list[Call] = []
    pieces = split(bound, limit)

    def start(piece: Bound) -> None:
        call = Call(piece, exchange.deadline, monotonic(), exchange.deployment.make_future())
        calls.append(call)
        exchange.call = call
        exchange.deployment.enqueue(call)

    for piece in itertools.islice(pieces, _PIECES_PER_REPLICA * max(len(exchange.deployment.replicas), 1)):
        start(piece)
    try:
        # The list grows while it is walked: each piece that has ended lets the next one in.
        for call in calls:
            await call.waiter  # type: ignore[misc]  # the waiters made above are futures
            if call.error is not None:
                raise call.error
            for piece in itertools.islice(pieces, 1):
                start(piece)
    finally:
        # One piece failed or the caller left: nobody needs the others.
        for call in calls:
            call.fail(errors.Cancelled("another piece of the same request ended it"))
    # The record tells of one batch. Of this size it stands for as many as the pieces took part in.
    calls[-1].batch_rows = bound.rows / sum(call.rows / max(call.batch_rows, 1) for call in calls)
    return join([call.outputs or [] for call in calls])


def join(pieces: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Outputs of all pieces, one behind the other. Raises BadModelOutput when they do not fit together."""
    try:
        return [
            Tensor(of_piece[0].name, of_piece[0].dtype, np.concatenate([t.array for t in of_piece]))
            for of_piece in zip(*pieces, strict=True)
        ]
    except ValueError as error:
        raise errors.BadModelOutput(f"outputs of parts of one large request do not fit together: {error}") from None


def split(bound: Bound, limit: int) -> Iterator[Bound]:
    """Pieces of at most ``limit`` rows, in order; views, no copies."""
    for at in range(0, bound.rows, limit):
        arrays = [array[at : at + limit] for array in bound.arrays]
        rows = min(limit, bound.rows - at)
        yield msgspec.structs.replace(bound, arrays=arrays, rows=rows, nbytes=bound.nbytes * rows // bound.rows)


def encode(exchange: Exchange) -> None:
    """Outputs → reply. Apart from ``run``, so that large answers can be encoded outside the event loop."""
    before = monotonic()
    response = exchange.response
    if response is None:
        raise errors.Bug("a request was computed but has no response")
    exchange.reply = exchange.codec.render_response(response, exchange.rendering, exchange.signature)
    exchange.encode_seconds = monotonic() - before


def record(exchange: Exchange, error: errors.HeadraceError | None) -> RequestRecord:
    """What is known about a request that has ended."""
    now = monotonic()
    call, bound = exchange.call, exchange.bound
    decoded = exchange.decoded
    route = exchange.deployment.route
    sent = call.sent if call is not None else 0.0
    return RequestRecord(
        exchange.deployment.endpoint,
        route.version,
        exchange.protocol,
        Outcome.OK if error is None else outcome_of(error),
        bound.rows if bound is not None else 0,
        call.batch_rows if call is not None else 0,
        decoded - exchange.body_read if decoded else 0.0,
        sent - decoded if sent else 0.0,
        call.wait if call is not None else 0.0,
        call.compute if call is not None else 0.0,
        exchange.encode_seconds,
        now - exchange.started,
        time.time(),
        exchange.bytes_in,
        exchange.bytes_out,
        exchange.request_id,
        "" if error is None else error.code,
        call.replica if call is not None else "",
        exchange.fallback,
    )


def count(exchange: Exchange, counter: DeploymentCounter, error: errors.HeadraceError | None) -> None:
    """Count a request that has ended for the judge of a rollout. What a fallback answered, the deployment did not."""
    if error is None and exchange.fallback:
        error = errors.RuntimeFailed("a fallback answered")
    outputs = exchange.response.outputs if exchange.response is not None and error is None else ()
    call = exchange.call
    # How long the rest of a stream takes depends on what was asked: its time ended with its first response.
    timed = call is not None and call.sink is not None and call.sink.taken > 0
    counter.request(error, None if timed else monotonic() - exchange.started, exchange.request_id, outputs)


def count_first_response(exchange: Exchange, outputs: Sequence[Tensor]) -> None:
    """Count the first response of a stream where a rollout is judged: a stream may go on for long, or for ever."""
    counter = exchange.deployment.counter
    if counter is not None and not exchange.fallback:
        counter.first_response(monotonic() - exchange.started, exchange.request_id, outputs)


def note(exchange: Exchange, request_id: str | None = None) -> None:
    """An answer is there and about to leave: write down whose it is, where an experiment wants to know.
    ``request_id``: the one that the caller knows, if it is another than the exchange's."""
    deployment = exchange.asked or exchange.deployment
    if deployment.note is not None:
        deployment.note(request_id or exchange.request_id, deployment.route, exchange.pinned, exchange.fallback != "")


def mirror(exchange: Exchange) -> None:
    """Offer an answered request to the endpoint's shadows. Not streams, and not what a fallback answered."""
    deployment, bound, call, response = exchange.deployment, exchange.bound, exchange.call, exchange.response
    if deployment.offer is None or exchange.fallback or bound is None or call is None or response is None:
        return
    if not exchange.signature.streaming:
        deployment.offer(bound, response.outputs, call.compute, exchange.request_id, deployment)


def record_unrouted(protocol: str, error: errors.HeadraceError, request_id: str, started: float) -> RequestRecord:
    """A request that ended before it had a deployment; it is counted without a model, so that made-up names cannot
    fill the metrics."""
    return RequestRecord(
        "", "", protocol, outcome_of(error), 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, monotonic() - started, time.time(), 0, 0,
        request_id, error.code,
    )  # fmt: skip


def outcome_of(error: errors.HeadraceError) -> int:
    """The metric label of an error."""
    for kind, outcome in _OUTCOMES:
        if isinstance(error, kind):
            return outcome
    return Outcome.BUG


_OUTCOMES: tuple[tuple[type[errors.HeadraceError], int], ...] = (
    (errors.CallerError, Outcome.CALLER_ERROR),
    (errors.Cancelled, Outcome.CANCELLED),
    (errors.NotReady, Outcome.NOT_READY),
    (errors.Overloaded, Outcome.OVERLOADED),
    (errors.DeadlineExceeded, Outcome.DEADLINE),
    (errors.RuntimeFailed, Outcome.MODEL_ERROR),
)
