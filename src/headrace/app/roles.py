"""What a gateway is told by the supervisor, as a file in the runtime directory, and where all processes find things
there. What the controller is told: ``app/controller/role.py``; its settings are none of a gateway's imports."""

from __future__ import annotations

from pathlib import Path

import msgspec

from headrace.gateway.settings import GatewaySettings
from headrace.telemetry.settings import LogSettings


class GatewayRole(msgspec.Struct, frozen=True):
    settings: GatewaySettings
    logs: LogSettings
    index: int
    directory: str
    socket_fd: int


def control_socket(directory: str) -> Path:
    """Where the controller listens for gateways."""
    return Path(directory) / "control.sock"


def metrics_directory(directory: str) -> Path:
    return Path(directory) / "metrics"


def cut_file(directory: str, index: int) -> Path:
    """Where a gateway leaves how many requests it cut when its time to drain was over; absent: none."""
    return Path(directory) / f"gateway-{index}.cut"
