"""Which replica a new version's golden requests are asked of, and within which bounds."""

from __future__ import annotations

import asyncio

from headrace.app.endpoints.manager import EndpointManager
from headrace.app.rollouts import golden_requests
from headrace.app.rollouts.golden_files import golden_file
from headrace.app.state.location import Location
from headrace.control import publish
from headrace.control.analysis.verdict import Finding
from headrace.control.golden import GoldenReport
from headrace.control.observed import Desired, Observed
from headrace.control.rollout_story import Rollout
from headrace.core.endpoints import DeploymentSpec
from headrace.core.replicas import ReplicaState
from headrace.core.routes import DeploymentRoute, ReplicaRoute

_LOOKS, _LOOK_S = 300, 0.1
"""For a replica in the place of one that died of a golden request."""


class GoldenAsker:
    """On the controller's event loop."""

    def __init__(self, endpoints: EndpointManager, location: Location, desired: Desired, observed: Observed) -> None:
        self._endpoints = endpoints
        self._location = location
        self._desired = desired
        self._observed = observed

    async def ask(self, rollout: Rollout, spec: DeploymentSpec) -> GoldenReport:
        """What a new version answers to the golden requests that were registered with it."""
        path = await asyncio.to_thread(golden_file, rollout, self._location, self._endpoints.state)
        if path is None:
            return GoldenReport(Finding.PASS, "it has none")
        route = publish.deployment(spec, self._desired, self._observed)
        replica = _ready(route, "")
        if replica is None or route.signature is None:
            return GoldenReport(Finding.INCONCLUSIVE, "no replica of it is ready")
        terms = golden_requests.Terms(
            route.slots,
            spec.batching.max_batch_size,
            idempotent=route.idempotent,
            timeout_s=spec.timeout_s,
            # The report must come before the rollout asks a person.
            total_s=0.9 * rollout.spec.max_golden_s,
        )

        async def another(dead: str) -> ReplicaRoute | None:
            for _ in range(_LOOKS):
                found = _ready(publish.deployment(spec, self._desired, self._observed), dead)
                if found is not None:
                    return found
                await asyncio.sleep(_LOOK_S)
            return None

        return await golden_requests.ask(replica, route.signature, path, terms, another)


def _ready(route: DeploymentRoute, other_than: str) -> ReplicaRoute | None:
    """A replica that can be asked."""
    able = (r for r in route.replicas if r.state is ReplicaState.READY and r.id != other_than)
    return next(able, None)
