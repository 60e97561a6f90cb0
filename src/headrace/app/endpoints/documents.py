"""Endpoints as documents: what would stand in ``endpoints:`` of ``headrace.yaml`` to get just this endpoint.

The way back is the reader of that file (``app/settings/file.py``), so that a document means the same everywhere: in the
state, in ``headrace plan`` and in ``headrace export-config``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import yaml

from headrace.app.settings.keys import KEYS, Form, Key, Section
from headrace.app.settings.nodes import EXPONENT
from headrace.app.settings.rollout import plan_document
from headrace.app.settings.serve_settings import DeploymentSettings, EndpointSettings
from headrace.app.settings.slo import slo_document
from headrace.core.endpoint_records import Document
from headrace.core.fallbacks import ConstantFallback, Fallback
from headrace.core.traffic import MAIN, Rule, TrafficPolicy

_NESTED = {Section.RESOURCES: "resources", Section.BATCHING: "batching", Section.ADMISSION: "admission"}
"""Sections that are a struct of their own within DeploymentSettings."""


class DeploymentEntry(msgspec.Struct, frozen=True):
    """A deployment as a document has it. ``model``: an absolute path, ``path.py:Class``, or ``fraud@7``."""

    model: str
    settings: DeploymentSettings
    version: str | None = None
    """None: the model brings its own."""


def document_of(deployments: Mapping[str, DeploymentEntry], settings: EndpointSettings) -> Document:
    """The document of an endpoint; what has its default is left out. ``deployments`` is by name."""
    policy = settings.policy
    plain = deployments.keys() == {MAIN} and msgspec.structs.replace(policy, fallback=()) == TrafficPolicy()
    if plain and deployments[MAIN].version is None:
        document = {**_deployment(deployments[MAIN], versioned=False), **_fallbacks(policy.fallback)}
    else:
        document = {
            "deployments": {name: _deployment(entry, versioned=True) for name, entry in deployments.items()},
            **policy_document(policy),
        }
    if rollout := plan_document(settings.rollout):
        document["rollout"] = rollout
    if slo := slo_document(settings.slo):
        document["slo"] = slo
    return document


def policy_document(policy: TrafficPolicy) -> Document:
    """``traffic`` and what else decides about it."""
    document: Document = {"traffic": {name: _number(weight) for name, weight in policy.weights.items()}}
    if policy.sticky is not None:
        document["sticky"] = str(policy.sticky)
    if policy.rules:
        document["rules"] = [_rule(rule) for rule in policy.rules]
    if policy.overrides:
        document["overrides"] = list(policy.overrides)
    document |= _fallbacks(policy.fallback)
    if policy.shadows:
        document["shadow"] = {shadow.deployment: _number(shadow.percent) for shadow in policy.shadows}
    return document


def as_yaml(documents: Mapping[str, Document], trust: Sequence[str] = ()) -> str:
    """The text of a ``headrace.yaml`` with these endpoints, whose models these digests vouch for."""
    file = {"trust": list(trust)} if trust else {}
    whole = {**file, "endpoints": dict(documents)}
    return str(yaml.dump(whole, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110))


class _Dumper(yaml.SafeDumper):
    """Puts texts in quotes that the reader would take for numbers, beside those of YAML 1.1."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+.0123456789"))


def _deployment(entry: DeploymentEntry, *, versioned: bool) -> Document:
    document: Document = {"model": entry.model}
    if versioned and entry.version is not None:
        document["version"] = entry.version
    for key in KEYS:
        if key.per_deployment:
            value = _value_of(key, entry.settings)
            if value != key.default and (key.kind.form is Form.SCALAR or value):
                _put(document, key.path, key.kind.written(value))
    return document


def _value_of(key: Key, settings: DeploymentSettings) -> Any:
    nested = _NESTED.get(key.section)
    return getattr(settings if nested is None else getattr(settings, nested), key.field)


def _put(document: Document, path: Sequence[str], value: Any) -> None:
    *sections, last = path
    for section in sections:
        document = document.setdefault(section, {})
    document[last] = value


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value


def _rule(rule: Rule) -> Document:
    chosen: Document = {"when": str(rule.source)}
    if len(rule.values) == 1:
        chosen["equals"] = rule.values[0]
    elif rule.values:
        chosen["in"] = list(rule.values)
    return {**chosen, "deployment": rule.deployment}


def _fallbacks(fallback: Sequence[Fallback]) -> Document:
    if not fallback:
        return {}
    return {
        "fallback": [
            {"constant": f.outputs} if isinstance(f, ConstantFallback) else {"deployment": f.deployment}
            for f in fallback
        ]
    }
