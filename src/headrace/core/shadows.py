"""Shadow traffic: which share of requests is computed a second time, and what came out of it."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Shadow(msgspec.Struct, frozen=True):
    """``percent`` of the endpoint's answered requests are mirrored to ``deployment``, which takes no traffic."""

    deployment: str
    percent: float


class Mirrored(StrEnum):
    """What became of a request that was to be mirrored."""

    AGREED = "agreed"
    DISAGREED = "disagreed"
    FAILED = "failed"
    """The shadow answered with an error."""
    DROPPED = "dropped"
    """The queue was full, it waited too long for idle capacity, or the shadow does not take such requests."""


class Disagreement(msgspec.Struct, frozen=True):
    """A request whose answers differ; outputs as text, shortened."""

    request_id: str
    output: str
    live: str
    shadow: str


class ShadowLoad(msgspec.Struct, frozen=True):
    """What one gateway has seen of a shadow since the deployment came. Times are sums over compared requests, in
    milliseconds: what a batch with the request in it took to compute."""

    agreed: int = 0
    disagreed: int = 0
    failed: int = 0
    dropped: int = 0
    max_absolute: float = 0.0
    max_relative: float = 0.0
    live_ms: float = 0.0
    shadow_ms: float = 0.0
    sample: tuple[Disagreement, ...] = ()
    """The latest disagreements."""
