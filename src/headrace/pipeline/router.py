"""Follows the RouteTable: which endpoints exist here, their deployments, and who may serve a request."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from headrace.core import errors
from headrace.core.names import version_order
from headrace.core.requests import InferenceRequest
from headrace.core.routes import DeploymentRoute, EndpointRoute, RouteTable
from headrace.core.trials import TrialTally
from headrace.pipeline.deployment import Deployment
from headrace.pipeline.mirror import Mirrors
from headrace.pipeline.ports import Clock
from headrace.pipeline.split import OVERRIDE_HEADERS, Headers, Split
from headrace.pipeline.tallying import TrialCounters

MakeDeployment = Callable[[str, DeploymentRoute, int], Deployment]

_NO_HEADERS: dict[bytes, bytes] = {}
_OURS, _SAGEMAKER, _AZURE = OVERRIDE_HEADERS
_ANSWERED_BY = b"x-headrace-deployment"


class Endpoint:
    """An endpoint's deployments by version, and the split of its traffic.

    ``choices`` are those that take traffic now; ``only`` is the one that takes everything, whatever a request says.
    ``paused`` says why the endpoint refuses requests, if it does."""

    __slots__ = ("choices", "deployments", "mirrors", "name", "only", "paused", "split", "trial")

    def __init__(self, name: str, mirrors: Mirrors) -> None:
        self.name = name
        self.mirrors = mirrors
        self.deployments: dict[str, Deployment] = {}
        self.choices: list[Deployment] = []
        self.only: Deployment | None = None
        self.paused = ""
        self.trial: TrialCounters | None = None
        self.split: Split

    def follow(self, route: EndpointRoute) -> None:
        """Take the traffic of a route table over; ``deployments`` are those of the table already."""
        self.choices = [self.deployments[d.version] for d in route.deployments if route.traffic.get(d.id, 0.0) > 0]
        self.paused = route.paused
        alone = len(self.choices) == 1 and route.policy.plain and not route.paused
        self.only = self.choices[0] if alone else None
        self.split = Split(route, self.deployments)
        named = {d.name: self.deployments[d.version] for d in route.deployments if d.name}
        self.mirrors.follow(route.policy.shadows, named)
        self._follow_trial(route)
        for deployment in self.deployments.values():
            deployment.offer = self.mirrors.offer if self.mirrors else None
            deployment.reads_body = self.split.reads_body
            deployment.fallback, deployment.siblings = route.policy.fallback, named
            name = deployment.route.name
            deployment.header = (_ANSWERED_BY, name.encode()) if len(named) > 1 and name else None

    def _follow_trial(self, route: EndpointRoute) -> None:
        if route.trial is None:
            self.trial = None
        elif self.trial is None or not self.trial.follow(route.trial):
            self.trial = TrialCounters(route.trial)
        sides = (
            {} if self.trial is None else {self.trial.trial.old: self.trial.old, self.trial.trial.new: self.trial.new}
        )
        for deployment in self.deployments.values():
            deployment.counter = sides.get(deployment.route.id)

    def refusal(self) -> errors.NotReady:
        """What a request is told while the endpoint is paused."""
        return errors.NotReady(f"endpoint {self.name!r} is paused: {self.paused}")

    def version(self, version: str) -> Deployment:
        """Raises UnknownModel."""
        found = self.deployments.get(version)
        if found is None:
            deployed = ", ".join(sorted(self.deployments, key=version_order))
            raise errors.UnknownModel(f"model {self.name!r} has no version {version!r}; deployed: {deployed}")
        return found


class Router:
    """Applies route tables; answers ``find``. Deployments that left the table finish what they hold."""

    def __init__(
        self, make: MakeDeployment, draw: Callable[[], float] = random.random, clock: Clock = time.monotonic
    ) -> None:
        self.table_version = 0
        self.endpoints: dict[str, Endpoint] = {}
        self._epoch = 0
        self._make = make
        self._draw = draw
        self._clock = clock
        self._leaving: list[Deployment] = []
        self._shut = False

    def find(
        self,
        name: str,
        version: str,
        headers: Headers = _NO_HEADERS,
        request: InferenceRequest | None = None,
        caller: str = "",
    ) -> Deployment:
        """The deployment that serves this request; ``version`` bypasses the split. One that ``reads_body`` is found
        again with the decoded request. ``caller`` names its key. Raises UnknownModel, InvalidInput or NotReady."""
        endpoint = self.endpoints.get(name)
        if endpoint is None:
            raise self._unknown(name)
        if version:
            if endpoint.paused:
                raise endpoint.refusal()
            return endpoint.version(version)
        only = endpoint.only
        # Written out: this is every request of most endpoints, and a set operation takes twice as long.
        if only is not None and not (_OURS in headers or _SAGEMAKER in headers or _AZURE in headers):
            return only
        if endpoint.paused:
            raise endpoint.refusal()
        return endpoint.split.choose(headers, request, self._draw, caller)

    def describing(self, name: str, version: str) -> Deployment:
        """The deployment whose metadata stand for the endpoint's: of several the one with the greatest share, always
        the same one. Raises UnknownModel or NotReady."""
        endpoint = self.endpoints.get(name)
        if endpoint is None:
            raise self._unknown(name)
        return endpoint.version(version) if version else endpoint.split.greatest()

    def _unknown(self, name: str) -> errors.HeadraceError:
        if not self.table_version:
            return errors.NotReady("the server is starting: what it serves is still being looked at")
        known = sorted(self.endpoints)
        shown = ", ".join(known[:10]) + (f" and {len(known) - 10} more" if len(known) > 10 else "")
        return errors.UnknownModel(f"model {name!r} not found; this server has: {shown or 'no models yet'}")

    @property
    def leaving(self) -> list[Deployment]:
        """Deployments that left the table and finish what they hold."""
        return self._leaving

    def trials(self) -> list[TrialTally]:
        """What was counted of every trial that runs."""
        return [e.trial.tally(e.name) for e in self.endpoints.values() if e.trial is not None]

    def deployments(self) -> list[Deployment]:
        """All deployments, those that are leaving included."""
        return [d for e in self.endpoints.values() for d in e.deployments.values()] + self._leaving

    def apply(self, table: RouteTable) -> bool:
        """Take a newer table over; False when it is not newer, or after ``shut``."""
        if self._shut or (table.epoch, table.version) <= (self._epoch, self.table_version):
            return False
        self._epoch, self.table_version = table.epoch, table.version
        named = {e.name: e for e in table.endpoints}
        for name in [n for n in self.endpoints if n not in named]:
            gone = self.endpoints.pop(name)
            gone.mirrors.follow((), {})
            self._leaving += gone.deployments.values()
        for name, route in named.items():
            endpoint = self.endpoints.get(name)
            if endpoint is None:
                endpoint = self.endpoints[name] = Endpoint(name, Mirrors(self._draw, self._clock))
            self._apply_endpoint(endpoint, route, table.gateways)
        return True

    def shut(self, error: errors.NotReady) -> None:
        """The gateway ends: what has no answer yet, and what still comes, is answered with ``error``. No table is
        followed any more."""
        self._shut = True
        for deployment in self.deployments():
            deployment.shut(error)

    def _apply_endpoint(self, endpoint: Endpoint, route: EndpointRoute, gateways: int) -> None:
        wanted = {d.version: d for d in route.deployments}
        for version in [v for v in endpoint.deployments if v not in wanted]:
            self._leaving.append(endpoint.deployments.pop(version))
        for version, deployment in wanted.items():
            existing = endpoint.deployments.get(version)
            if existing is None:
                endpoint.deployments[version] = self._make(endpoint.name, deployment, gateways)
            elif existing.route.id != deployment.id:
                self._leaving.append(existing)
                endpoint.deployments[version] = self._make(endpoint.name, deployment, gateways)
            else:
                existing.update(deployment, gateways)
        endpoint.follow(route)

    def sweep(self, now: float) -> None:
        """Coarse timer: deadlines, shadows, and farewell to deployments that have finished."""
        for endpoint in self.endpoints.values():
            if endpoint.mirrors:
                endpoint.mirrors.pump()
        for deployment in self.deployments():
            deployment.sweep(now)
        for deployment in list(self._leaving):
            # Nothing comes for those that have lost their replicas.
            if deployment.idle or not deployment.replicas:
                deployment.close()
                self._leaving.remove(deployment)
