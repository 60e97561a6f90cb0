"""A slow, careful client beside the fast load: its answers are decoded and compared while the server is under load.

wrk and h2load count statuses only; a server that mixed up the rows of a batch would look fine to them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType


class ValueProbe:
    """``with ValueProbe(check):`` calls ``check(i)`` every ``interval`` seconds; leaving raises its first error.

    ``check`` raises when an answer is wrong. At 20 requests a second the probe costs the load nothing."""

    def __init__(self, check: Callable[[int], None], interval: float = 0.05) -> None:
        self._check = check
        self._interval = interval
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="value-probe", daemon=True)
        self.checked = 0
        self.error: Exception | None = None

    def __enter__(self) -> ValueProbe:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        if self.error is not None and error is None:
            raise self.error

    def _run(self) -> None:
        while not self._ended.wait(self._interval):
            try:
                self._check(self.checked)
            except Exception as error:  # kept for the thread that measures, which raises it
                self.error = error
                return
            self.checked += 1
