"""Request ids, and the W3C Trace Context header ``traceparent`` (https://www.w3.org/TR/trace-context/).

A request's id is the caller's own when it is fit to be logged and echoed, else the trace id of its ``traceparent``,
else a new one. Runs for every request: no regular expressions, no random numbers, no clock.
"""

from __future__ import annotations

import itertools
import os
import secrets

MAX_REQUEST_ID = 128
"""Characters of a caller's id; longer ones are replaced."""

_HEX = b"0123456789abcdef"
_DASH = ord("-")
_NO_TRACE, _NO_SPAN = b"0" * 32, b"0" * 16
_TRACEPARENT_BYTES = 55  # version 00: 2 + 1 + 32 + 1 + 16 + 1 + 2


class RequestIds:
    """Makes request ids: a prefix that is random per process, and a counter.

    ``prefix`` is for tests. A forked child draws a prefix of its own."""

    def __init__(self, prefix: str | None = None) -> None:
        self._prefix = prefix or ""
        self._next = itertools.count(1).__next__
        if prefix is None:
            self._draw()
            os.register_at_fork(after_in_child=self._draw)

    def request_id(self, header: bytes | None, traceparent: bytes | None = None) -> str:
        """The id of a request with these header values (``X-Request-Id``, ``traceparent``): never raises.

        An id of the caller's is kept when it is 1 to 128 printable ASCII characters."""
        if header is not None and header.isascii() and 0 < len(header) <= MAX_REQUEST_ID:
            given = header.decode("ascii")
            if given.isprintable() and not given.isspace():
                return given
        if traceparent is not None and _is_valid(traceparent):
            return traceparent[3:35].decode("ascii")
        return f"{self._prefix}{self._next():012x}"

    def _draw(self) -> None:
        # Written like a UUID, since that is what dashboards and tickets expect an id to look like.
        noise = secrets.token_hex(10)
        self._prefix = f"{noise[:8]}-{noise[8:12]}-{noise[12:16]}-{noise[16:]}-"


def _is_valid(header: bytes) -> bool:
    fixed = header[:_TRACEPARENT_BYTES]
    if len(fixed) < _TRACEPARENT_BYTES or fixed.translate(None, _HEX) != b"---":
        return False
    if fixed[2] != _DASH or fixed[35] != _DASH or fixed[52] != _DASH:
        return False
    if fixed[3:35] == _NO_TRACE or fixed[36:52] == _NO_SPAN or fixed[:2] == b"ff":
        return False
    # Versions above 00 may carry more after another dash; 00 may not.
    return len(header) == _TRACEPARENT_BYTES or (fixed[:2] != b"00" and header[_TRACEPARENT_BYTES] == _DASH)
