"""What each kind of process is told by the supervisor, as files in the runtime directory."""

from __future__ import annotations

from pathlib import Path

import msgspec

from headrace.app.location import Location
from headrace.app.settings import ServeSettings
from headrace.gateway.settings import GatewaySettings
from headrace.telemetry.settings import LogSettings


class ControllerRole(msgspec.Struct, frozen=True):
    settings: ServeSettings
    directory: str
    supervisor_fd: int
    management_fd: int
    url: str
    management_url: str
    began: float
    """Monotonic seconds at which the command began."""
    state_directory: str | None = None
    """Of the state whose keys are asked for; None: it goes by no state, and there are no keys."""
    database: str | None = None

    @property
    def state(self) -> Location | None:
        if self.state_directory is None:
            return None
        return Location(Path(self.state_directory), self.database, "")


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
