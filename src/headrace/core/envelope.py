"""Length-prefixed messages on a stream: ``size u32 little-endian | bytes``. Sans-IO."""

from __future__ import annotations

from headrace.core import errors

MAX_MESSAGE = 256 << 20


def wrap(message: bytes) -> bytes:
    """A message ready to be written."""
    return len(message).to_bytes(4, "little") + message


class Splitter:
    """Bytes as they arrive → complete messages."""

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> list[bytes]:
        """Every message that is complete now. Raises Bug when the peer sends something else."""
        buffer = self._buffer
        buffer += data
        messages: list[bytes] = []
        at = 0
        while len(buffer) - at >= 4:
            size = int.from_bytes(buffer[at : at + 4], "little")
            if size > self._limit:
                raise errors.Bug(f"a message of {size} bytes on a control connection")
            if len(buffer) - at - 4 < size:
                break
            messages.append(bytes(buffer[at + 4 : at + 4 + size]))
            at += 4 + size
        del buffer[:at]
        return messages
