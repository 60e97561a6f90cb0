"""When a call is tried again and after how long. Pure: random numbers come in, no clock."""

from __future__ import annotations

import msgspec

from headrace.core import errors


class RetryPolicy(msgspec.Struct, frozen=True):
    """Exponential backoff with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter")."""

    retries: int = 3
    """Further attempts after the first; 0 turns retrying off."""
    base_s: float = 0.1
    cap_s: float = 5.0
    longest_wait_s: float = 60.0
    """A server that asks for more than this gets no retry: the caller should know."""


def delay_before_retry(
    policy: RetryPolicy,
    error: errors.HeadraceError,
    attempt: int,
    left_s: float,
    random: float,
    *,
    repeatable: bool = False,
) -> float | None:
    """Seconds to wait before attempt number ``attempt`` + 1, or None to give up.

    ``attempt`` counts from 1, ``left_s`` is what remains of the call's time, ``random`` is uniform in [0, 1).
    Only refusals are retried (not ready, overloaded, could not connect): the model has not run. A request that is
    ``repeatable`` (it has an idempotency key, or changes nothing) also after the connection broke."""
    refused = isinstance(error, errors.NotReady | errors.Overloaded | errors.StateInUse)
    broken = repeatable and isinstance(error, errors.ReplicaDied)
    if attempt > policy.retries or not (refused or broken):
        return None
    backoff = min(policy.cap_s, policy.base_s * 2 ** (attempt - 1))
    asked = error.retry_after
    if asked is None:
        delay = backoff * random
    elif asked > policy.longest_wait_s:
        return None
    else:
        # Never sooner than asked; the spread keeps refused callers from coming back all at once.
        delay = asked + backoff * random
    return delay if delay < left_s else None
