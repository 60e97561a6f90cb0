"""A gateway process: composes the data plane, serves the inherited socket. ``python -m headrace.app.gateway ROLE``."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import signal
import socket
import sys
from pathlib import Path
from time import monotonic

import h2corn
import msgspec
import uvloop

from headrace.app import last_bytes, listening, roles, serving
from headrace.core import errors
from headrace.gateway.gauges import Gauges
from headrace.gateway.http import InferenceApp
from headrace.gateway.offload import Offload
from headrace.gateway.records import Observer, Records
from headrace.gateway.request_log import RequestLogs
from headrace.gateway.services import Services
from headrace.gateway.settings import GatewaySettings
from headrace.gateway.sync import RouteFollower
from headrace.pipeline.auth import Guard
from headrace.pipeline.deployment import maker
from headrace.pipeline.router import Router
from headrace.telemetry import logging
from headrace.telemetry.pages import SeriesPage
from headrace.telemetry.recording import RequestRecorder

_PR_SET_PDEATHSIG = 1
_TICK_S = 0.01
_FLUSH_EVERY = 20
_FIRST_TABLE_S = 2.0
"""Connections wait in the kernel for so long at most; then health, at least, is answered."""
_LAST_ANSWERS_S = 1.0
"""After the time to drain: what was cut gets this long to leave, before h2corn closes what is still open."""
_CUT = "the server is shutting down and its time to finish requests (--drain) is over; send it again elsewhere"
_GRPC_PATHS = ("/inference.GRPCInferenceService/*", "/grpc.health.v1.Health/*")


class Gateway:
    """Builds everything of one gateway, once; serves until SIGTERM."""

    def __init__(self, role: roles.GatewayRole) -> None:
        self._role = role
        metrics = roles.metrics_directory(role.directory)
        self._recorder = RequestRecorder(SeriesPage(metrics, f"gateway-{role.index}"))
        records = Records(self._recorder, self._observers())

        self._services = Services(
            settings=role.settings,
            router=Router(maker(asyncio.get_running_loop(), records)),
            records=records,
            offload=Offload(),
            metrics_directory=metrics,
            log=logging.Log("headrace.gateway"),
            guard=Guard(role.settings.sigv4, closed=True),
        )
        self._logs = RequestLogs(self._services.router, role.index, self._recorder, self._services.log)
        self._follower = RouteFollower(
            self._services, role.index, roles.control_socket(role.directory), followed=self._logs.follow
        )
        self._ticks = 0
        self._gauges = Gauges(self._recorder, self._services)

    def _observers(self) -> list[Observer]:
        if not self._role.settings.access_log:
            return []
        as_json = logging.wants_json(self._role.logs, sys.stderr)
        log = logging.AccessLog(sys.stderr.write, json=as_json, process=f"gateway-{self._role.index}")
        return [log.write]

    async def main(self) -> None:
        """Serve, drain, end."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        server = serving.server(InferenceApp(self._services), server_config(self._role.settings, self._role.socket_fd))
        following = asyncio.create_task(self._follower.run())
        # Connections that waited for this gateway while another was dead are not told that the server is starting.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._follower.first_table(), _FIRST_TABLE_S)
        served = asyncio.create_task(server.serve())
        loop.call_later(_TICK_S, self._tick)
        # Objects made at import live for ever: keep the collector from walking them in the middle of requests.
        gc.collect()
        gc.freeze()
        # What a request allocates is freed by reference counts; young collections would only find it in use.
        gc.set_threshold(50_000, 20, 50)
        stopping = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait({served, stopping, following}, return_when=asyncio.FIRST_COMPLETED)
        if following in done:
            # It never ends by itself: say why, and let the supervisor start a gateway that follows.
            following.result()
        held = await self._drain(server) if stopping in done else []
        await served
        await last_bytes.let_go(held)
        self._tell_cut()
        following.cancel()
        self._services.records.flush()
        self._logs.close()
        self._follower.close()
        self._services.offload.close()

    async def _drain(self, server: h2corn.Server) -> list[socket.socket]:
        """Not ready → wait for balancers to notice → no new connections → finish what was accepted.

        The supervisor ends the arrival of connections after the delay, for all gateways at once; every answer carries
        ``Connection: close`` meanwhile, so what is still open when h2corn closes idle connections is idle indeed. What
        is not finished in time is answered with an error."""
        self._services.draining = True
        self._recorder.set_draining(True)
        self._services.report_now()
        await asyncio.sleep(self._role.settings.drain_delay_s + listening.LINGER_S)
        self._services.closing.set()
        held = last_bytes.hold(self._services.last_clients)
        server.shutdown()
        asyncio.get_running_loop().call_later(self._role.settings.drain_s, self._cut)
        return held

    def _cut(self) -> None:
        error = self._services.records.cut = errors.NotReady(_CUT)
        self._services.router.shut(error)

    def _tell_cut(self) -> None:
        """For the supervisor, which reads it when this process has ended."""
        cut = self._services.records.cut_requests
        if cut:
            roles.cut_file(self._role.directory, self._role.index).write_text(str(cut))

    def _tick(self) -> None:
        """The one coarse timer: deadlines every tick, bulk work now and then."""
        asyncio.get_running_loop().call_later(_TICK_S, self._tick)
        now = monotonic()
        self._services.router.sweep(now)
        self._logs.tend(now)
        self._ticks += 1
        if self._ticks % _FLUSH_EVERY == 0:
            self._services.records.flush()
            self._gauges.set()


def server_config(settings: GatewaySettings, fd: int) -> h2corn.Config:
    """h2corn's limits are the outer wall. It has none for bodies: its own 413 is empty, while ours names the limit
    before a byte is read, and h2corn throws away what the client still sends."""
    grpc = tuple(
        h2corn.RequestPolicy(
            path=path,
            max_request_body_size=0,
            timeout_request_body_idle=0.0,
            h2_timeout_response_stall=0.0,
        )
        for path in _GRPC_PATHS
    )
    return h2corn.Config(
        bind=(f"fd://{fd}",),
        certfile=Path(settings.tls_cert) if settings.tls_cert else None,
        keyfile=Path(settings.tls_key) if settings.tls_key else None,
        grpc=True,
        access_log=False,
        server_header="off",
        lifespan="off",
        runtime_threads=1,
        limit_request_head_size=256 << 10,
        max_request_body_size=0,
        request_policies=grpc,
        timeout_request_body_idle=settings.body_idle_s,
        timeout_graceful_shutdown=settings.drain_s + _LAST_ANSWERS_S,
        max_concurrent_streams=1024,
    )


def end_with_parent() -> None:
    """Ask the kernel for SIGKILL when the supervisor dies, so that no gateway is left behind. The workers are gone
    then too: there is nothing that a drain could wait for."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


async def _main(role: roles.GatewayRole) -> None:
    await Gateway(role).main()


def main(arguments: list[str]) -> int:
    role = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=roles.GatewayRole)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    logging.configure(role.logs, f"gateway-{role.index}")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(role))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
