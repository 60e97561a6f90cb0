"""Finds the golden requests that were registered with a version."""

from __future__ import annotations

from pathlib import Path

from headrace.app.registry.version_copies import local_copy
from headrace.app.state.location import Location
from headrace.app.state.owned_state import OwnedState
from headrace.app.state.registry_state import RegistryState, open_registry
from headrace.control.rollout_story import Rollout
from headrace.core import errors
from headrace.core.endpoint_records import entries


def golden_file(rollout: Rollout, location: Location, state: OwnedState | None) -> Path | None:
    """The file of the version that is rolled out, on this machine; None when it has none, or is no version of the
    registry. Blocks. Raises StoreFailed, Corrupted."""
    reference = str(entries(rollout.document)[rollout.deployment]["model"])
    if "@" not in reference or Path(reference).exists():
        return None
    if state is not None:
        return _of(reference, state.registry, location.directory)
    with open_registry(location) as opened:
        return _of(reference, opened, location.directory)


def _of(reference: str, state: RegistryState, directory: Path) -> Path | None:
    try:
        version = state.registry.resolve(reference)
    except (errors.UnknownModel, errors.BadSettings):
        return None  # a path with an @ in it, that is gone
    if version.draft.golden is None:
        return None
    return local_copy(state, version, directory, lambda what, done, total: None) / version.draft.golden
