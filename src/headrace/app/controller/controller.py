"""The controller: builds its parts, and runs the loop that makes the world match what was asked for.

It keeps what it must know in memory and in a small file; after a crash a new one reads that file, hears from the
supervisor which workers live, and goes on. The data plane serves on meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import socket
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec

from headrace.app import orders, roles
from headrace.app.controller.announcing import Announcements
from headrace.app.controller.golden import GoldenAsker
from headrace.app.controller.management import serve_management
from headrace.app.controller.memory import Memory
from headrace.app.controller.named_models import NamedModels
from headrace.app.controller.role import ControllerRole
from headrace.app.controller.routing import Routing
from headrace.app.controller.supervisor_link import SupervisorLink
from headrace.app.controller.switching import Switches, move_when_ready
from headrace.app.controller.workers import Workers
from headrace.app.endpoints.manager import EndpointManager
from headrace.app.endpoints.operations import EndpointOperations
from headrace.app.experiments.book import ExperimentBook
from headrace.app.experiments.experiments import Experiments
from headrace.app.keys import exposure, kept_keys
from headrace.app.keys.access import StateKeys
from headrace.app.keys.following import KeyFollower
from headrace.app.registry.access import KeptRegistry
from headrace.app.rollouts.rollouts import Rollouts
from headrace.app.state.keeper import StateKeeper
from headrace.app.state.location import Location, locate_for_server
from headrace.control.observed import Desired, Observed
from headrace.core.keys import NO_KEYS, KeySet
from headrace.core.load import LoadReport
from headrace.core.routes import RouteTable
from headrace.pipeline.auth import Guard
from headrace.telemetry import logging
from headrace.telemetry.pages import SeriesPage
from headrace.telemetry.recording import ControlRecorder

_LOOK_EVERY_S = 0.5


class Controller:
    """One per machine. Everything runs on one event loop."""

    def __init__(self, role: ControllerRole) -> None:
        self._role = role
        self._settings = role.settings
        self._directory = Path(role.directory)
        self._log = logging.Log("headrace.controller")
        self._guard = Guard(closed=True)
        self._keys_known = asyncio.Event()
        self._changed = asyncio.Event()
        self._adopted = asyncio.Event()
        self._build()
        self._memory.restore()

    def _build(self) -> None:
        """The parts, and who may call whom."""
        role, settings = self._role, self._settings
        desired, observed, changed = Desired(), Observed(), self._changed
        switches: Switches = {}
        self._desired, self._observed, self._switches = desired, observed, switches
        recorder = ControlRecorder(SeriesPage(roles.metrics_directory(role.directory), "controller"))
        location = settings.location or self._other_location()
        self.supervisor = SupervisorLink()
        self.routing = Routing(
            desired, observed, changed, recorder, gateways=settings.gateway.gateways, on_load=self._on_load
        )
        self.announcements = Announcements(role, self.routing, self.supervisor.send)
        say = self.announcements.say
        self.workers = Workers(
            role, desired, observed, self.routing, recorder, changed, send=self.supervisor.send, say=say
        )
        endpoints = self._endpoints = EndpointManager(
            self._directory,
            desired,
            observed,
            switches,
            say=say,
            changed=changed,
            experiments=location.directory / "experiments" if settings.owns_state else None,
        )
        self.named = NamedModels(role, desired, observed, endpoints, changed, say=say)
        book = ExperimentBook(
            endpoints,
            owns_state=settings.owns_state,
            retention_s=settings.experiment_retention_s,
            most_requests=settings.experiment_requests,
        )
        self.experiments = Experiments(
            endpoints, book, followed=lambda fits: fits(self.routing.table) and self.routing.followed()
        )
        self.operations = EndpointOperations(endpoints, location, self.routing.visible)
        self.rollouts = Rollouts(
            endpoints,
            location,
            desired,
            observed,
            loads=self.routing.loads,
            reachable=self.routing.reachable,
            golden=GoldenAsker(endpoints, location, desired, observed).ask,
            say=say,
            changed=changed,
            visible=self.routing.visible,
        )
        self._keeper = StateKeeper(endpoints, self.rollouts, location, recorder, role.management_url)
        self._memory = Memory(role, desired, observed, switches, endpoints, self.rollouts, self.named)

    def _other_location(self) -> Location:
        """Of a server that goes by no state: where the registry is when somebody applies ``fraud@champion``."""
        nowhere = self._directory / "state"
        return locate_for_server(None, None, None, os.environ) or Location(nowhere, None, str(nowhere / "artifacts"))

    # --- life ---

    async def main(self) -> None:
        """Run until SIGTERM or until the supervisor is gone."""
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        self.supervisor.attach(socket.socket(fileno=self._role.supervisor_fd))
        self.supervisor.listen(self._hear_all, stop.set)
        await self.routing.gateways.listen(roles.control_socket(self._role.directory))
        tasks = [asyncio.create_task(work) for work in self._work()]
        waiter = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([waiter, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {waiter}:
            # A task that ends before SIGTERM has failed: say why, and let the supervisor start us again.
            task.result()
        await self.experiments.close()
        await asyncio.to_thread(self._keeper.close)
        if self.supervisor.gone and self._settings.runtime_dir is None:
            # Nobody else removes its folder.
            shutil.rmtree(self._directory, ignore_errors=True)

    def _work(self) -> list[Coroutine[Any, Any, None]]:
        """What goes on for as long as the controller runs."""
        state = self._settings.location
        follower = None if state is None else KeyFollower(state, self._take_keys, self._log)
        work = [
            self._look_after_models(),
            self._reconcile_forever(),
            self._endpoints.keep_settling(),
            self._run_rollouts(),
            self.experiments.run(),
            serve_management(
                self,
                self.operations,
                self.rollouts,
                self._registry(),
                self._role,
                self._guard,
                experiments=self.experiments,
                key_access=None if state is None or follower is None else StateKeys(state, follower.look),
            ),
        ]
        kept = kept_keys.load(self._directory, self._role.began)
        if kept is not None:
            self._take_keys(kept)
        if follower is None:
            self._take_keys(NO_KEYS)
        else:
            work.append(follower.run())
        return work

    def _registry(self) -> KeptRegistry | None:
        """What the management API offers of the registry: that of the state, when this server owns it."""
        if not self._settings.owns_state:
            return None
        return KeptRegistry(lambda: None if self._endpoints.state is None else self._endpoints.state.registry)

    async def _run_rollouts(self) -> None:
        await self._adopted.wait()
        await self.rollouts.run()

    async def _look_after_models(self) -> None:
        """Take over the state, inspect what was named, then watch it if asked to."""
        await self._adopted.wait()
        if self._settings.owns_state:
            await self._keeper.begin(patiently=self.named.inspected)
        if not self.named.inspected:
            await self.named.inspect()
        frozen = False
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            if self.announcements.serving and not frozen:
                # Modules and what is served live on: the collector would walk them again and again while long lists
                # are answered, and the loop stands still for tens of milliseconds each time. Collecting first would be
                # one such pause more, just when the server has said that it serves.
                frozen = True
                gc.freeze()
            await self._keeper.renew()
            await self.named.look()

    async def _reconcile_forever(self) -> None:
        """Level-triggered: at every change, and now and then for what only time changes."""
        await self._adopted.wait()
        # A gateway serves by its first table: it must know before whom to let in.
        await self._keys_known.wait()
        while True:
            self._changed.clear()
            self.reconcile(time.monotonic())
            try:
                await asyncio.wait_for(self._changed.wait(), 0.5)
            except TimeoutError:
                continue

    def reconcile(self, now: float) -> None:
        """One pass: move traffic that can move, order what is missing, tell gateways and people. ``now``: monotonic
        seconds."""
        if not self.named.inspected:
            # An empty table would tell gateways, and they their callers, that nothing is served here.
            return
        moved = move_when_ready(
            self._desired,
            self._observed,
            self._switches,
            reachable=self.routing.reachable,
            ended=self._endpoints.switched,
        )
        self.announcements.loaded(moved)
        self.workers.act(now)
        self.routing.publish()
        self._memory.save()
        settled = all(map(self.workers.settled, self._desired.deployments.values()))
        self.announcements.announce(settled=settled, asks=self._guard.asks)

    # --- what it hears ---

    def _take_keys(self, keys: KeySet) -> None:
        """Go by these keys, at the management port and at every gateway."""
        wanted = keys.required or exposure.exposed(self._settings) is not None
        keys = msgspec.structs.replace(keys, required=wanted and not self._settings.gateway.no_auth)
        self._guard.follow(keys)
        self.routing.gateways.publish_keys(keys)
        self._keys_known.set()
        kept_keys.save(self._directory, self._role.began, keys)

    def _hear_all(self, reports: list[orders.Report]) -> None:
        for report in reports:
            self.hear(report)
        self._changed.set()

    def hear(self, report: orders.Report) -> None:
        """The supervisor tells something."""
        match report:
            case orders.ReplicaReport():
                self.workers.reported(report)
            case orders.WorkerExited():
                self.workers.exited(report)
            case orders.LiveWorker():
                self.workers.adopt(report)
            case orders.WorkerLog():
                self.workers.wrote(report)
            case orders.Adopted():
                self.announcements.serving = report.announced
                self._adopted.set()

    def _on_load(self, report: LoadReport) -> None:
        self.announcements.explain(report)
        if not self._desired.awake.issuperset(report.asked_for):
            self._desired.awake.update(report.asked_for)
            self._changed.set()
        if self.announcements.pending or self.workers.leaving or self._switches:
            self._changed.set()

    # --- what the management API reads (api/ports.py) ---

    def routes(self) -> RouteTable:
        """The current route table."""
        return self.routing.table

    def loads(self) -> list[LoadReport]:
        """The last load report of every connected gateway."""
        return self.routing.loads()

    def events(self, limit: int) -> list[dict[str, object]]:
        """The last events, newest first."""
        return self.announcements.latest(limit)

    def log_tail(self, replica: str) -> str:
        """Last output of a replica's worker. Raises UnknownModel for a replica that never was."""
        return self.workers.log_tail(replica)

    def ready(self) -> bool:
        """Everything that was asked for is ready."""
        return (
            self.named.inspected
            and not self._desired.failures
            and all(
                self.workers.settled(s) and not self._observed.restarts_of(s.id).load_failure
                for s in self._desired.deployments.values()
            )
        )
