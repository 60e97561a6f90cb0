"""Replica identity and the life of a replica: an enum and one transition table."""

from __future__ import annotations

from enum import StrEnum

from headrace.core import errors


class ReplicaState(StrEnum):
    STARTING = "starting"
    """The worker process is being started."""
    LOADING = "loading"
    """The runtime loads the artifact."""
    WARMING = "warming"
    """Warm-up inferences run."""
    READY = "ready"
    DRAINING = "draining"
    """No new work; accepted work is finished."""
    FAILED = "failed"
    """Died or could not load; a reason is kept, a restart may be scheduled."""
    STOPPED = "stopped"


_MOVES: dict[ReplicaState, frozenset[ReplicaState]] = {
    ReplicaState.STARTING: frozenset(
        {ReplicaState.LOADING, ReplicaState.READY, ReplicaState.FAILED, ReplicaState.STOPPED, ReplicaState.DRAINING}
    ),
    ReplicaState.LOADING: frozenset(
        {ReplicaState.WARMING, ReplicaState.READY, ReplicaState.FAILED, ReplicaState.STOPPED, ReplicaState.DRAINING}
    ),
    ReplicaState.WARMING: frozenset(
        {ReplicaState.READY, ReplicaState.FAILED, ReplicaState.STOPPED, ReplicaState.DRAINING}
    ),
    ReplicaState.READY: frozenset({ReplicaState.DRAINING, ReplicaState.FAILED, ReplicaState.STOPPED}),
    ReplicaState.DRAINING: frozenset({ReplicaState.STOPPED, ReplicaState.FAILED}),
    ReplicaState.FAILED: frozenset({ReplicaState.STARTING, ReplicaState.STOPPED}),
    ReplicaState.STOPPED: frozenset(),
}


def move(current: ReplicaState, to: ReplicaState) -> ReplicaState:
    """Return ``to`` when the move is legal; raise Bug otherwise. Staying is legal."""
    if to is current or to in _MOVES[current]:
        return to
    raise errors.Bug(f"a replica cannot move from {current} to {to}")
