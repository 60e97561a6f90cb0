"""A worker's second thread: accepts gateways, reads their control frames and listens to the supervisor."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import msgspec

from headrace.replica import messages, streams
from headrace.replica.connection import Connection
from headrace.replica.messages import Frame
from headrace.replica.spec import OUT_OF_MEMORY_EXIT, WorkerSpec

_HELLO_TIMEOUT_S = 5.0
_HELLO_SIZE = 4096
"""Bytes of a frame from a peer that has not shown its token yet."""


def last_words(error: BaseException) -> int:
    """Tell what ends this worker; its exit code."""
    with contextlib.suppress(MemoryError):
        traceback.print_exception(error)
        sys.stderr.flush()
    return OUT_OF_MEMORY_EXIT if isinstance(error, MemoryError) else 1


class ControlThread(threading.Thread):
    """Accepts connections and reads control frames while the main thread computes."""

    def __init__(
        self,
        spec: WorkerSpec,
        adopt: Callable[[Connection | None], None],
        withdraw: Callable[[int, int, list[int]], None],
        pool: streams.StreamPool,
        supervisor: socket.socket | None,
    ) -> None:
        super().__init__(name="headrace-control", daemon=True)
        self._spec = spec
        self._adopt = adopt
        self._withdraw = withdraw
        self._streams = pool
        self._supervisor = supervisor
        self._epoll = select.epoll()
        self._fresh: dict[int, tuple[Connection, float]] = {}
        self._connections: dict[int, Connection] = {}
        self.stopping = threading.Event()
        self.loading = False
        """The main thread loads a model, which cannot be interrupted: asked to stop, the process ends."""
        self._listener = socket.socket(socket.AF_UNIX)
        Path(spec.socket_path).unlink(missing_ok=True)
        self._listener.bind(spec.socket_path)
        self._listener.listen(64)
        self._listener.setblocking(False)
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        if supervisor is not None:
            self._epoll.register(supervisor.fileno(), select.EPOLLIN)

    def run(self) -> None:
        try:
            self._serve()
        except BaseException as error:
            # Without this thread nobody would see the supervisor end, nor a gateway come: better a new worker.
            os._exit(last_words(error))

    def _serve(self) -> None:
        while True:
            for fd, _ in self._epoll.poll(_HELLO_TIMEOUT_S):
                if fd == self._listener.fileno():
                    self._take_connection()
                elif self._supervisor is not None and fd == self._supervisor.fileno():
                    self._hear_supervisor()
                else:
                    self._read(fd)
            self._drop_silent()

    def _take_connection(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:  # out of descriptors: the model may leak them; existing connections go on
            sys.stderr.write(f"cannot accept a gateway: {error}\n")
            time.sleep(0.05)
            return
        connection = Connection(sock, _HELLO_SIZE)
        self._fresh[connection.fd] = (connection, time.monotonic())
        self._epoll.register(connection.fd, select.EPOLLIN)

    def _hear_supervisor(self) -> None:
        """EOF: the supervisor died, and nobody would end this process later. A byte: stop after the batch."""
        assert self._supervisor is not None
        try:
            told = self._supervisor.recv(4096)
        except OSError:  # it died with reports unread
            told = b""
        if not told:
            if os.getpgrp() == os.getpid():
                # The group is this worker's own: what the model forked goes too.
                os.killpg(0, signal.SIGKILL)
            os._exit(0)
        self.stopping.set()
        if self.loading:
            os._exit(0)
        self._adopt(None)

    def _read(self, fd: int) -> None:
        fresh = self._fresh.get(fd)
        connection = fresh[0] if fresh is not None else self._connections[fd]
        try:
            frames = connection.read_frames()
            if frames is None:
                self._forget(fd, connection)
                return
            if fd in self._fresh and len(frames) > 1:
                # Once greeted, a data connection belongs to the main thread.
                raise messages.BadFrame("frames came before the WELCOME")
            for frame in frames:
                if fd in self._fresh:
                    self._greet(connection, frame)
                else:
                    self._obey(connection, frame)
        except (messages.BadFrame, msgspec.MsgspecError) as error:
            sys.stderr.write(f"closing a connection: {error}\n")
            self._forget(fd, connection)

    def _greet(self, connection: Connection, frame: Frame) -> None:
        if frame.kind != messages.HELLO:
            raise messages.BadFrame(f"expected HELLO, got kind {frame.kind}")
        hello = messages.decode_hello(frame.head)
        problem = ""
        if hello.protocol != messages.PROTOCOL:
            problem = f"this worker speaks protocol {messages.PROTOCOL}, not {hello.protocol}"
        elif hello.token != self._spec.token:
            problem = "wrong token"
        connection.send([messages.frame(messages.WELCOME, messages.Welcome(messages.PROTOCOL, os.getpid(), problem))])
        if problem:
            raise messages.BadFrame(problem)
        connection.max_frame = messages.MAX_FRAME
        connection.id = hello.connection
        connection.role = hello.role
        del self._fresh[connection.fd]
        if hello.role == "control":
            self._connections[connection.fd] = connection
        else:
            self._epoll.unregister(connection.fd)
            self._adopt(connection)

    def _obey(self, connection: Connection, frame: Frame) -> None:
        if frame.kind == messages.CANCEL:
            self._streams.cancel(connection.id, messages.decode_cancel(frame.head).batch)
        elif frame.kind == messages.CREDIT:
            credit = messages.decode_credit(frame.head)
            self._streams.grant(connection.id, credit.batch, credit.chunks)
        elif frame.kind == messages.WITHDRAW:
            withdrawn = messages.decode_withdraw(frame.head)
            self._withdraw(connection.id, withdrawn.batch, withdrawn.calls)
        elif frame.kind == messages.PING:
            connection.send([messages.frame(messages.PONG, messages.Empty())])
        else:
            raise messages.BadFrame(f"unexpected control frame of kind {frame.kind}")

    def _forget(self, fd: int, connection: Connection) -> None:
        self._epoll.unregister(fd)
        self._fresh.pop(fd, None)
        self._connections.pop(fd, None)
        connection.close()

    def _drop_silent(self) -> None:
        now = time.monotonic()
        for fd, (connection, since) in list(self._fresh.items()):
            if now - since > _HELLO_TIMEOUT_S:
                self._forget(fd, connection)
