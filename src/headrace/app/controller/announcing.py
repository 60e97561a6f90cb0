"""What people are told: events, once each, when they are true at every gateway."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable

import msgspec

from headrace.app import events, orders
from headrace.app.controller.role import ControllerRole
from headrace.app.controller.routing import Routing
from headrace.core.load import LoadReport

_EVENTS_KEPT = 1000


class Announcements:
    """On the controller's event loop."""

    def __init__(self, role: ControllerRole, routing: Routing, send: Callable[[orders.Order], None]) -> None:
        self.serving = False
        """Whoever watches the server knows that it serves."""
        self._role = role
        self._routing = routing
        self._send = send
        self._history: collections.deque[dict[str, object]] = collections.deque(maxlen=_EVENTS_KEPT)
        self._loaded: list[events.VersionLoaded] = []
        """Not told yet."""
        self._waiting: dict[str, tuple[str, ...]] = {}
        """Deployments whose share others take, as it was told last."""
        self._explained: dict[str, str] = {}

    def say(self, event: events.Event) -> None:
        """Tell the supervisor's watcher, and remember for the API."""
        self._history.append({"at": time.time(), "type": type(event).__name__, **msgspec.to_builtins(event)})
        self._send(orders.Notify(event))

    def latest(self, limit: int) -> list[dict[str, object]]:
        """The last events, newest first."""
        return list(self._history)[::-1][:limit]

    @property
    def pending(self) -> bool:
        """Something waits for gateways to follow."""
        return not self.serving or bool(self._loaded)

    def loaded(self, moved: list[events.VersionLoaded]) -> None:
        """Traffic moves to these; it is told when every gateway has moved it."""
        self._loaded += moved

    def announce(self, *, settled: bool, asks: bool) -> None:
        """Tell what has become true. ``settled``: all that was asked for is ready or has failed; ``asks``: keys are
        asked for."""
        self._serving_once(settled, asks)
        if self._loaded and self._routing.followed():
            for event in self._loaded:
                self.say(event)
            self._loaded.clear()
        self._shifts()

    def _serving_once(self, settled: bool, asks: bool) -> None:
        routing, role = self._routing, self._role
        if self.serving or not settled or not routing.followed():
            return
        if any(load.unreachable for load in routing.loads()):
            return
        self.serving = True
        self.say(
            events.Serving(
                role.url,
                role.management_url,
                routing.table.endpoints,
                role.settings.gateway.gateways,
                time.monotonic() - role.began,
                asks,
            )
        )

    def _shifts(self) -> None:
        """Who takes whose traffic, when that changes; at the start it is no news that nobody is ready yet."""
        if not self.serving:
            return
        for endpoint in self._routing.table.endpoints:
            waiting = endpoint.waiting
            if waiting != self._waiting.get(endpoint.name, ()):
                self._waiting[endpoint.name] = waiting
                shares = {d.name: endpoint.traffic[d.id] for d in endpoint.deployments if d.id in endpoint.traffic}
                self.say(events.TrafficShifted(endpoint.name, waiting, shares))

    def explain(self, report: LoadReport) -> None:
        """``--explain-batching``: the verdict counts, not every new digit in it."""
        if not self._role.settings.explain_batching:
            return
        for load in report.deployments:
            verdict = load.explanation.partition(":")[0]
            if load.requests and self._explained.get(load.deployment) != verdict:
                self._explained[load.deployment] = verdict
                self.say(events.BatchingExplained(load.deployment, load.explanation))
