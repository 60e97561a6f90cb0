"""A worker's side of one gateway connection: blocking-free reads into exact buffers, bounded blocking sends."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Sequence

from headrace.replica import messages

_SEND_TIMEOUT_MS = 5000
_READ_SIZE = 256 * 1024
_SMALL = 64 * 1024


def _new_buffer(size: int) -> bytearray:
    return bytearray(size)


class _Unread:
    """A frame that is read and thrown away but for its beginning, which holds its head."""

    def __init__(self, length: int) -> None:
        self.length = self.left = length
        self.kept = bytearray()

    def add(self, data: bytes | memoryview) -> None:
        self.left -= len(data)
        kept, size = self.kept, messages.HEADER.size
        if len(kept) < size or len(kept) < size + messages.HEADER.unpack_from(kept)[4]:
            kept += data


class Connection:
    """Reads happen on one thread; sends may come from any thread and are whole frames."""

    def __init__(self, sock: socket.socket, max_frame: int = messages.MAX_FRAME) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.max_frame = max_frame
        """Frames that are longer are refused; small until the peer has shown its token."""
        self.fd = sock.fileno()
        self.role = ""
        self.id = 0
        self.closed = False
        self._lock = threading.Lock()
        self._pending = bytearray()
        self._large: bytearray | None = None
        self._filled = 0
        self._unread: _Unread | None = None

    def read_frames(self) -> list[messages.Frame] | None:
        """Every complete frame that can be read without waiting; None when the peer is gone. A large frame that there
        is no memory for comes without its payload (``Frame.unread``).

        Raises BadFrame when the bytes are not this protocol."""
        frames: list[messages.Frame] = []
        while True:
            if self._large is not None:
                state = self._fill_large(frames)
                if state is None:
                    return frames or None if self.closed else frames
                if not state:
                    return frames
                continue
            try:
                data = self.sock.recv(_READ_SIZE if self._unread is None else min(_READ_SIZE, self._unread.left))
            except BlockingIOError:
                return frames
            except OSError:
                data = b""
            if not data:
                self.closed = True
                return frames or None
            if self._unread is not None:
                self._skip(self._unread, data, frames)
                continue
            self._split(data, frames)
            if len(data) < _READ_SIZE and self._large is None:
                return frames

    def _fill_large(self, frames: list[messages.Frame]) -> bool | None:
        """Read into the exact buffer of a large frame: True when complete, False when more must come."""
        large = self._large
        assert large is not None
        try:
            got = self.sock.recv_into(memoryview(large)[self._filled :])
        except BlockingIOError:
            return False
        except OSError:
            got = 0
        if not got:
            self.closed = True
            return None
        self._filled += got
        if self._filled == len(large):
            frames.append(messages.parse(memoryview(large)))
            self._large = None
        return True

    def _begin_large(self, length: int, start: memoryview) -> None:
        """The first bytes of a large frame have come."""
        try:
            self._large = _new_buffer(length)
        except MemoryError:
            # The peer sends it all the same, and waits for an answer: its head tells which.
            self._unread = _Unread(length)
            self._unread.add(start)
            return
        self._large[: len(start)] = start
        self._filled = len(start)

    def _skip(self, unread: _Unread, data: bytes, frames: list[messages.Frame]) -> None:
        unread.add(data)
        if not unread.left:
            self._unread = None
            frames.append(messages.parse_head(memoryview(unread.kept), unread.length))

    def _split(self, data: bytes, frames: list[messages.Frame]) -> None:
        pending = self._pending
        if not pending and len(data) >= 4 and messages.frame_length(data) == len(data):
            # Nearly always: one read, one frame, no copy.
            frames.append(messages.parse(memoryview(data)))
            return
        if pending:
            pending += data
            buffer: bytes | bytearray = pending
        else:
            buffer = data
        at, end = 0, len(buffer)
        while end - at >= 4:
            length = messages.frame_length(buffer, at)
            if end - at < length:
                if length > self.max_frame:
                    raise messages.BadFrame(f"a frame of {length} bytes, at most {self.max_frame} are expected")
                if length > _SMALL:
                    self._begin_large(length, memoryview(buffer)[at:end])
                    at = end
                break
            frames.append(messages.parse(memoryview(bytes(buffer[at : at + length]))))
            at += length
        self._pending = bytearray(buffer[at:]) if at < end else bytearray()

    def send(self, parts: Sequence[bytes | memoryview]) -> bool:
        """Send one frame. Waits at most a few seconds for a peer that does not read, then gives the connection up.
        False when the peer is gone."""
        with self._lock:
            if self.closed:
                return False
            try:
                self._send_all(parts)
            except OSError:
                self.closed = True
                # Whoever reads this connection sees its end and drops it; so does the peer, whose frame is cut off.
                with contextlib.suppress(OSError):
                    self.sock.shutdown(socket.SHUT_RDWR)
                return False
            return True

    def _send_all(self, parts: Sequence[bytes | memoryview]) -> None:
        if sum(p.nbytes if isinstance(p, memoryview) else len(p) for p in parts) <= _SMALL:
            # One small copy is cheaper than a scatter list.
            parts = (b"".join(parts),)
        views = [memoryview(p).cast("B") for p in parts if len(p)]
        while views:
            try:
                sent = self.sock.sendmsg(views)
            except BlockingIOError:
                poller = select.poll()
                poller.register(self.fd, select.POLLOUT)
                if not poller.poll(_SEND_TIMEOUT_MS):
                    raise TimeoutError("the gateway does not read its answers") from None
                continue
            while views and sent >= len(views[0]):
                sent -= len(views[0])
                views.pop(0)
            if sent:
                views[0] = views[0][sent:]

    def close(self) -> None:
        self.closed = True
        self.sock.close()
