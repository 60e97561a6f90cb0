"""What each kind of process is told by the supervisor, as files in the runtime directory."""

from __future__ import annotations

from pathlib import Path

import msgspec

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


def encoded(role: ControllerRole) -> bytes:
    return msgspec.json.encode(role, enc_hook=str)  # paths


def decoded(content: bytes) -> ControllerRole:
    return msgspec.json.decode(content, type=ControllerRole, dec_hook=lambda kind, text: kind(text))


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
