"""Server-sent events: bytes in any pieces → the payload of each event. Sans-IO.

https://html.spec.whatwg.org/multipage/server-sent-events.html. Lines end at LF or CRLF only: splitting text at other
Unicode line ends would cut JSON that holds them.
"""

from __future__ import annotations

from collections.abc import Iterator


class EventParser:
    """Feed it the body as it comes; it gives the data of every completed event."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> Iterator[bytes]:
        self._buffer += piece
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = bytearray(rest)
        for line in lines:
            line = line.removesuffix(b"\r")
            if not line:
                yield from self._event()
            elif line.startswith(b"data:"):
                self._data.append(bytes(line[5:].removeprefix(b" ")))
            # comments (":"), "event:", "id:" and "retry:" carry nothing for us

    def finish(self) -> Iterator[bytes]:
        """The last event of a body that ends without the blank line."""
        yield from self.feed(b"\n\n")

    def _event(self) -> Iterator[bytes]:
        if self._data:
            yield b"\n".join(self._data)
            self._data = []
