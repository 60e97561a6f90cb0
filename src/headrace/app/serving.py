"""h2corn as both ports use it, in one place, so that it can be replaced in a day."""

from __future__ import annotations

from typing import Any

import h2corn
import h2corn._lib


def server(app: Any, config: h2corn.Config) -> h2corn.Server:
    """A server on an inherited socket. h2corn prints each address it listens on and has no setting for that; the
    supervisor prints them once, when models are ready, so its banner is silenced here."""
    h2corn._lib.emit_banner = lambda *_: None
    return h2corn.Server(app, config)
