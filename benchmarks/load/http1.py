"""Reads HTTP/1.1 responses from a byte stream. Sans-IO, and only as much HTTP as a load generator meets."""

from __future__ import annotations

import re

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)


class NotHttp(ValueError):
    """The bytes are not an HTTP/1.1 response with a length."""


class ResponseReader:
    """Feed bytes; ``feed`` returns True when one response is whole, then ``status``, ``body`` and ``close`` hold it.

    ``close`` says that the server will close the connection. ``started`` says that any byte has come."""

    __slots__ = ("_body_start", "_buffer", "_chunked", "_length", "body", "close", "status")

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.close = False
        self.reset()

    def reset(self) -> None:
        self._buffer = bytearray()
        self._body_start = 0
        self._length = 0
        self._chunked = False

    @property
    def started(self) -> bool:
        return bool(self._buffer)

    def feed(self, data: bytes) -> bool:
        buffer = self._buffer
        buffer += data
        if not self._body_start and not self._read_head():
            return False
        if self._chunked:
            return self._read_chunks()
        end = self._body_start + self._length
        if len(buffer) < end:
            return False
        if len(buffer) > end:
            raise NotHttp(f"{len(buffer) - end} bytes after the response")
        self.body = bytes(buffer[self._body_start :])
        return True

    def _read_head(self) -> bool:
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(buffer) > 12 and not buffer.startswith(b"HTTP/1.1 "):
                raise NotHttp(f"starts with {bytes(buffer[:20])!r}")
            return False
        head = bytes(buffer[:end])
        if not head.startswith(b"HTTP/1.1 ") or not head[9:12].isdigit():
            raise NotHttp(f"starts with {head[:20]!r}")
        self.status = int(head[9:12])
        self.close = _CLOSE.search(head) is not None
        self._body_start = end + 4
        if length := _LENGTH.search(head):
            self._length = int(length[1])
        elif _CHUNKED.search(head):
            self._chunked = True
        elif self.status not in (204, 304):
            raise NotHttp("neither Content-Length nor chunked")
        return True

    def _read_chunks(self) -> bool:
        buffer, position = self._buffer, self._body_start
        parts: list[bytes] = []
        while (line_end := buffer.find(b"\r\n", position)) >= 0:
            try:
                size = int(bytes(buffer[position:line_end]).split(b";")[0], 16)
            except ValueError:
                raise NotHttp(f"chunk size {bytes(buffer[position:line_end])!r}") from None
            start = line_end + 2
            if len(buffer) < start + size + 2:
                return False
            if not size:
                self.body = b"".join(parts)
                return True
            parts.append(bytes(buffer[start : start + size]))
            position = start + size + 2
        return False
