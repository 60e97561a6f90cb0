"""Grammar of names: endpoints, versions, tensors. The one place that says what a name may look like."""

from __future__ import annotations

import re

from headrace.core import errors

ENDPOINT_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9_.\-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.\-]*)*"
VERSION_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}"
"""Of versions, and of deployments."""

MAX_ENDPOINT = 255
"""Characters in the name of an endpoint."""

_ENDPOINT = re.compile(rf"{ENDPOINT_PATTERN}\Z")
_VERSION = re.compile(rf"{VERSION_PATTERN}\Z")

RESERVED_ENDPOINTS = frozenset({"chat", "completions", "embeddings", "responses", "stats"})
"""Words that a protocol uses at the place of a model name (Databricks routes; OIP ``/v2/models/stats``)."""

RESERVED_SEGMENTS = frozenset(
    {"versions", "infer", "ready", "config", "stats", "generate", "generate_stream", "infer_stream", "labels"}
)
"""Path segments that follow a model name in some protocol; a name may not contain them after a slash."""

RESERVED_MODEL_SEGMENTS = frozenset({"aliases", "history"})
"""Path segments that follow a model name in the management API, beside ``versions``."""


def check_endpoint(name: str) -> str:
    """Return ``name`` when it is a legal endpoint name; raise BadSettings that says what is wrong."""
    if len(name) > MAX_ENDPOINT or not _ENDPOINT.match(name):
        raise errors.BadSettings(
            f"endpoint name {name!r} is not valid: use ASCII letters, digits, '_', '-', '.', and '/' between parts"
            f" (at most {MAX_ENDPOINT} characters)"
        )
    if name in RESERVED_ENDPOINTS:
        raise errors.BadSettings(
            f"endpoint name {name!r} is reserved for a path of a protocol; choose another, e.g. {name}-model"
        )
    if any(part in RESERVED_SEGMENTS for part in name.split("/")[1:]):
        raise errors.BadSettings(f"endpoint name {name!r} contains a reserved path segment")
    return name


def check_version(version: str) -> str:
    """Return ``version`` when it is a legal version; raise BadSettings otherwise."""
    if not _VERSION.match(version):
        raise errors.BadSettings(f"version {version!r} is not valid: use letters, digits, '_', '-', '.'")
    return version


def version_order(version: str) -> tuple[int, int, str]:
    """Sorts versions as people do: words by letters, then numbers by value."""
    return (1, int(version), "") if version.isdigit() else (0, 0, version)


def check_deployment(name: str) -> str:
    """Return ``name`` when it is a legal name of a deployment; raise BadSettings otherwise."""
    if not _VERSION.match(name):
        raise errors.BadSettings(f"deployment name {name!r} is not valid: use letters, digits, '_', '-', '.'")
    return name


def check_model(name: str) -> str:
    """Return ``name`` when it is a legal name of a model in the registry: the grammar of endpoints, without the words
    that follow a model's name in a path of the management API."""
    try:
        check_endpoint(name)
    except errors.BadSettings as error:
        raise errors.BadSettings(error.message.replace("endpoint name", "model name")) from None
    if any(part in RESERVED_MODEL_SEGMENTS for part in name.split("/")[1:]):
        raise errors.BadSettings(f"model name {name!r} contains a reserved path segment")
    return name


def check_alias(alias: str) -> str:
    """Return ``alias`` when it is a legal alias: like a version, but no number, which would be taken for one."""
    if not _VERSION.match(alias) or alias.isdigit():
        raise errors.BadSettings(
            f"alias {alias!r} is not valid: use letters, digits, '_', '-', '.', and at least one that is no digit"
        )
    return alias


def split_reference(text: str) -> tuple[str, str | None]:
    """``fraud@7`` and ``fraud@champion`` as model and what is chosen of it; ``fraud`` chooses nothing."""
    model, separator, choice = text.partition("@")
    check_model(model)
    if separator and not choice:
        raise errors.BadSettings(f"{text!r} names no version: write {model}@7 or {model}@champion")
    return model, (check_version(choice) if separator else None)


def endpoint_from_path(stem: str) -> str:
    """A legal endpoint name made from a file or folder name: ``My model`` becomes ``My-model``."""
    name = re.sub(r"[^A-Za-z0-9_.\-]+", "-", stem).strip("-.") or "model"
    return f"{name}-model" if name in RESERVED_ENDPOINTS else name
