"""Chooses among the deployments of one endpoint: override, rule, sticky key, weights. One per endpoint and route table.

Made only for endpoints that have something to choose; the others have one deployment that takes everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headrace.core import errors
from headrace.core.requests import InferenceRequest
from headrace.core.routes import EndpointRoute
from headrace.core.traffic import OVERRIDES, Source, SourceKind, StickyChooser, body_value
from headrace.pipeline.deployment import Deployment

Headers = Mapping[bytes, bytes]

OVERRIDE_HEADERS = {name.lower().encode(): name for name in OVERRIDES}
"""As they arrive → as people write them."""


class Split:
    """``deployments`` are those of the endpoint at this gateway, by version."""

    def __init__(self, route: EndpointRoute, deployments: Mapping[str, Deployment]) -> None:
        self._endpoint = route.name
        self._policy = route.policy
        self._named = {d.name: deployments[d.version] for d in route.deployments if d.name}
        taking = [(deployments[d.version], route.traffic.get(d.id, 0.0)) for d in route.deployments]
        self._choices = [(deployment, weight) for deployment, weight in taking if weight > 0]
        self._total = sum(weight for _, weight in self._choices)
        self._allowed = {header.lower().encode() for header in self._policy.overrides}
        self._rules = [
            (rule, self._named[rule.deployment]) for rule in self._policy.rules if rule.deployment in self._named
        ]
        self._sticky = StickyChooser(route.name, {d.route.name: w for d, w in self._choices if d.route.name})
        self.reads_body = self._policy.reads_body

    def choose(
        self, headers: Headers, request: InferenceRequest | None, draw: Callable[[], float], caller: str = ""
    ) -> Deployment:
        """The deployment for a request. Where the policy reads the body and there is no ``request`` yet, one whose
        signature serves to decode it. Raises InvalidInput, UnknownModel or NotReady."""
        for header in OVERRIDE_HEADERS:
            if header in headers:
                return self._override(header, headers[header])
        self._check()
        if self.reads_body and request is None:
            return next((d for d, _ in self._choices if d.route.signature is not None), self._choices[0][0])
        for rule, deployment in self._rules:
            # A rule does not send requests into a deployment that is down while others can answer.
            if rule.fits(_read(rule.source, headers, request, caller)) and deployment.route.ready:
                return deployment
        sticky = self._policy.sticky
        key = None if sticky is None else _read(sticky, headers, request, caller)
        chosen = "" if key is None else self._sticky.choose(key.encode("utf-8", "surrogatepass"))
        return self._named[chosen] if chosen else self._drawn(draw)

    def greatest(self) -> Deployment:
        """The deployment with the greatest share; of equals the first. Raises NotReady."""
        self._check()
        return max(self._choices, key=lambda choice: choice[1])[0]

    def _check(self) -> None:
        if not self._choices:
            raise errors.NotReady(f"model {self._endpoint!r} has no version that takes traffic")

    def _override(self, header: bytes, value: bytes) -> Deployment:
        shown = OVERRIDE_HEADERS[header]
        if header not in self._allowed:
            raise errors.InvalidInput(not_allowed(self._endpoint, shown, self._policy.overrides))
        found = self._named.get(value.decode("latin-1"))
        if found is None:
            raise errors.UnknownModel(
                f"{shown}: model {self._endpoint!r} has no deployment {value.decode('latin-1')!r};"
                f" it has: {', '.join(sorted(self._named))}"
            )
        return found

    def _drawn(self, draw: Callable[[], float]) -> Deployment:
        at = draw() * self._total
        for deployment, weight in self._choices:
            at -= weight
            if at < 0:
                return deployment
        return self._choices[-1][0]


def not_allowed(endpoint: str, header: str, allowed: tuple[str, ...]) -> str:
    """What a caller reads who overrides where that is not allowed."""
    instead = f"allowed: {', '.join(allowed)}" if allowed else "no header may"
    return (
        f"{header} may not choose the deployment of model {endpoint!r} ({instead}); leave the header out, or list it"
        f" under overrides of the endpoint"
    )


def _read(source: Source, headers: Headers, request: InferenceRequest | None, caller: str) -> str | None:
    if source.kind is SourceKind.HEADER:
        value = headers.get(source.name.encode())
        return None if value is None else value.decode("latin-1")
    if source.kind is SourceKind.KEY:
        return caller or None
    return None if request is None else body_value(request, source.name)
