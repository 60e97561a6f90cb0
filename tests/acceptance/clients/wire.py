"""HTTP by hand: exact bytes out, and what comes back, with a time limit on everything."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any, NamedTuple, Self

PATIENCE_S = 20.0


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        text = self.json["error"]
        assert isinstance(text, str)
        return text


class Wire:
    """One connection."""

    def __init__(self, port: int, patience: float = PATIENCE_S) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=patience)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def post(self, path: str, body: bytes, *headers: str) -> None:
        lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers, "", ""]
        self.send("\r\n".join(lines).encode("latin-1") + body)

    def answer(self) -> Answer | None:
        """The next response; None when the server closed the connection instead."""
        head = self._until(b"\r\n\r\n")
        if head is None:
            return None
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        size = int(headers.get("content-length", "0"))
        while len(self._buffer) < size and self._fill():
            pass
        body, self._buffer = self._buffer[:size], self._buffer[size:]
        return Answer(int(lines[0].split()[1]), headers, body)

    def must_answer(self) -> Answer:
        found = self.answer()
        assert found is not None, "the server closed the connection without an answer"
        return found

    def rest(self) -> bytes:
        """Everything until the server closes the connection."""
        while self._fill():
            pass
        return self._buffer

    def reset(self) -> None:
        """Leave without a goodbye (RST)."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def _until(self, mark: bytes) -> bytes | None:
        while mark not in self._buffer:
            if not self._fill():
                return None
        found, _, self._buffer = self._buffer.partition(mark)
        return found

    def _fill(self) -> bool:
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionError:
            return False
        self._buffer += data
        return bool(data)


def ask(port: int, path: str, body: bytes, *headers: str) -> Answer:
    """One POST on a connection of its own."""
    with Wire(port) as wire:
        wire.post(path, body, *headers)
        return wire.must_answer()
