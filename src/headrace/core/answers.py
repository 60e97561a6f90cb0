"""Answers that are kept, so that a request that is sent again does not happen again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

T = TypeVar("T")

KEPT_S = 24 * 3600.0
"""How long the answer to an idempotency key is kept, in seconds."""


class Answer(msgspec.Struct, frozen=True):
    """What was answered to the first request with an idempotency key.

    ``fingerprint`` is a digest of that request: another request under the same key is a mistake. ``at`` is in seconds
    since 1970 (UTC)."""

    key: str
    fingerprint: str
    status: int
    headers: dict[str, str]
    body: str
    at: float


Answering = Callable[[T], Answer]
"""Makes the answer that is kept together with a change, from what the change came to."""
