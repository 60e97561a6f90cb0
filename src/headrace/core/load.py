"""LoadReport: what a gateway tells the controller about the traffic it carries."""

from __future__ import annotations

import msgspec

from headrace.core.shadows import ShadowLoad
from headrace.core.trials import TrialTally


class DeploymentLoad(msgspec.Struct, frozen=True):
    """Load of one deployment as one gateway sees it."""

    deployment: str
    queued_requests: int
    queued_rows: int
    in_flight: int
    requests: int
    """Finished since the gateway started."""
    refused: int
    latency_a_ms: float | None
    """Learned fixed cost of a batch, ms; None until learned."""
    latency_b_ms: float | None
    """Learned cost of one more row, ms."""
    batch_limit: int
    explanation: str
    """Why batches have the size they have, in words."""
    shadow: ShadowLoad | None = None
    """What was compared, of a shadow."""


class LoadReport(msgspec.Struct, frozen=True):
    gateway: int
    route_version: int
    draining: bool
    deployments: tuple[DeploymentLoad, ...]
    unreachable: tuple[str, ...] = ()
    """Replica ids this gateway cannot connect to or lost the connection of."""
    began: float = 0.0
    """When this gateway's process began, in seconds since 1970: its sums start at 0 then."""
    trials: tuple[TrialTally, ...] = ()
    asked_for: tuple[str, ...] = ()
    """Ids of dormant deployments for which requests wait."""
