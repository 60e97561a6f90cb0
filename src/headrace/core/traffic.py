"""The traffic policy of an endpoint, and the pure rules by which a request gets its deployment.

A request goes by, in this order: an override header, the first rule that fits, its sticky key, chance by weights.
Knows neither sockets nor deployments at work: deployments are names here, headers a mapping of bytes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

from headrace.core.fallbacks import DeploymentFallback, Fallback
from headrace.core.requests import InferenceRequest, Parameter
from headrace.core.shadows import Shadow

MAIN = "main"
"""The deployment of an endpoint that names none."""

OVERRIDES = ("X-Headrace-Deployment", "X-Amzn-SageMaker-Target-Variant", "azureml-model-deployment")
"""Headers that may name a deployment, where the policy allows them; the first that is given counts."""

_HASH_BITS = 64
_CHOICES_KEPT = 4096
"""Keys whose deployment is remembered: who sends one request with a key sends more."""
_LONGEST_KEPT = 128
"""Bytes of a key that is remembered. Callers choose their keys: long ones must not fill the memory."""


class SourceKind(StrEnum):
    HEADER = "header"
    """A header of HTTP, metadata of gRPC; names are case-insensitive."""
    BODY = "body"
    """A parameter of the request or else the first element of an input of that name."""
    KEY = "key"
    """The name of the API key that the request came with; rotating a key does not change it."""


class Source(msgspec.Struct, frozen=True):
    """Where in a request a value stands: ``header:x-user-id``, ``body:country``, ``key`` (without a name)."""

    kind: SourceKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind.value}:{self.name}" if self.name else self.kind.value


class Rule(msgspec.Struct, frozen=True):
    """Requests whose ``source`` has one of ``values`` go to ``deployment``; without values it is enough that the
    source is there."""

    source: Source
    values: tuple[str, ...]
    deployment: str

    def fits(self, value: str | None) -> bool:
        return value is not None and (not self.values or value in self.values)


class TrafficPolicy(msgspec.Struct, frozen=True):
    """How an endpoint's requests are spread over its deployments. ``weights`` is by deployment name, in any unit; an
    absent deployment has 0. ``overrides`` are the headers of ``OVERRIDES`` that are allowed."""

    weights: dict[str, float] = msgspec.field(default_factory=lambda: {MAIN: 1.0})
    sticky: Source | None = None
    rules: tuple[Rule, ...] = ()
    overrides: tuple[str, ...] = ()
    fallback: tuple[Fallback, ...] = ()
    """Tried in order when the chosen deployment fails, is late or refuses."""
    shadows: tuple[Shadow, ...] = ()

    @property
    def reads_body(self) -> bool:
        """Some decision needs the decoded request."""
        sources = [rule.source for rule in self.rules] + ([self.sticky] if self.sticky is not None else [])
        return any(source.kind is SourceKind.BODY for source in sources)

    @property
    def asked(self) -> set[str]:
        """Names of the deployments whose answers this policy sends to callers."""
        weighted = {name for name, weight in self.weights.items() if weight > 0}
        fallbacks = {other.deployment for other in self.fallback if isinstance(other, DeploymentFallback)}
        return weighted | fallbacks | {rule.deployment for rule in self.rules}

    @property
    def plain(self) -> bool:
        """Weights decide, and nothing else."""
        return self.sticky is None and not self.rules and not self.overrides


class EndpointTraffic(msgspec.Struct, frozen=True):
    """A policy, and which version serves under each name now: deployment name → deployment id."""

    policy: TrafficPolicy = TrafficPolicy()
    targets: dict[str, str] = {}

    def aimed(self, name: str, deployment: str) -> EndpointTraffic:
        """The same with another version under ``name``."""
        return EndpointTraffic(self.policy, {**self.targets, name: deployment})


def body_value(request: InferenceRequest, name: str) -> str | None:
    """A parameter, or the first element of an input, as text; None when there is neither. Of a request with several
    rows the first one speaks for all."""
    if name in request.parameters:
        return _text(request.parameters[name])
    for tensor in request.tensors:
        if tensor.name == name and tensor.array.size:
            return _text(tensor.array.flat[0].item() if tensor.array.dtype != object else tensor.array.flat[0])
    return None


def _text(value: Parameter | bytes) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value).lower() if isinstance(value, bool) else str(value)


class StickyChooser:
    """Weighted rendezvous hashing: a key goes to the deployment with the least ``-ln(u) / weight``, where ``u`` is a
    hash of key, endpoint and deployment in (0, 1). The same key has the same deployment in every process and after
    every restart. Choosing is minimal for what operators do: when one weight changes, or a deployment comes or goes,
    exactly the share that must move moves. For any other change no rule without memory can be that good; this one is
    optimal (Moulton and Jiang, "Maximally Consistent Sampling and the Jaccard Index of Probability Distributions",
    2018): at most ``2d / (1 + d)`` of the keys move, ``d`` the total variation distance between old and new shares.

    ``weights``: deployment name → weight above 0."""

    def __init__(self, endpoint: str, weights: Mapping[str, float]) -> None:
        self._salted = [(name, weight, _salted(endpoint, name)) for name, weight in sorted(weights.items())]
        self._chosen: dict[bytes, str] = {}

    def choose(self, key: bytes) -> str:
        """The name of a deployment; empty when there is none."""
        found = self._chosen.get(key)
        if found is None:
            found = self._hashed(key)
            if len(key) <= _LONGEST_KEPT:
                if len(self._chosen) >= _CHOICES_KEPT:
                    self._chosen.clear()
                self._chosen[key] = found
        return found

    def _hashed(self, key: bytes) -> str:
        best, least = "", math.inf
        for name, weight, salted in self._salted:
            hashed = salted.copy()
            hashed.update(key)
            # Never 0 or 1: the logarithm stays finite and above 0.
            uniform = (int.from_bytes(hashed.digest()) + 0.5) / 2**_HASH_BITS
            score = -math.log(uniform) / weight
            if score < least:
                best, least = name, score
        return best


def _salted(endpoint: str, deployment: str) -> hashlib.blake2b:
    # A newline is in neither name, so no two pairs share a key; blake2b takes 64 bytes of key, names may be longer.
    key = hashlib.blake2b(f"{endpoint}\n{deployment}".encode(), digest_size=32).digest()
    return hashlib.blake2b(key=key, digest_size=_HASH_BITS // 8)


def shares(weights: Mapping[str, float], ready: Iterable[str]) -> dict[str, float]:
    """What every deployment really gets, in all 1: the weights of those that are not ready fall to the others, in
    proportion. When none is ready everybody keeps its own, so that requests wait or fail where they belong."""
    wanted = {name: weight for name, weight in weights.items() if weight > 0}
    able = set(ready) & wanted.keys() or wanted.keys()
    total = math.fsum(wanted[name] for name in able)
    return {name: weight / total for name, weight in wanted.items() if name in able}
