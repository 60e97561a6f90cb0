"""``headrace models gc``: removes what nothing refers to any more."""

from __future__ import annotations

import time

from headrace.app.registry import version_copies
from headrace.app.state.registry_state import RegistryState
from headrace.control.registry import Registry
from headrace.store.artifacts import Collected


def collect(state: RegistryState, registry: Registry, grace_s: float, *, dry_run: bool) -> Collected:
    """Remove files that no version refers to, uploads that nobody went on with, and copies from which deleted versions
    were served: what is older than ``grace_s`` seconds. ``registry`` is one that may change."""
    oldest = time.time() - grace_s
    parts = (
        state.artifacts.collect(registry.blobs(), oldest, dry_run=dry_run),
        state.uploads.collect(oldest, dry_run=dry_run),
        version_copies.collect(state, registry, oldest, dry_run=dry_run),
    )
    return Collected(sum(part.blobs for part in parts), sum(part.size for part in parts))
