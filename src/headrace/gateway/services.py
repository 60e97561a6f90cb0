"""What every handler of a gateway shares; built once by ``app/gateway.py``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from headrace.gateway.offload import Offload
from headrace.gateway.records import Records
from headrace.gateway.settings import GatewaySettings
from headrace.pipeline.auth import Guard
from headrace.pipeline.router import Router
from headrace.telemetry.logging import Log
from headrace.telemetry.tracing import RequestIds


@dataclass(slots=True)
class Services:
    """``draining``: report not-ready, ask clients to leave, serve on."""

    settings: GatewaySettings
    router: Router
    records: Records
    offload: Offload
    metrics_directory: Path
    log: Log
    guard: Guard = field(default_factory=Guard)
    ids: RequestIds = field(default_factory=RequestIds)
    draining: bool = False
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the last requests are being finished: a call that only waits for its caller's next one is ended."""
    last_clients: set[tuple[str, int]] = field(default_factory=set)
    """HTTP/2 clients (host, port) that still asked while it was draining."""
    held_bytes: int = 0
    """Body bytes being read or held now."""
    report_now: Callable[[], None] = lambda: None
    """Tell the controller at once how things are."""
    open_streams: dict[tuple[str, str], int] = field(default_factory=dict)
