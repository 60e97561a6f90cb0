"""``python -m headrace.app.controller ROLE``."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from headrace.app.controller import role
from headrace.app.controller.controller import Controller
from headrace.telemetry import logging


def main(arguments: list[str]) -> int:
    told = role.decoded(Path(arguments[0]).read_bytes())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.configure(told.settings.logs, "controller")
    asyncio.run(Controller(told).main())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
