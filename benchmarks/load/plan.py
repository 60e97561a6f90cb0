"""What a load run is asked to do and what it found: the values between the harness and the generator process."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec


class Check(StrEnum):
    JSON = "json"
    """Decode every 200 at once and compare its outputs."""
    JSON_LATER = "json-later"
    """Keep a sample of the bodies and compare them after the run: for bodies that are slow to decode."""
    STATUS = "status"
    """Status only."""


class RequestKind(msgspec.Struct, frozen=True):
    """Requests of one sort. ``requests[i]`` is a whole HTTP/1.1 request; ``expected[i]`` its outputs by name."""

    name: str
    requests: list[bytes]
    expected: list[dict[str, list[float]]]
    share: float = 1.0
    check: Check = Check.JSON


class Arrivals(msgspec.Struct, frozen=True):
    """When requests are sent, whatever the server does (open loop)."""

    rate: float
    """Requests a second."""
    seconds: float
    shape: Literal["poisson", "constant"] = "poisson"
    seed: int = 0


class LoadPlan(msgspec.Struct, frozen=True):
    port: int
    kinds: list[RequestKind]
    arrivals: Arrivals
    host: str = "127.0.0.1"
    connections: int = 16
    """Opened before the first request."""
    max_connections: int = 2048
    """More are opened while all are busy; past this, requests wait in the generator (and the wait is counted)."""
    timeout_s: float = 10.0
    rtol: float = 1e-4
    atol: float = 1e-6
    resend_unread: bool = True
    """Send a request again when the server closed the connection without having read it (RFC 9110 §9.2.2)."""


class Outcome(StrEnum):
    """How a request ended, besides ``status NNN`` for any status but 200."""

    OK = "ok"
    WRONG = "wrong"
    """200 with outputs that are not the expected ones."""
    REFUSED = "refused"
    """No connection: nobody listens."""
    UNREAD = "unread"
    """The connection was reset before the server had read the request."""
    UNANSWERED = "unanswered"
    """The server had the request and closed the connection without one byte of an answer."""
    CUT = "cut"
    """The connection ended in the middle of an answer."""
    GARBLED = "garbled"
    """What came back is not HTTP."""
    TIMEOUT = "timeout"


class Latency(msgspec.Struct, frozen=True):
    """Seconds from the *scheduled* send time to the last byte of the answer."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


class Trouble(msgspec.Struct, frozen=True):
    """One failed request, for the reader who wants to know why."""

    at: float
    """Seconds since the start of the run."""
    kind: str
    outcome: str
    detail: str


class KindResult(msgspec.Struct, frozen=True):
    outcomes: dict[str, int]
    latency: dict[str, Latency]
    """By outcome."""
    histogram: list[tuple[float, int]]
    """Answers that are ok: (upper edge in seconds, count), log-spaced."""


class LoadResult(msgspec.Struct, frozen=True):
    offered: int
    seconds: float
    """From the first scheduled time to the last answer."""
    started_at: float
    """Unix time of the first scheduled request."""
    kinds: dict[str, KindResult]
    per_second: dict[str, list[int]]
    """Answers by outcome, by second of completion."""
    resent: int
    connections_opened: int
    checked: int
    """Answers whose values were compared."""
    generator_lag: Latency
    """How late the generator itself sent. When its p99 is not small, the figures are the generator's."""
    troubles: list[Trouble]

    def count(self, *outcomes: str) -> int:
        return sum(kind.outcomes.get(outcome, 0) for kind in self.kinds.values() for outcome in outcomes)

    @property
    def failed(self) -> int:
        """Everything but right answers."""
        return sum(sum(kind.outcomes.values()) for kind in self.kinds.values()) - self.count(Outcome.OK)
