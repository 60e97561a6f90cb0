"""The supervisor: the parent of every process on this machine. ``headrace serve`` is this.

It binds the sockets and hands them down, starts controller, gateways and workers, restarts what dies, kills what hangs
or outgrows its memory, and ends everything in order. It holds no request state and imports no framework.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from headrace.app import events, listening, orders, roles
from headrace.app.controller import role as controller_role
from headrace.app.controller.role import ControllerRole
from headrace.app.roles import GatewayRole
from headrace.app.settings.serve_settings import ServeSettings
from headrace.app.worker_process import WorkerProcess
from headrace.backends.local import ChildProcess
from headrace.core import errors
from headrace.core.envelope import Splitter, wrap

_WATCH_EVERY_S = 0.25
_LOGS_EVERY = 4
_RESTART_PAUSE_S = (0.0, 0.1, 0.5, 2.0, 5.0)
_CHILD_EXIT_S = 5.0
_SOCKET_PATH_LIMIT = 107
"""Bytes of the path of a Unix socket (``sun_path``, without the zero at its end)."""
_SOCKET_NAME = len("/w12345678.sock")
_CONTROLLER_READS_S = 5.0

_encode = msgspec.msgpack.Encoder().encode
_decode_order = msgspec.msgpack.Decoder(orders.Order).decode


def _fits_sockets(directory: Path) -> bool:
    return len(os.fsencode(directory)) + _SOCKET_NAME <= _SOCKET_PATH_LIMIT


def run(settings: ServeSettings, on_event: Callable[[events.Event], None]) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code. Raises BadSettings when it cannot start."""
    return asyncio.run(Supervisor(settings, on_event).main())


class Supervisor:
    """One per ``headrace serve``."""

    def __init__(self, settings: ServeSettings, on_event: Callable[[events.Event], None]) -> None:
        self._settings = settings
        self._on_event = on_event
        self._began = time.monotonic()
        self._workers: dict[str, WorkerProcess] = {}
        self._gateways: dict[int, ChildProcess] = {}
        self._controller: ChildProcess | None = None
        self._controller_link: socket.socket | None = None
        self._splitter = Splitter()
        self._deaths: dict[str, list[float]] = {}
        self._announced = False
        self._stopping = asyncio.Event()
        self._signals = 0

    # --- life ---

    async def main(self) -> int:
        """Start everything, wait for a signal, end everything."""
        gateway = self._settings.gateway
        self._directory = self._make_directory()
        try:
            if gateway.tls_cert is not None and gateway.tls_key is not None:
                listening.check_certificate(gateway.tls_cert, gateway.tls_key)
            self._inference = listening.bind(gateway.host, gateway.port, "--port")
            self._management = listening.bind(
                self._settings.management_host, self._settings.management_port, "--management-port"
            )
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._on_signal)
            self._start_controller()
            for index in range(gateway.gateways):
                self._start_gateway(index)
            await self._watch_until_stopped()
            await self._stop_all()
        finally:
            self._kill_all()
            if self._settings.runtime_dir is None:
                shutil.rmtree(self._directory, ignore_errors=True)
        code = 0 if self._signals <= 1 else 1
        self._on_event(events.Stopped(code))
        return code

    def _make_directory(self) -> Path:
        if self._settings.runtime_dir is not None:
            directory = Path(self._settings.runtime_dir).absolute()
            if not _fits_sockets(directory):
                raise errors.BadSettings(
                    f"runtime_dir {str(directory)!r} is too long: the paths of Unix sockets in it have at most"
                    f" {_SOCKET_PATH_LIMIT} bytes; choose one of at most {_SOCKET_PATH_LIMIT - _SOCKET_NAME} bytes"
                )
            directory.mkdir(parents=True, exist_ok=True)
        else:
            parent = Path(tempfile.gettempdir())
            if not _fits_sockets(parent / "headrace-12345678"):
                parent = Path("/tmp")
            directory = Path(tempfile.mkdtemp(prefix="headrace-", dir=parent))
        directory.chmod(0o700)
        (directory / "metrics").mkdir(exist_ok=True)
        return directory

    def _on_signal(self) -> None:
        """First signal: drain. A second one: now, and what was accepted is lost."""
        self._signals += 1
        self._stopping.set()
        if self._signals > 1:
            self._kill_all()

    async def _watch_until_stopped(self) -> None:
        for turn in itertools.count():
            if self._stopping.is_set():
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _WATCH_EVERY_S)
            now = time.monotonic_ns()
            for worker in self._workers.values():
                worker.watch(now)
            if turn % _LOGS_EVERY == 0:
                self._tell_logs()

    def _tell_logs(self) -> None:
        for worker in self._workers.values():
            log = worker.fresh_log()
            if log is not None:
                self._tell(log)

    async def _stop_all(self) -> None:
        """Gateways drain first; workers and controller serve them until then."""
        settings = self._settings.gateway
        self._on_event(events.Draining(settings.drain_s))
        gateways = list(self._gateways.values())
        for gateway in gateways:
            gateway.signal(signal.SIGTERM)
        await self._wait_for([g.ended for g in gateways], settings.drain_delay_s)
        listening.refuse_new_connections(self._inference)
        self._inference.close()
        budget = listening.LINGER_S + settings.drain_s + _CHILD_EXIT_S
        await self._wait_for([g.ended for g in gateways], budget)
        self._tell_cut()
        for worker in self._workers.values():
            worker.ask_to_stop()
        if self._controller is not None:
            self._controller.signal(signal.SIGTERM)
        ends = [w.process.ended for w in self._workers.values()]
        if self._controller is not None:
            ends.append(self._controller.ended)
        await self._wait_for(ends, _CHILD_EXIT_S)

    def _tell_cut(self) -> None:
        cut = 0
        for index in self._gateways:
            with contextlib.suppress(FileNotFoundError):
                cut += int(roles.cut_file(str(self._directory), index).read_text())
        if cut:
            self._on_event(events.RequestsCut(cut))

    @staticmethod
    async def _wait_for(futures: list[asyncio.Future[int]], timeout: float) -> None:  # noqa: ASYNC109 - a budget
        if futures:
            await asyncio.wait(futures, timeout=timeout)

    def _kill_all(self) -> None:
        children = [*self._gateways.values(), *(w.process for w in self._workers.values())]
        if self._controller is not None:
            children.append(self._controller)
        for child in children:
            child.kill("the supervisor is ending")

    # --- controller and gateways ---

    def _python(self, module: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", module, *arguments]

    def _start_controller(self) -> None:
        mine, theirs = socket.socketpair()
        mine.setblocking(False)
        settings = self._settings
        role = ControllerRole(
            settings=settings,
            directory=str(self._directory),
            supervisor_fd=theirs.fileno(),
            management_fd=self._management.fileno(),
            url=listening.url(self._inference, settings.gateway.host, settings.gateway.tls_cert is not None),
            management_url=listening.url(self._management, settings.management_host, tls=False),
            began=self._began,
        )
        path = self._directory / "controller.json"
        path.write_bytes(controller_role.encoded(role))
        self._controller = ChildProcess(
            "controller",
            self._python("headrace.app.controller", str(path)),
            environment=os.environ,
            pass_fds=(theirs.fileno(), self._management.fileno()),
            on_line=self._forward,
            on_exit=self._controller_exited,
        )
        theirs.close()
        self._controller_link = mine
        self._splitter = Splitter()
        asyncio.get_running_loop().add_reader(mine.fileno(), self._hear_controller)
        for worker in self._workers.values():
            self._tell(worker.snapshot())
        self._tell(orders.Adopted(self._announced, settings.gateway.gateways))

    def _start_gateway(self, index: int) -> None:
        role = GatewayRole(
            settings=self._settings.gateway,
            logs=self._settings.logs,
            index=index,
            directory=str(self._directory),
            socket_fd=self._inference.fileno(),
        )
        path = self._directory / f"gateway-{index}.json"
        path.write_bytes(msgspec.json.encode(role))
        # A runtime directory that is kept may have that of an earlier server.
        roles.cut_file(role.directory, index).unlink(missing_ok=True)
        self._gateways[index] = ChildProcess(
            f"gateway-{index}",
            self._python("headrace.app.gateway", str(path)),
            environment=os.environ,
            pass_fds=(self._inference.fileno(),),
            on_line=self._forward,
            on_exit=self._gateway_exited,
        )

    def _controller_exited(self, child: ChildProcess) -> None:
        if self._controller_link is not None:
            asyncio.get_running_loop().remove_reader(self._controller_link.fileno())
            self._controller_link.close()
            self._controller_link = None
        self._restart(child, self._start_controller)

    def _gateway_exited(self, child: ChildProcess) -> None:
        index = int(child.name.rpartition("-")[2])
        self._restart(child, lambda: self._start_gateway(index))

    def _restart(self, child: ChildProcess, start: Callable[[], None]) -> None:
        if self._stopping.is_set():
            return
        now = time.monotonic()
        recent = [t for t in self._deaths.get(child.name, []) if now - t < 60.0]
        self._deaths[child.name] = [*recent, now]
        pause = _RESTART_PAUSE_S[min(len(recent), len(_RESTART_PAUSE_S) - 1)]
        self._forward(child.name, f"{child.name} ended with code {child.returncode}; restarting in {pause} s")
        asyncio.get_running_loop().call_later(pause, self._start_unless_stopping, start)

    def _start_unless_stopping(self, start: Callable[[], None]) -> None:
        if not self._stopping.is_set():
            start()

    # --- what the controller says ---

    def _hear_controller(self) -> None:
        link = self._controller_link
        if link is None:
            return
        try:
            data = link.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(link.fileno())
            return
        for message in self._splitter.feed(data):
            self._obey(_decode_order(message))

    def _obey(self, order: orders.Order) -> None:
        if isinstance(order, orders.StartWorker):
            self._start_worker(order)
        elif isinstance(order, orders.StopWorker):
            worker = self._workers.get(order.worker)
            if worker is not None:
                worker.stop(order.grace_s)
        else:
            if isinstance(order.event, events.Serving):
                self._announced = True
            self._on_event(order.event)

    def _start_worker(self, order: orders.StartWorker) -> None:
        if self._stopping.is_set():
            return
        try:
            self._workers[order.worker] = WorkerProcess(
                order, self._directory, on_line=self._forward, on_report=self._tell, on_exit=self._worker_exited
            )
        except OSError as error:
            # The interpreter of its environment may have gone a moment ago.
            self._tell(orders.WorkerExited(order.worker, "exit", f"the process cannot be started: {error}", 0, ""))

    def _worker_exited(self, worker: WorkerProcess) -> None:
        self._workers.pop(worker.order.worker, None)
        # While everything ends, an exit is no news: the controller would announce a restart that will not come.
        if not self._stopping.is_set():
            self._tell(worker.exit_report())

    def _tell(self, report: orders.Report) -> None:
        link = self._controller_link
        if link is None:
            return
        message = wrap(_encode(report))
        try:
            # A controller that does not read for this long hangs; what it missed its successor hears in snapshots.
            link.settimeout(_CONTROLLER_READS_S)
            link.sendall(message)
            link.setblocking(False)
        except OSError:
            if self._controller is not None:
                self._controller.kill("it does not read what the supervisor tells it")

    def _forward(self, name: str, line: str) -> None:
        """Children's output goes to our stderr, workers' lines with their name."""
        prefix = "" if name.startswith(("gateway-", "controller")) else f"[{name}] "
        # Whoever read it may have gone (`headrace serve 2>&1 | head`); the processes must still be looked after.
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{prefix}{line}\n")
            sys.stderr.flush()
