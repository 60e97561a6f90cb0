"""The controller's end of its socket to the supervisor: orders out, reports in."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import msgspec

from headrace.app import orders
from headrace.core.envelope import Splitter, wrap
from headrace.telemetry import logging

_encode = msgspec.msgpack.Encoder().encode
_decode_report = msgspec.msgpack.Decoder(orders.Report).decode


class SupervisorLink:
    """On the controller's event loop."""

    def __init__(self) -> None:
        self.gone = False
        """The supervisor has been killed."""
        self._socket: socket.socket | None = None
        self._splitter = Splitter()
        self._log = logging.Log("headrace.controller")

    def attach(self, link: socket.socket) -> None:
        """The socket is there."""
        self._socket = link
        link.setblocking(False)

    def listen(self, hear: Callable[[list[orders.Report]], None], ended: Callable[[], None]) -> None:
        """Call ``hear`` with reports as they come, and ``ended`` when the supervisor is gone."""
        loop, link = asyncio.get_running_loop(), self._attached()

        def readable() -> None:
            try:
                data = link.recv(1 << 20)
            except BlockingIOError:
                return
            if data:
                hear([_decode_report(message) for message in self._splitter.feed(data)])
                return
            self.gone = True
            loop.remove_reader(link.fileno())
            ended()

        loop.add_reader(link.fileno(), readable)

    def send(self, order: orders.Order) -> None:
        """Waits for room: an order must not get lost."""
        link = self._attached()
        link.setblocking(True)
        try:
            link.sendall(wrap(_encode(order)))
        except OSError as error:
            self._log.warning("the supervisor is gone", action="supervisor_gone", reason=str(error))
        finally:
            link.setblocking(False)

    def _attached(self) -> socket.socket:
        assert self._socket is not None
        return self._socket
