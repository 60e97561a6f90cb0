"""What a worker process is told at its start."""

from __future__ import annotations

import msgspec

from headrace.core.models import Artifact
from headrace.core.padding import PaddingRules
from headrace.runtimes.runtime import LoadOptions

OUT_OF_MEMORY_EXIT = 112
"""Exit code of a worker that an allocation of its own, outside the model, has failed in."""


class ReplicaSpec(msgspec.Struct, frozen=True):
    """One replica to load into this worker."""

    id: str
    artifact: Artifact
    options: LoadOptions
    warmup: bool = True
    padding: PaddingRules = PaddingRules()
    """As set for the deployment; wins over what the model's class declares."""


class WorkerSpec(msgspec.Struct, frozen=True):
    """Everything a worker is told. ``supervisor_fd`` is an inherited stream socket; -1: none (tests)."""

    replicas: tuple[ReplicaSpec, ...]
    socket_path: str
    status_path: str
    token: str
    supervisor_fd: int = -1
    memory: int | None = None
    yields: bool = False
    """It computes only when nobody else wants a processor."""
