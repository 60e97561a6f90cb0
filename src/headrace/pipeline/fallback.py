"""When a deployment fails, is late or refuses: another one answers, or a constant does.

Not for callers' errors, not after a stream's first chunk, not where the first attempt may have run and the model is not
idempotent, and not for a request that names its version or deployment. A second attempt after one that may have run
is paid from the retry budget of the deployment that failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic

from headrace.core import errors
from headrace.core.errors import HeadraceError
from headrace.core.fallbacks import ConstantFallback, DeploymentFallback, Fallback, FallbackKind, constant_outputs
from headrace.core.requests import InferenceResponse
from headrace.pipeline import chain
from headrace.pipeline.chain import Exchange
from headrace.pipeline.deployment import Deployment
from headrace.pipeline.ports import Clock
from headrace.pipeline.split import OVERRIDE_HEADERS, Headers

CONSTANT = "constant"

_HELPS = (errors.RuntimeFailed, errors.DeadlineExceeded, errors.NotReady, errors.Overloaded)
"""Errors that something else may not have."""
_HIS_OWN = (errors.QuotaExceeded,)
"""Refusals that are about the caller and not about the deployment."""
_BREAKS = (errors.RuntimeFailed, errors.DeadlineExceeded, errors.NotReady)
"""Errors that open a circuit. Not Overloaded: a deployment that refuses what is too much serves the rest."""


def pinned(version: str, headers: Headers) -> bool:
    """The request names who shall answer: nobody else does."""
    return bool(version) or not headers.keys().isdisjoint(OVERRIDE_HEADERS)


def headers(exchange: Exchange) -> list[tuple[bytes, bytes]]:
    """What an answer tells of who gave it."""
    told = [] if exchange.deployment.header is None else [exchange.deployment.header]
    if exchange.fallback:
        told.append((b"x-headrace-fallback", exchange.fallback.encode()))
    return told


async def run(exchange: Exchange) -> None:
    """``chain.run`` for endpoints with fallbacks."""
    attempts = Attempts(exchange)
    while True:
        try:
            attempts.enter()
            await chain.run(exchange)
        except HeadraceError as error:
            if not attempts.go_on(error):
                raise attempts.first or error from None
            if exchange.response is not None:
                break
        except BaseException:
            attempts.left()
            raise
        else:
            break
    attempts.succeeded()


class Attempts:
    """One request and those who may answer it, in order. Bodies are kept until the first has answered."""

    def __init__(self, exchange: Exchange, clock: Clock = monotonic) -> None:
        self.first: HeadraceError | None = None
        """What the deployment that was asked first said."""
        self._exchange = exchange
        self._clock = clock
        self._asked = exchange.asked = exchange.deployment
        self._body = exchange.body, exchange.json_size
        self._options = iter(exchange.deployment.fallback)
        self._kind: FallbackKind | None = None
        self._entered = False

    def enter(self) -> None:
        """Before each attempt. Raises NotReady while the circuit of the deployment is open."""
        deployment = self._exchange.deployment
        if not deployment.breaker.enter(self._clock()):
            raise errors.NotReady(
                f"model {deployment.endpoint!r} version {deployment.route.version} failed too often; it is asked again"
                " in a few seconds"
            )
        self._entered = True

    def succeeded(self) -> None:
        """Somebody has answered."""
        if self._entered:
            self._exchange.deployment.breaker.succeeded()
        if self._kind is not None:
            self._asked.fell_back(self._kind)

    def left(self) -> None:
        """The attempt ended without an answer or an error of the deployment."""
        if self._entered:
            self._entered = False
            self._exchange.deployment.breaker.left()

    def failed(self, error: HeadraceError) -> None:
        """The attempt ended with an error that nothing is tried after."""
        # Callers with deadlines that nobody can meet say nothing about the deployment.
        hopeless = isinstance(error, errors.DeadlineExceeded) and self._exchange.explicit_deadline
        if self._entered and isinstance(error, _BREAKS) and not hopeless:
            self._entered = False
            self._exchange.deployment.breaker.failed(self._clock())
        self.left()

    def go_on(self, error: HeadraceError) -> bool:
        """True when the exchange was given to somebody else, or has a constant response; False ends it."""
        exchange = self._exchange
        self.failed(error)
        helps = isinstance(error, _HELPS) and not isinstance(error, _HIS_OWN)
        # Another deployment may not take what the first one has taken: no fault of the caller's.
        helps = helps or (self.first is not None and isinstance(error, errors.CallerError))
        if exchange.pinned or not helps:
            return False
        self.first = self.first or error.untraced()
        ran = self._may_have_run()
        if ran and not exchange.deployment.route.idempotent:
            return False
        return any(self._take(option, error, ran) for option in self._options)

    def _may_have_run(self) -> bool:
        call, bound = self._exchange.call, self._exchange.bound
        if call is None or bound is None:
            return False
        # Pieces of a large request were sent one by one.
        return call.sent > 0 or bound.rows > self._exchange.deployment.route.batching.max_batch_size

    def _take(self, option: Fallback, error: HeadraceError, ran: bool) -> bool:
        match option:
            case ConstantFallback(outputs):
                self._answer(outputs)
                self._kind = FallbackKind.CONSTANT
                self._exchange.fallback = CONSTANT
                return True
            case DeploymentFallback(name):
                other = self._asked.siblings.get(name)
                # What has killed two replicas is not tried on those of another deployment.
                if other is None or isinstance(error, errors.PoisonRequest) or not self._able(other):
                    return False
                if ran and not self._asked.spend_retry():
                    return False
                self._hand_over(other)
                self._kind = FallbackKind.DEPLOYMENT
                self._exchange.fallback = name
                return True

    def _answer(self, outputs: Mapping[str, object]) -> None:
        exchange = self._exchange
        chain.read(exchange)
        request, bound = exchange.request, exchange.bound
        assert request is not None
        assert bound is not None
        tensors = constant_outputs(dict(outputs), exchange.signature, bound.rows)
        deployment = exchange.deployment
        exchange.response = InferenceResponse(deployment.endpoint, deployment.route.version, tensors, request.id)

    def _able(self, other: Deployment) -> bool:
        """The other may take this request, and in time."""
        exchange = self._exchange
        signature = other.route.signature
        if other is exchange.deployment or other.closed or signature is None:
            return False
        if exchange.explicit_deadline and exchange.deadline <= self._clock():
            return False
        if signature.agrees(exchange.signature):
            return True
        # A large body was decoded in another process and is not kept.
        body, _ = self._body
        return signature.streaming == exchange.signature.streaming and bool(body)

    def _hand_over(self, other: Deployment) -> None:
        exchange = self._exchange
        if not other.signature.agrees(exchange.signature):
            exchange.body, exchange.json_size = self._body
            exchange.request = exchange.rendering = None
        exchange.deployment, exchange.signature = other, other.signature
        exchange.bound = exchange.call = exchange.response = None
        if not exchange.explicit_deadline:
            exchange.deadline = self._clock() + other.route.timeout_s
