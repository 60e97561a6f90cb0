"""Length-prefixed gRPC messages: one flag byte, four bytes of length (big-endian), the message. Sans-IO."""

from __future__ import annotations

from headrace.core import errors
from headrace.protocols import compression

PREFIX = 5

ENCODINGS = ("identity", *compression.ENCODINGS)
"""What grpc-accept-encoding announces."""


def frame(message: bytes, compressed: bool = False) -> bytes:
    """A message with its prefix; ``compressed`` says that the message already is."""
    return (b"\x01" if compressed else b"\x00") + len(message).to_bytes(4, "big") + message


class FrameReader:
    """Takes body chunks, gives whole messages, decompressed. Holds at most one message of ``limit`` bytes.

    ``encoding`` is the call's grpc-encoding, empty when absent. After an error the reader must not be used again."""

    def __init__(self, limit: int, encoding: str = "") -> None:
        if encoding and encoding not in ENCODINGS:
            raise errors.Unsupported(f"grpc-encoding {encoding!r} is not supported; use {', '.join(ENCODINGS)}")
        self._limit = limit
        self._encoding = "" if encoding == "identity" else encoding
        self._buffer = bytearray()
        self._at = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Messages completed by ``data``.

        Raises PayloadTooLarge as soon as a prefix announces more than the limit (or inflation passes it),
        InvalidInput for bytes that are no frames."""
        if not self._buffer:
            whole = self._whole(data)
            if whole is not None:
                return whole
        self._buffer += data
        messages: list[bytes] = []
        while (message := self._next()) is not None:
            messages.append(message)
        # Consumed bytes are dropped once per chunk: dropping them per message is quadratic for many small ones.
        del self._buffer[: self._at]
        self._at = 0
        return messages

    def _whole(self, data: bytes) -> list[bytes] | None:
        """The usual case without a copy into the buffer: the chunk is exactly one message."""
        if len(data) < PREFIX or int.from_bytes(data[1:PREFIX], "big") + PREFIX != len(data):
            return None
        self._check(data[0], len(data) - PREFIX)
        return [self._open(data[0], data[PREFIX:])]

    def _next(self) -> bytes | None:
        at, buffer = self._at, self._buffer
        if len(buffer) - at < PREFIX:
            return None
        flag = buffer[at]
        size = int.from_bytes(buffer[at + 1 : at + PREFIX], "big")
        self._check(flag, size)
        end = at + PREFIX + size
        if len(buffer) < end:
            return None
        self._at = end
        return self._open(flag, bytes(memoryview(buffer)[at + PREFIX : end]))

    def _check(self, flag: int, size: int) -> None:
        if flag > 1:
            raise errors.InvalidInput(f"a gRPC message begins with flag {flag}; expected 0 or 1")
        if flag and not self._encoding:
            raise errors.InvalidInput("a compressed gRPC message came without a grpc-encoding header")
        if size > self._limit:
            raise errors.PayloadTooLarge(
                f"a gRPC message of {size} bytes is larger than the limit of {self._limit} bytes (--max-body);"
                " send fewer rows per request"
            )

    def _open(self, flag: int, message: bytes) -> bytes:
        return compression.decompress(self._encoding, message, self._limit) if flag else message

    def finish(self) -> None:
        """The body has ended. Raises InvalidInput when a message is cut off."""
        if self._buffer:
            raise errors.InvalidInput(f"the body ends inside a gRPC message, after {len(self._buffer)} of its bytes")


def read_one(body: bytes, limit: int, encoding: str = "") -> bytes:
    """The message of a complete unary body. Raises as ``FrameReader``, and InvalidInput for none or several."""
    reader = FrameReader(limit, encoding)
    messages = reader.feed(body)
    reader.finish()
    if len(messages) != 1:
        raise errors.InvalidInput(f"expected one gRPC message, got {len(messages)}")
    return messages[0]
