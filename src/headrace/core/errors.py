"""Every error that can end a request, a load or a command.

    HeadraceError
    ├── CallerError                 the request is wrong; sending it again does not help
    │   ├── InvalidInput            malformed body, wrong name, dtype or shape
    │   │   ├── WrongDigest         uploaded bytes do not have the digest they were announced with
    │   │   └── KeyReused           an idempotency key came back with another request
    │   ├── UnknownModel            no such endpoint, version or path
    │   ├── UnknownKey              no such API key in the state
    │   ├── UnknownExperiment       the endpoint has had no experiment
    │   ├── UnknownArtifact         no stored file has this digest
    │   ├── NoRegistry              this server was started without a registry
    │   ├── MethodNotAllowed        the path exists, the verb does not
    │   ├── PayloadTooLarge         a limit on bytes was passed
    │   ├── Unsupported             a valid request for something this server does not do
    │   ├── Unauthorized            no acceptable credential
    │   ├── Forbidden               the credential is good, but not for this
    │   ├── UntrustedArtifact       code-bearing artifact without --trust
    │   ├── BadSettings             a setting is unknown or has a wrong value
    │   ├── PreconditionRequired    a change that must say what it replaces does not
    │   └── Conflict                the change contradicts what is there
    │       ├── PreconditionFailed  what is there is not what the caller has seen
    │       ├── SecretShownOnce     the request made an API key before, whose secret cannot be told again
    │       └── WrongOffset         a piece of an upload does not follow what has arrived
    ├── Cancelled                   the caller went away
    ├── NotReady                    loading, or no replica can be reached
    │   └── Dormant                 it starts on its first request
    ├── Overloaded                  refused to protect the requests already accepted
    │   └── QuotaExceeded           the caller's own limit
    ├── DeadlineExceeded            the request's time ran out
    ├── RuntimeFailed               the model or its process failed
    │   ├── ModelRaised             predict raised
    │   ├── BadModelOutput          outputs do not match what the model declared
    │   ├── OutOfMemory             a replica had no memory to take the batch; nothing was computed
    │   ├── LoadFailed              the artifact could not be loaded
    │   ├── ReplicaDied             the process died while it worked on the request
    │   └── PoisonRequest           the request was present at two deaths
    ├── StoreFailed                 the database or the artifact store failed
    │   ├── StateInUse              another process owns the state
    │   ├── LeaseLost               this process owned the state and does no longer
    │   ├── StorageFull             no room; nothing half-written is left
    │   └── Corrupted               stored bytes do not have their digest
    └── Bug                         a broken invariant of Headrace itself

The docstring of a class is its default message. Transport status codes are mapped once per protocol
(``protocols/``); this module knows no transport.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar, Self


class HeadraceError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "error"
    """Stable identifier for machines: logs, metrics, clients."""
    retryable: ClassVar[bool] = False
    """True when the same request may succeed later, unchanged."""

    retry_after: float | None = None
    """Seconds after which a retry is sensible, when known."""

    def __init__(self, message: str | None = None, *, retry_after: float | None = None) -> None:
        self.message = message or (type(self).__doc__ or self.code).strip()
        super().__init__(self.message)
        if retry_after is not None:
            self.retry_after = retry_after

    def untraced(self) -> Self:
        """The error without its traceback, to be kept beyond the ``except`` that caught it.

        A traceback holds the frames it went through, and with them the request, its body and its connection. Kept in
        one of those frames it is a cycle that lives until the garbage collector comes by."""
        self.__traceback__ = self.__context__ = self.__cause__ = None
        return self


class CallerError(HeadraceError):
    """The request is not valid."""

    code = "caller_error"


class InvalidInput(CallerError):
    """The input does not fit the model."""

    code = "invalid_input"


class WrongDigest(InvalidInput):
    """The bytes do not have the digest that was announced."""

    code = "wrong_digest"


class KeyReused(InvalidInput):
    """The idempotency key was used for another request."""

    code = "idempotency_key_reused"


class UnknownModel(CallerError):
    """There is no such model."""

    code = "unknown_model"


class UnknownKey(CallerError):
    """There is no such API key."""

    code = "unknown_key"


class UnknownExperiment(CallerError):
    """The endpoint has had no experiment."""

    code = "unknown_experiment"


class UnknownArtifact(CallerError):
    """No stored file has this digest."""

    code = "unknown_artifact"


class NoRegistry(CallerError):
    """This server has no registry."""

    code = "no_registry"


class MethodNotAllowed(CallerError):
    """The path does not accept this method."""

    code = "method_not_allowed"


class PayloadTooLarge(CallerError):
    """The body is larger than the server accepts."""

    code = "payload_too_large"


class Unsupported(CallerError):
    """This server does not support that."""

    code = "unsupported"


class Unauthorized(CallerError):
    """No acceptable credential was given."""

    code = "unauthorized"


class Forbidden(CallerError):
    """The key may not do this."""

    code = "forbidden"


class UntrustedArtifact(CallerError):
    """The artifact would run code of its author and is not trusted."""

    code = "untrusted_artifact"


class BadSettings(CallerError):
    """A setting is unknown or has a wrong value."""

    code = "bad_settings"


class PreconditionRequired(CallerError):
    """The change must say what it replaces."""

    code = "precondition_required"


class Conflict(CallerError):
    """The change contradicts what is there."""

    code = "conflict"


class PreconditionFailed(Conflict):
    """What is there has changed since it was read."""

    code = "precondition_failed"


class SecretShownOnce(Conflict):
    """This request has made an API key before; its secret cannot be told again."""

    code = "secret_shown_once"


class WrongOffset(Conflict):
    """The piece does not follow what has arrived."""

    code = "wrong_offset"


class Cancelled(HeadraceError):
    """The caller went away."""

    code = "cancelled"


class NotReady(HeadraceError):
    """The model is not ready."""

    code = "not_ready"
    retryable = True
    retry_after = 1.0


class Dormant(NotReady):
    """The model starts on its first request."""

    code = "dormant"

    loaded: Callable[[], Awaitable[None]] | None = None
    """In the process that holds the request: waits until the model has loaded, or cannot be."""


class Overloaded(HeadraceError):
    """The server is at capacity."""

    code = "overloaded"
    retryable = True
    retry_after = 1.0


class QuotaExceeded(Overloaded):
    """The caller's own limit is used up."""

    code = "quota_exceeded"


class DeadlineExceeded(HeadraceError):
    """The request's deadline passed before it could be answered."""

    code = "deadline_exceeded"
    retryable = True


class RuntimeFailed(HeadraceError):
    """The model failed."""

    code = "runtime_failed"


class ModelRaised(RuntimeFailed):
    """The model raised an exception."""

    code = "model_raised"


class BadModelOutput(RuntimeFailed):
    """The model returned outputs that do not match its signature."""

    code = "bad_model_output"


class OutOfMemory(RuntimeFailed):
    """The replica has no memory for this request."""

    code = "out_of_memory"


class LoadFailed(RuntimeFailed):
    """The model could not be loaded."""

    code = "load_failed"


class ReplicaDied(RuntimeFailed):
    """The replica died while it worked on this request."""

    code = "replica_died"
    retryable = True


class PoisonRequest(RuntimeFailed):
    """This request was being worked on each time a replica died."""

    code = "poison_request"


class StoreFailed(HeadraceError):
    """The database or the artifact store failed."""

    code = "store_failed"


class StateInUse(StoreFailed):
    """Another process owns the state."""

    code = "state_in_use"
    retryable = True
    retry_after = 1.0


class LeaseLost(StoreFailed):
    """Another process has taken over the state."""

    code = "lease_lost"


class StorageFull(StoreFailed):
    """There is no room left where artifacts are stored."""

    code = "storage_full"


class Corrupted(StoreFailed):
    """Stored bytes do not have the digest they were stored under."""

    code = "corrupted"


class Bug(HeadraceError):
    """This is a bug in Headrace."""

    code = "bug"


def _tree(cls: type[HeadraceError]) -> dict[str, type[HeadraceError]]:
    found = {cls.code: cls}
    for child in cls.__subclasses__():
        found.update(_tree(child))
    return found


_BY_CODE = _tree(HeadraceError)


def is_code(code: str) -> bool:
    """Whether an error of this tree has this code."""
    return code in _BY_CODE


def from_code(code: str, message: str) -> HeadraceError:
    """Rebuild an error that crossed a process boundary as ``(code, message)``."""
    return _BY_CODE.get(code, RuntimeFailed)(message)
