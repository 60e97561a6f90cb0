"""What the controller is told by the supervisor, as a file in the runtime directory."""

from __future__ import annotations

import msgspec

from headrace.app.settings.serve_settings import ServeSettings


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
