"""Grammar of names: endpoints, versions, tensors. The one place that says what a name may look like."""

from __future__ import annotations

import re

from headrace.core import errors

_ENDPOINT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.\-]*)*\Z")
_VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}\Z")

RESERVED_ENDPOINTS = frozenset({"chat", "completions", "embeddings", "responses", "stats"})
"""Words that a protocol uses at the place of a model name (Databricks routes; OIP ``/v2/models/stats``)."""

RESERVED_SEGMENTS = frozenset(
    {"versions", "infer", "ready", "config", "stats", "generate", "generate_stream", "infer_stream", "labels"}
)
"""Path segments that follow a model name in some protocol; a name may not contain them after a slash."""


def check_endpoint(name: str) -> str:
    """Return ``name`` when it is a legal endpoint name; raise BadSettings that says what is wrong."""
    if len(name) > 255 or not _ENDPOINT.match(name):
        raise errors.BadSettings(
            f"endpoint name {name!r} is not valid: use letters, digits, '_', '-', '.', and '/' between parts"
            " (at most 255 characters)"
        )
    if name in RESERVED_ENDPOINTS:
        raise errors.BadSettings(f"endpoint name {name!r} is reserved; choose another, e.g. {name}-model")
    if any(part in RESERVED_SEGMENTS for part in name.split("/")[1:]):
        raise errors.BadSettings(f"endpoint name {name!r} contains a reserved path segment")
    return name


def check_version(version: str) -> str:
    """Return ``version`` when it is a legal version; raise BadSettings otherwise."""
    if not _VERSION.match(version):
        raise errors.BadSettings(f"version {version!r} is not valid: use letters, digits, '_', '-', '.'")
    return version


def check_deployment(name: str) -> str:
    """Return ``name`` when it is a legal name of a deployment; raise BadSettings otherwise."""
    if not _VERSION.match(name):
        raise errors.BadSettings(f"deployment name {name!r} is not valid: use letters, digits, '_', '-', '.'")
    return name


def endpoint_from_path(stem: str) -> str:
    """A legal endpoint name made from a file or folder name: ``My model`` becomes ``My-model``."""
    name = re.sub(r"[^A-Za-z0-9_.\-]+", "-", stem).strip("-.") or "model"
    return f"{name}-model" if name in RESERVED_ENDPOINTS else name
