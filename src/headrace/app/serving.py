"""h2corn as both ports use it, in one place, so that it can be replaced in a day."""

from __future__ import annotations

import warnings
from typing import Any

import h2corn
import h2corn._lib


def server(app: Any, config: h2corn.Config) -> h2corn.Server:
    """A server on an inherited socket. h2corn prints each address it listens on and has no setting for that; the
    supervisor prints them once, when models are ready, so its banner is silenced here, as is a warning of its own."""
    h2corn._lib.emit_banner = lambda *_: None
    # It leaves that behind when it is stopped while it starts.
    warnings.filterwarnings("ignore", r"coroutine 'PreparedApplication\.\w+' was never awaited", RuntimeWarning)
    return h2corn.Server(app, config)
