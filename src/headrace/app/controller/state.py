"""What a controller must know to go on where its predecessor was killed, as one small file in the runtime directory.

Without it a new controller would inspect the artifacts again, which may have changed or gone since, and take working
replicas out of service. It is there as well when the state cannot be reached.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from headrace.app.watching import Watched
from headrace.control.rollout_story import Rollout
from headrace.core.endpoint_records import EndpointRecord
from headrace.core.endpoints import DeploymentSpec
from headrace.core.traffic import EndpointTraffic


class Switch(msgspec.Struct, frozen=True):
    """Traffic of a deployment moves to ``new`` when it is ready; ``old`` then leaves (None: it stays addressable)."""

    endpoint: str
    deployment: str
    """Its name under the endpoint."""
    new: str
    old: str | None


class LoadFailure(msgspec.Struct, frozen=True):
    """An artifact that cannot be loaded, and what its worker wrote."""

    reason: str
    log_tail: str


class ControllerState(msgspec.Struct, frozen=True):
    """``began`` names the run of ``headrace serve`` that this belongs to: another run starts from its arguments.
    ``failures`` are (endpoint, version, reason)."""

    began: float
    deployments: tuple[DeploymentSpec, ...]
    traffic: dict[str, EndpointTraffic]
    failures: tuple[tuple[str, str, str], ...]
    switches: tuple[Switch, ...]
    load_failures: dict[str, LoadFailure]
    watched: Watched | None
    records: tuple[EndpointRecord, ...] = ()
    rollouts: tuple[Rollout, ...] = ()


def save(path: Path, state: ControllerState) -> None:
    """Replace the file as a whole, so that a death in the middle leaves the old one."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(msgspec.json.encode(state))
    partial.replace(path)


def load(path: Path, began: float) -> ControllerState | None:
    """The state of this run, None when it has not left any yet."""
    try:
        state = msgspec.json.decode(path.read_bytes(), type=ControllerState)
    except FileNotFoundError:
        return None
    return state if state.began == began else None
