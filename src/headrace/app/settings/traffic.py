"""``traffic``, ``sticky``, ``rules`` and ``overrides`` of an endpoint in ``headrace.yaml`` → its TrafficPolicy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from yaml.nodes import Node

from headrace.app.settings.nodes import NodeReader, nearest
from headrace.core import errors
from headrace.core.fallbacks import ConstantFallback, DeploymentFallback, Fallback
from headrace.core.shadows import Shadow
from headrace.core.traffic import OVERRIDES, Rule, Source, SourceKind, TrafficPolicy

KEYS = ("traffic", "sticky", "rules", "overrides", "fallback", "shadow")
"""What may stand beside ``deployments``."""

_RULE_KEYS = ("when", "equals", "in", "deployment")
_SOURCE = "header:NAME, body:FIELD or key"

Found = Mapping[str, tuple[Node, Node]]
"""Keys of one mapping: name → nodes of key and value."""


class TrafficReader:
    """Reads the policy of the endpoint at ``shown``, whose deployments have these names."""

    def __init__(self, nodes: NodeReader, shown: str, deployments: Sequence[str]) -> None:
        self._nodes = nodes
        self._shown = shown
        self._deployments = deployments

    def read(self, found: Found) -> TrafficPolicy:
        """Raises BadSettings or Unsupported."""
        sticky = found.get("sticky")
        weights = self._weights(found)
        rules = self._rules(found["rules"][1]) if "rules" in found else ()
        ruled = {rule.deployment: 1.0 for rule in rules}
        return TrafficPolicy(
            weights=weights,
            sticky=None if sticky is None else self._source(sticky[1], f"{self._shown}.sticky"),
            rules=rules,
            overrides=self._overrides(found["overrides"][1]) if "overrides" in found else (),
            fallback=self._fallbacks(found["fallback"][1]) if "fallback" in found else (),
            shadows=self._shadows(found["shadow"][1], {**weights, **ruled}) if "shadow" in found else (),
        )

    def _weights(self, found: Found) -> dict[str, float]:
        shown = f"{self._shown}.traffic"
        if "traffic" not in found:
            if len(self._deployments) == 1:
                return {self._deployments[0]: 1.0}
            first, *others = self._deployments
            example = ", ".join([f"{first}: 100", *(f"{other}: 0" for other in others)])
            raise errors.BadSettings(
                f"{self._nodes.at(found['deployments'][0])}: {self._shown} has {len(self._deployments)} deployments and"
                f" no traffic; say how requests are spread, e.g. traffic: {{{example}}}"
            )
        at, node = found["traffic"]
        weights = {
            self._deployment(name, key, f"{shown}.{name}"): self._weight(value, f"{shown}.{name}")
            for name, key, value in self._nodes.items(node, shown)
        }
        if not sum(weights.values()) > 0:
            raise errors.BadSettings(f"{self._nodes.at(at)}: {shown}: no deployment has a weight above 0")
        return weights

    def _weight(self, node: Node, shown: str) -> float:
        try:
            weight = float(self._nodes.text(node, shown))
        except ValueError:
            weight = math.nan
        # A sum of weights must be finite too.
        if not 0 <= weight <= 1e9:
            self._nodes.refuse(node, shown, "a weight of at least 0, e.g. 5")
        return weight

    def _deployment(self, name: str, node: Node, shown: str) -> str:
        if name not in self._deployments:
            hint = nearest(name, self._deployments)
            raise errors.BadSettings(f"{self._nodes.at(node)}: {shown}: there is no deployment {name!r}{hint}")
        return name

    def _source(self, node: Node, shown: str) -> Source:
        text = self._nodes.text(node, shown)
        kind, _, name = text.partition(":")
        if text == "key":
            return Source(SourceKind.KEY, "")
        if kind not in (SourceKind.HEADER, SourceKind.BODY) or not name.strip():
            self._nodes.refuse(node, shown, _SOURCE)
        name = name.strip()
        if kind == SourceKind.HEADER:
            # As servers hand them on.
            name = name.lower()
            if not name.isascii():
                self._nodes.refuse(node, shown, "a header name in ASCII")
        return Source(SourceKind(kind), name)

    def _rules(self, node: Node) -> tuple[Rule, ...]:
        shown = f"{self._shown}.rules"
        return tuple(self._rule(item, f"{shown}[{index}]") for index, item in self._nodes.list_of(node, shown))

    def _rule(self, node: Node, shown: str) -> Rule:
        found = {name: (key, value) for name, key, value in self._nodes.items(node, shown)}
        for name, (key, _) in found.items():
            if name not in _RULE_KEYS:
                hint = nearest(name, _RULE_KEYS)
                raise errors.BadSettings(f"{self._nodes.at(key)}: unknown key '{shown}.{name}'{hint}")
        for name in ("when", "deployment"):
            if name not in found:
                raise errors.BadSettings(
                    f"{self._nodes.at(node)}: {shown} has no {name}; a rule reads"
                    f" {{when: header:x-plan, equals: gold, deployment: {self._deployments[-1]}}}"
                )
        if "equals" in found and "in" in found:
            raise errors.BadSettings(f"{self._nodes.at(found['in'][0])}: {shown} has both equals and in; keep one")
        to = found["deployment"][1]
        name = self._deployment(self._nodes.text(to, f"{shown}.deployment"), to, f"{shown}.deployment")
        return Rule(self._source(found["when"][1], f"{shown}.when"), self._values(found, shown), name)

    def _values(self, found: Found, shown: str) -> tuple[str, ...]:
        if "equals" in found:
            return (self._nodes.text(found["equals"][1], f"{shown}.equals"),)
        if "in" not in found:
            return ()
        items = self._nodes.list_of(found["in"][1], f"{shown}.in")
        values = tuple(self._nodes.text(item, f"{shown}.in[{index}]") for index, item in items)
        if not values:
            # Without values a rule fits everything, the opposite of an empty list.
            self._nodes.refuse(found["in"][1], f"{shown}.in", "a list of at least one value")
        return values

    def _fallbacks(self, node: Node) -> tuple[Fallback, ...]:
        shown = f"{self._shown}.fallback"
        found = [self._fallback(item, f"{shown}[{index}]") for index, item in self._nodes.list_of(node, shown)]
        for index, fallback in enumerate(found[:-1]):
            if isinstance(fallback, ConstantFallback):
                raise errors.BadSettings(
                    f"{self._nodes.at(node)}: {shown}[{index + 1}] is never reached: a constant always answers;"
                    " put it last"
                )
        return tuple(found)

    def _fallback(self, node: Node, shown: str) -> Fallback:
        items = list(self._nodes.items(node, shown))
        if len(items) != 1 or items[0][0] not in ("deployment", "constant"):
            self._nodes.refuse(node, shown, "one of {deployment: NAME} and {constant: {OUTPUT: VALUE}}")
        ((kind, _, value),) = items
        if kind == "deployment":
            name = self._nodes.text(value, f"{shown}.deployment")
            return DeploymentFallback(self._deployment(name, value, f"{shown}.deployment"))
        outputs = {
            name: self._nodes.constant(output, f"{shown}.constant.{name}")
            for name, _, output in self._nodes.items(value, f"{shown}.constant")
        }
        if not outputs:
            self._nodes.refuse(value, f"{shown}.constant", "outputs with their values, e.g. {score: 0.5}")
        return ConstantFallback(outputs)

    def _shadows(self, node: Node, weights: Mapping[str, float]) -> tuple[Shadow, ...]:
        shown = f"{self._shown}.shadow"
        return tuple(
            self._shadow(name, key, value, f"{shown}.{name}", weights)
            for name, key, value in self._nodes.items(node, shown)
        )

    def _shadow(self, name: str, key: Node, node: Node, shown: str, weights: Mapping[str, float]) -> Shadow:
        self._deployment(name, key, shown)
        if weights.get(name, 0.0) > 0:
            # Its own requests would wait behind mirrored ones.
            raise errors.BadSettings(
                f"{self._nodes.at(key)}: {shown}: {name!r} takes traffic; a shadow takes none: leave it out of"
                f" {self._shown}.traffic and rules, or give it the weight 0"
            )
        try:
            percent = float(self._nodes.text(node, shown))
        except ValueError:
            percent = math.nan
        if not 0 < percent <= 100:
            self._nodes.refuse(node, shown, "a percentage above 0 and up to 100, e.g. 10")
        return Shadow(name, percent)

    def _overrides(self, node: Node) -> tuple[str, ...]:
        shown = f"{self._shown}.overrides"
        known = {name.lower(): name for name in OVERRIDES}
        allowed = []
        for index, item in self._nodes.list_of(node, shown):
            text = self._nodes.text(item, f"{shown}[{index}]")
            if text.lower() not in known:
                hint = nearest(text, OVERRIDES)
                raise errors.BadSettings(
                    f"{self._nodes.at(item)}: {shown}[{index}]: {text!r} is no header that may name a deployment{hint}"
                )
            allowed.append(known[text.lower()])
        return tuple(dict.fromkeys(allowed))
