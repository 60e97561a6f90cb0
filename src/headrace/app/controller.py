"""The controller process: makes the world match what was asked for. ``python -m headrace.app.controller ROLE``.

It keeps its state in memory and in a small file (a store comes with the registry); after a crash a new one reads that
file, hears from the supervisor which workers live, and goes on. The data plane serves on meanwhile.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gc
import os
import secrets
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import msgspec

from headrace.app import (
    controller_state,
    events,
    exposure,
    golden_requests,
    kept_keys,
    orders,
    resources,
    roles,
    source_copies,
    sources,
    watching,
)
from headrace.app.applying import records_of
from headrace.app.controller_state import ControllerState, LoadFailure, Switch
from headrace.app.endpoint_manager import EndpointManager
from headrace.app.endpoint_operations import EndpointOperations
from headrace.app.experiment_book import ExperimentBook
from headrace.app.experiments import Experiments
from headrace.app.gateway_link import GatewayServer
from headrace.app.golden_files import golden_file
from headrace.app.key_following import follow_keys
from headrace.app.management import serve_management
from headrace.app.registry_access import KeptRegistry
from headrace.app.rollouts import Rollouts
from headrace.app.state_keeper import StateKeeper
from headrace.app.state_location import Location, locate_for_server
from headrace.app.switching import move_when_ready
from headrace.app.version_environments import VersionEnvironments
from headrace.app.watching import Change, Watched, Watcher
from headrace.backends.environments.folder import environment_of
from headrace.control import plan as planning
from headrace.control import publish
from headrace.control.analysis.verdict import Finding
from headrace.control.golden import GoldenReport
from headrace.control.observed import Desired, Observed, ObservedReplica, ObservedWorker
from headrace.control.rollout_story import Rollout
from headrace.core import errors
from headrace.core.endpoint_records import MANUAL, Owner, OwnerKind
from headrace.core.endpoints import DeploymentSpec, deployment_id, endpoint_and_version
from headrace.core.envelope import Splitter, wrap
from headrace.core.keys import NO_KEYS, KeySet
from headrace.core.load import LoadReport
from headrace.core.replicas import ReplicaState
from headrace.core.routes import DeploymentRoute, ReplicaRoute, RouteTable
from headrace.core.traffic import EndpointTraffic, TrafficPolicy
from headrace.pipeline.auth import Guard
from headrace.replica.spec import ReplicaSpec
from headrace.runtimes.runtime import LoadOptions
from headrace.telemetry import logging
from headrace.telemetry.metrics import RestartReason
from headrace.telemetry.pages import SeriesPage
from headrace.telemetry.recording import ControlRecorder

_WATCH_EVERY_S = 0.5
_STOP_GRACE_S = 5.0
_DRAIN_LIMIT_S = 60.0
_EVENTS_KEPT = 1000
_WORKERS_REMEMBERED = 256
"""Workers whose last lines can be read, dead ones included."""
_LOAD_ATTEMPTS = 5
_VISIBLE_S, _VISIBLE_LOOK_S = 2.0, 0.005
_GOLDEN_LOOKS, _GOLDEN_LOOK_S = 300, 0.1
"""For a replica in the place of one that died of a golden request."""

_encode = msgspec.msgpack.Encoder().encode
_decode_report = msgspec.msgpack.Decoder(orders.Report).decode


class Controller:
    """One per machine. Everything runs on one event loop."""

    def __init__(self, role: roles.ControllerRole) -> None:
        self._role = role
        self._settings = role.settings
        self._log = logging.Log("headrace.controller")
        self._desired = Desired()
        self._observed = Observed()
        self._orders: dict[str, orders.StartWorker] = {}
        self._gateways = GatewayServer(self._on_load)
        self._table = RouteTable(version=0, epoch=time.time_ns() // 1_000_000, endpoints=())
        self._guard = Guard(closed=True)
        self._keys_known = asyncio.Event()
        self._changed = asyncio.Event()
        self._adopted = asyncio.Event()
        self._inspected = False
        self._announced = False
        self._orphaned = False
        self._watcher: Watcher | None = None
        self._watched: Watched | None = None
        """What the watcher had seen when its last change was deployed."""
        self._published: frozenset[str] = frozenset()
        """Replicas that the current table shows as ready."""
        self._switches: dict[tuple[str, str], Switch] = {}
        """By endpoint and name of the deployment."""
        self._waiting: dict[str, tuple[str, ...]] = {}
        """Deployments whose share others take, as it was told last."""
        self._switched: list[events.VersionLoaded] = []
        """Not told yet."""
        self._explained: dict[str, str] = {}
        self._drained_at: dict[str, int] = {}
        self._tails: dict[str, str] = {}
        self._history: collections.deque[dict[str, object]] = collections.deque(maxlen=_EVENTS_KEPT)
        page = SeriesPage(roles.metrics_directory(role.directory), "controller")
        self._recorder = ControlRecorder(page)
        self._state_path = Path(role.directory) / "controller.state"
        self._saved: ControllerState | None = None
        location = self._location = self._settings.location or self._other_location()
        self._endpoints = EndpointManager(
            Path(role.directory),
            self._desired,
            self._observed,
            self._switches,
            say=self._say,
            changed=self._changed,
            experiments=location.directory / "experiments" if self._settings.owns_state else None,
        )
        book = ExperimentBook(
            self._endpoints,
            owns_state=self._settings.owns_state,
            retention_s=self._settings.experiment_retention_s,
            most_requests=self._settings.experiment_requests,
        )
        self.experiments = Experiments(
            self._endpoints,
            book,
            followed=lambda fits: fits(self._table) and self._followed(self._table.version),
        )
        self.operations = EndpointOperations(self._endpoints, location, self.visible)
        self.rollouts = Rollouts(
            self._endpoints,
            location,
            self._desired,
            self._observed,
            loads=self.loads,
            reachable=self._reachable,
            golden=self._ask_golden,
            say=self._say,
            changed=self._changed,
            visible=self.visible,
        )
        self._keeper = StateKeeper(self._endpoints, self.rollouts, location, self._recorder, role.management_url)
        # Without a home they last as long as this run.
        environments = Path(self._settings.environments_folder or Path(role.directory) / "environments")
        self._environments = VersionEnvironments(environments, self._observed, self, self._say)
        self._restore()

    # --- life ---

    async def main(self) -> None:
        """Run until SIGTERM or until the supervisor is gone."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        self._link = socket.socket(fileno=self._role.supervisor_fd)
        self._link.setblocking(False)
        loop.add_reader(self._link.fileno(), self._hear_supervisor, Splitter(), stop)
        await self._gateways.listen(roles.control_socket(self._role.directory))
        tasks = [
            asyncio.create_task(self._work()),
            asyncio.create_task(self._reconcile_forever()),
            asyncio.create_task(self._endpoints.keep_settling()),
            asyncio.create_task(self._run_rollouts()),
            asyncio.create_task(self.experiments.run()),
            asyncio.create_task(
                serve_management(
                    self,
                    self.operations,
                    self.rollouts,
                    self._registry(),
                    self._role,
                    self._guard,
                    experiments=self.experiments,
                )
            ),
        ]
        kept = kept_keys.load(Path(self._role.directory), self._role.began)
        if kept is not None:
            self._take_keys(kept)
        if self._settings.location is None:
            self._take_keys(NO_KEYS)
        else:
            tasks.append(asyncio.create_task(follow_keys(self._settings.location, self._take_keys, self._log)))
        waiter = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([waiter, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {waiter}:
            # A task that ends before SIGTERM has failed: say why, and let the supervisor start us again.
            task.result()
        await self.experiments.close()
        await asyncio.to_thread(self._keeper.close)
        if self._orphaned and self._settings.runtime_dir is None:
            # The supervisor was killed; nobody else removes its folder.
            shutil.rmtree(self._role.directory, ignore_errors=True)

    def _other_location(self) -> Location:
        """Of a server that goes by no state: where the registry is when somebody applies ``fraud@champion``."""
        nowhere = Path(self._role.directory) / "state"
        return locate_for_server(None, None, None, os.environ) or Location(nowhere, None, str(nowhere / "artifacts"))

    async def _run_rollouts(self) -> None:
        await self._adopted.wait()
        await self.rollouts.run()

    async def _ask_golden(self, rollout: Rollout, spec: DeploymentSpec) -> GoldenReport:
        """What a new version answers to the golden requests that were registered with it."""
        path = await asyncio.to_thread(golden_file, rollout, self._location, self._endpoints.state)
        if path is None:
            return GoldenReport(Finding.PASS, "it has none")
        route = publish.deployment(spec, self._desired, self._observed)
        replica = _ready(route, "")
        if replica is None or route.signature is None:
            return GoldenReport(Finding.INCONCLUSIVE, "no replica of it is ready")
        terms = golden_requests.Terms(
            route.slots,
            spec.batching.max_batch_size,
            idempotent=route.idempotent,
            timeout_s=spec.timeout_s,
            # The report must come before the rollout asks a person.
            total_s=0.9 * rollout.spec.max_golden_s,
        )

        async def another(dead: str) -> ReplicaRoute | None:
            for _ in range(_GOLDEN_LOOKS):
                found = _ready(publish.deployment(spec, self._desired, self._observed), dead)
                if found is not None:
                    return found
                await asyncio.sleep(_GOLDEN_LOOK_S)
            return None

        return await golden_requests.ask(replica, route.signature, path, terms, another)

    def _registry(self) -> KeptRegistry | None:
        """What the management API offers of the registry: that of the state, when this server owns it."""
        if not self._settings.owns_state:
            return None
        return KeptRegistry(lambda: None if self._endpoints.state is None else self._endpoints.state.registry)

    async def _work(self) -> None:
        """Inspect what was named, then watch it if asked to."""
        await self._adopted.wait()
        if self._settings.owns_state:
            await self._keeper.begin(patiently=self._inspected)
        if not self._inspected:
            await self._inspect_all()
        frozen = False
        while True:
            await asyncio.sleep(_WATCH_EVERY_S)
            if self._announced and not frozen:
                # Modules and what is served live on: the collector would walk them again and again while long lists
                # are answered, and the loop stands still for tens of milliseconds each time. Collecting first would be
                # one such pause more, just when the server has said that it serves.
                frozen = True
                gc.freeze()
            await self._keeper.renew()
            if self._watcher is not None:
                for change in await asyncio.to_thread(self._watcher.changes):
                    await self._deploy_change(change)
                self._watched = self._watcher.watched()

    async def _reconcile_forever(self) -> None:
        """Level-triggered: at every change, and now and then for what only time changes."""
        await self._adopted.wait()
        # A gateway serves by its first table: it must know before whom to let in.
        await self._keys_known.wait()
        while True:
            self._changed.clear()
            self._reconcile(time.monotonic())
            try:
                await asyncio.wait_for(self._changed.wait(), 0.5)
            except TimeoutError:
                continue

    def _take_keys(self, keys: KeySet) -> None:
        """Go by these keys, at the management port and at every gateway."""
        wanted = keys.required or exposure.exposed(self._settings) is not None
        keys = msgspec.structs.replace(keys, required=wanted and not self._settings.gateway.no_auth)
        self._guard.follow(keys)
        self._gateways.publish_keys(keys)
        self._keys_known.set()
        kept_keys.save(Path(self._role.directory), self._role.began, keys)

    # --- what should run ---

    async def _inspect_all(self) -> None:
        candidates, failures = await asyncio.to_thread(sources.discover, self._settings)
        for failure in failures:
            self._fail(failure)
        if self._settings.watch:
            # Before inspection: what changes meanwhile must count as a change.
            self._watched = await asyncio.to_thread(watching.first_look, candidates)
            self._watcher = Watcher(self._settings, self._watched)
        results = await sources.inspect(candidates, self._settings.trust) if candidates else []
        records = records_of(candidates, results, self._settings.traffic, self._owner())
        wanted = {spec.id: record.at_work(spec) for record in records for spec in record.deployments}
        for candidate, result in zip(candidates, results, strict=True):
            self._want(candidate, result if isinstance(result, sources.Failure) else wanted[result.id])
            if candidate.served and self._serving(candidate.endpoint, candidate.deployment) is None:
                self._aim(candidate, result.version)
        await self._endpoints.begin(records)
        self._inspected = True
        self._changed.set()

    def _owner(self) -> Owner:
        """Of the traffic of what this command names."""
        return MANUAL if self._settings.file is None else Owner(OwnerKind.FILE, self._settings.file)

    # --- what outlives this process ---

    def _restore(self) -> None:
        """Go on where a controller of this run ended; its artifacts are not looked at again."""
        state = controller_state.load(self._state_path, self._role.began)
        if state is None:
            return
        self._desired.deployments = {spec.id: spec for spec in state.deployments}
        self._desired.traffic = dict(state.traffic)
        self._desired.failures = {(endpoint, version): reason for endpoint, version, reason in state.failures}
        self._switches.update({(switch.endpoint, switch.deployment): switch for switch in state.switches})
        self._endpoints.records = {record.name: record for record in state.records}
        self.rollouts.resume(list(state.rollouts))
        self._desired.paused = {record.name: record.paused for record in state.records if record.paused}
        for record in state.records:
            self._endpoints.log_requests(record)
        for deployment, failure in state.load_failures.items():
            restarts = self._observed.restarts_of(deployment)
            restarts.load_failure, restarts.log_tail = failure.reason, failure.log_tail
        if state.watched is not None:
            self._watched = state.watched
            self._watcher = Watcher(self._settings, state.watched)
        self._inspected = True

    def _save(self) -> None:
        desired, restarts = self._desired, self._observed.restarts
        state = ControllerState(
            began=self._role.began,
            deployments=tuple(desired.deployments.values()),
            traffic=dict(desired.traffic),
            failures=tuple((*key, reason) for key, reason in desired.failures.items()),
            switches=tuple(self._switches.values()),
            load_failures={d: LoadFailure(r.load_failure, r.log_tail) for d, r in restarts.items() if r.load_failure},
            watched=self._watched,
            records=tuple(self._endpoints.records.values()),
            rollouts=tuple(self.rollouts.active.values()),
        )
        if state != self._saved:
            controller_state.save(self._state_path, state)
            self._saved = state

    def _want(self, candidate: sources.Candidate, result: DeploymentSpec | sources.Failure) -> None:
        if isinstance(result, sources.Failure):
            self._fail(result)
            return
        with contextlib.suppress(OSError):  # gone already: the worker will say so
            source_copies.keep(Path(self._role.directory), result.artifact)
        self._desired.failures.pop((candidate.endpoint, candidate.version), None)
        self._desired.deployments[result.id] = result
        self._say(events.ModelInspected(result.endpoint, result.version, result.artifact))

    def _aim(self, candidate: sources.Candidate, version: str) -> None:
        """Requests for the candidate's deployment go to this version of it."""
        endpoint = candidate.endpoint
        known = self._desired.traffic.get(endpoint)
        traffic = known or EndpointTraffic(self._settings.traffic.get(endpoint, TrafficPolicy()))
        self._desired.traffic[endpoint] = traffic.aimed(candidate.deployment, deployment_id(endpoint, version))

    def _serving(self, endpoint: str, deployment: str) -> str | None:
        """Id of the version that serves under this name, or will when it is ready; None when there is none."""
        target = self._desired.traffic.get(endpoint, EndpointTraffic()).targets.get(deployment)
        return target if target in self._desired.deployments else None

    def _fail(self, failure: sources.Failure) -> None:
        self._desired.failures[failure.endpoint, failure.version] = failure.reason
        self._say(events.ModelFailed(failure.endpoint, failure.version, failure.reason))

    async def _deploy_change(self, change: Change) -> None:
        """--watch: put a new version beside the old one; it takes over when it is ready."""
        (result,) = await sources.inspect([change.candidate], self._settings.trust)
        endpoint, name = change.candidate.endpoint, change.candidate.deployment
        serving = self._serving(endpoint, name)
        if change.replaces is not None:
            # Whatever kept the version before this one from being served is history.
            self._desired.failures.pop((endpoint, change.replaces), None)
        if isinstance(result, DeploymentSpec) and self._keeps(result):
            reason = (
                f"{result.artifact.path} or its requirements changed, but a version that is served does not change:"
                " put the new model into a new version folder"
            )
            result = sources.Failure(endpoint, result.version, reason)
        elif isinstance(result, sources.Failure) and serving is None:
            self._fail(result)
            self._aim(change.candidate, result.version)
            return
        if isinstance(result, sources.Failure):
            self._say(events.ModelFailed(result.endpoint, result.version, result.reason))
            return
        self._observed.restarts.pop(result.id, None)
        self._want(change.candidate, result)
        if endpoint not in self._endpoints.records:
            self._aim(change.candidate, result.version)
            await self._endpoints.begin(records_of([change.candidate], [result], self._settings.traffic, self._owner()))
            return
        aims = change.candidate.served or serving is None
        replaces = change.replaces is not None
        await self._endpoints.watched(endpoint, added=result, name=name if aims else None, replaces=replaces)

    def _keeps(self, changed: DeploymentSpec) -> bool:
        """A version of this number is deployed and works, or may yet: it is not replaced in place."""
        known = self._desired.deployments.get(changed.id)
        return (
            known is not None
            and (known.artifact.digest, known.environment) != (changed.artifact.digest, changed.environment)
            and not self._observed.restarts_of(changed.id).load_failure
        )

    def _switch_when_ready(self) -> None:
        self._switched += move_when_ready(
            self._desired,
            self._observed,
            self._switches,
            reachable=self._reachable,
            ended=self._endpoints.switched,
        )

    def _reachable(self, spec: DeploymentSpec) -> bool:
        """Every replica is ready and every gateway connected to it: traffic that moves there now meets no gap."""
        ready = self._observed.ready(spec.id)
        return (
            len(ready) >= spec.replicas
            and ready <= self._published
            and self._followed(self._table.version)
            and all(ready.isdisjoint(load.unreachable) for load in self._gateways.loads.values())
        )

    async def visible(self) -> None:
        """Wait a moment until every gateway goes by what was changed: who is told that it is done may rely on it."""
        ends = time.monotonic() + _VISIBLE_S
        while self._changed.is_set() or not self._followed(self._table.version):
            if time.monotonic() > ends:
                return  # a gateway is being started again; it begins with this table
            await asyncio.sleep(_VISIBLE_LOOK_S)

    def _followed(self, version: int) -> bool:
        """Every gateway goes by this route table or a newer one."""
        loads = self._gateways.loads
        return len(loads) >= self._settings.gateway.gateways and all(
            load.route_version >= version for load in loads.values()
        )

    # --- reconcile ---

    def _reconcile(self, now: float) -> None:
        """observe → plan → act → publish."""
        if not self._inspected:
            # An empty table would tell gateways, and they their callers, that nothing is served here.
            return
        self._switch_when_ready()
        for action in planning.plan(self._desired, self._observed, self._idle(now), now):
            match action:
                case planning.StartWorker(deployments):
                    self._start(deployments)
                case planning.ProvideEnvironment(environment):
                    self._environments.ensure(environment)
                case planning.DrainWorker(worker):
                    self._drain(worker, now)
                case planning.StopWorker(worker):
                    self._send(orders.StopWorker(worker, _STOP_GRACE_S))
        self._environments.keep_only(self._environments_in_use())
        self._publish()
        self._save()
        self._announce_when_settled()
        self._announce_switches()
        self._announce_shifts()

    def _idle(self, now: float) -> frozenset[str]:
        """Draining workers whose deployments no gateway uses any more, or that have drained long enough."""
        draining = [w for w in self._observed.workers.values() if w.stopping_since is not None]
        if not draining:
            return frozenset()
        # A deployment that left the table may still be given what came before, until its gateway drops it.
        busy = {
            d.deployment
            for load in self._gateways.loads.values()
            for d in load.deployments
            if d.in_flight or d.deployment not in self._desired.deployments
        }
        # A gateway that has just been restarted, or has not found this controller yet, may hold work too.
        all_reported = self._gateways.connected == frozenset(self._gateways.loads)
        idle = set()
        for worker in draining:
            seen = self._drained_at.get(worker.id, 0)
            left = seen and all_reported and self._followed(seen)
            unused = left and busy.isdisjoint(r.deployment for r in worker.replicas)
            assert worker.stopping_since is not None
            if unused or now - worker.stopping_since > _DRAIN_LIMIT_S:
                idle.add(worker.id)
        return frozenset(idle)

    def _start(self, deployments: tuple[DeploymentSpec, ...]) -> None:
        environment = deployments[0].environment  # packed ones share it
        python = None if environment is None else self._environments.python(environment)
        if environment is not None and python is None:
            return
        number = secrets.token_hex(4)
        worker_id = f"w{number}"
        total = sum(d.replicas for d in self._desired.deployments.values())
        cpus, gateways = resources.cpus(), self._settings.gateway.gateways
        threads = [
            d.threads or resources.threads_per_replica(cpus, gateways, total, d.resources.cpu) for d in deployments
        ]
        replicas = tuple(
            ReplicaSpec(
                id=f"{d.id}#{number}",
                artifact=d.artifact,
                options=LoadOptions(
                    threads=t,
                    batch_limit=d.batching.max_batch_size,
                    options=dict(d.platform_options),
                    source=source_copies.find(Path(self._role.directory), d.artifact),
                    scratch=str(Path(self._role.directory) / "scratch"),
                ),
                warmup=d.warmup,
            )
            for d, t in zip(deployments, threads, strict=True)
        )
        memories = [d.resources.memory for d in deployments if d.resources.memory is not None]
        order = orders.StartWorker(
            worker=worker_id,
            replicas=replicas,
            digests=tuple(d.artifact.digest for d in deployments),
            load_keys=tuple(d.load_key for d in deployments),
            deployments=tuple(d.id for d in deployments),
            token=secrets.token_hex(16),
            environment=resources.thread_environment(max(threads)),
            replica_timeout_s=min(d.replica_timeout_s for d in deployments),
            memory=sum(memories) if len(memories) == len(deployments) else None,
            python=python,
            yields=deployments[0].yields,  # packed ones agree
        )
        directory = Path(self._role.directory)
        self._adopt(
            orders.LiveWorker(order, f"unix:{directory / worker_id}.sock", str(directory / f"{worker_id}.status"), ())
        )
        self._send(order)

    def _adopt(self, live: orders.LiveWorker) -> None:
        order = live.order
        self._orders[order.worker] = order
        for gone in list(self._orders)[:-_WORKERS_REMEMBERED]:
            if gone not in self._observed.workers:
                del self._orders[gone]
                self._tails.pop(gone, None)
        replicas = [
            ObservedReplica(r.id, deployment, digest, key)
            for r, deployment, digest, key in zip(
                order.replicas, order.deployments, order.digests, order.load_keys, strict=True
            )
        ]
        self._observed.workers[order.worker] = ObservedWorker(
            order.worker, replicas, live.address, live.status_path, order.token
        )
        for replica in replicas:
            self._recorder.replica_state(replica.id, replica.state)
        for report in live.reports:
            self._replica_reported(report)

    def _drain(self, worker_id: str, now: float) -> None:
        worker = self._observed.workers[worker_id]
        worker.stopping_since = now
        self._drained_at[worker_id] = self._table.version + 1

    def _publish(self) -> None:
        endpoints = publish.endpoints(self._desired, self._observed)
        gateways = self._settings.gateway.gateways
        if endpoints == self._table.endpoints and self._table.version:
            return
        self._table = RouteTable(self._table.version + 1, self._table.epoch, endpoints, gateways)
        self._published = frozenset(
            r.id for e in endpoints for d in e.deployments for r in d.replicas if r.state is ReplicaState.READY
        )
        self._recorder.set_route_version(self._table.version)
        self._gateways.publish(self._table)

    def _announce_when_settled(self) -> None:
        """Serving is told once: everything has become ready or failed, and every gateway knows."""
        if self._announced or not self._followed(self._table.version):
            return
        settled = all(self._settled(spec) for spec in self._desired.deployments.values())
        if not settled or any(load.unreachable for load in self._gateways.loads.values()):
            return
        self._announced = True
        self._say(
            events.Serving(
                self._role.url,
                self._role.management_url,
                self._table.endpoints,
                self._settings.gateway.gateways,
                time.monotonic() - self._role.began,
                self._guard.asks,
            )
        )

    def _announce_switches(self) -> None:
        """Once every gateway has moved its traffic: who reads it may rely on it."""
        if self._switched and self._followed(self._table.version):
            for event in self._switched:
                self._say(event)
            self._switched.clear()

    def _announce_shifts(self) -> None:
        """Who takes whose traffic, when that changes; at the start it is no news that nobody is ready yet."""
        if not self._announced:
            return
        for endpoint in self._table.endpoints:
            waiting = endpoint.waiting
            if waiting != self._waiting.get(endpoint.name, ()):
                self._waiting[endpoint.name] = waiting
                shares = {d.name: endpoint.traffic[d.id] for d in endpoint.deployments if d.id in endpoint.traffic}
                self._say(events.TrafficShifted(endpoint.name, waiting, shares))

    def _settled(self, spec: DeploymentSpec) -> bool:
        failed = bool(self._observed.restarts_of(spec.id).load_failure)
        failed = failed or planning.is_dormant(spec, self._desired, self._observed)
        return failed or len(self._observed.ready(spec.id)) >= spec.replicas

    # --- what the supervisor and the gateways say ---

    def _hear_supervisor(self, splitter: Splitter, stop: asyncio.Event) -> None:
        try:
            data = self._link.recv(1 << 20)
        except BlockingIOError:
            return
        if not data:
            self._orphaned = True
            stop.set()
            asyncio.get_running_loop().remove_reader(self._link.fileno())
            return
        for message in splitter.feed(data):
            self._hear(_decode_report(message))
        self._changed.set()

    def _hear(self, report: orders.Report) -> None:
        match report:
            case orders.ReplicaReport():
                self._replica_reported(report)
            case orders.WorkerExited():
                self._worker_exited(report)
            case orders.LiveWorker():
                self._adopt(report)
            case orders.Adopted():
                self._announced = report.announced
                self._adopted.set()
            case orders.WorkerLog():
                self._tails[report.worker] = report.tail

    def _replica_reported(self, report: orders.ReplicaReport) -> None:
        worker = self._observed.workers.get(report.worker)
        if worker is None:
            return
        replica = worker.replicas[report.index]
        replica.move(report.state, report.reason)
        self._recorder.replica_state(replica.id, replica.state)
        if report.state is ReplicaState.READY:
            replica.model, replica.timings = report.model, report.timings
            self._observed.loaded[replica.deployment, replica.digest] = replica
        elif report.state is ReplicaState.FAILED:
            self._load_failed(replica.deployment, report.reason, report.trace)

    def _load_failed(self, deployment: str, reason: str, trace: str) -> None:
        restarts = self._observed.restarts_of(deployment)
        restarts.load_failure = reason
        restarts.log_tail = trace
        endpoint, version = endpoint_and_version(deployment)
        self._say(events.ModelFailed(endpoint, version, reason, trace))

    def _worker_exited(self, report: orders.WorkerExited) -> None:
        worker = self._observed.workers.pop(report.worker, None)
        self._drained_at.pop(report.worker, None)
        if worker is None:
            return
        self._tails[report.worker] = report.log_tail
        for replica in worker.replicas:
            was = replica.state
            self._recorder.forget_replica(replica.id)
            if worker.stopping_since is not None or was is ReplicaState.FAILED:
                continue
            restarts = self._observed.restarts_of(replica.deployment)
            restarts.fruitless = 0 if report.completed else restarts.fruitless + 1
            restarts.not_before = time.monotonic() + planning.backoff(restarts.fruitless)
            if was is not ReplicaState.READY and restarts.fruitless >= _LOAD_ATTEMPTS:
                reason = f"{report.detail} while loading, {restarts.fruitless} times in a row"
                self._load_failed(replica.deployment, reason, report.log_tail)
                continue
            endpoint, version = endpoint_and_version(replica.deployment)
            self._recorder.restarted(endpoint, version, RestartReason(report.reason))
            self._say(events.ReplicaRestarted(replica.id, report.detail))

    # --- what its environments say (app/version_environments.py) ---

    def _environments_in_use(self) -> set[str]:
        """Keys of what deployments want, and of what workers that drain still run in."""
        wanted = {d.environment.key for d in self._desired.deployments.values() if d.environment is not None}
        pythons = [self._orders[worker].python for worker in self._observed.workers]
        return wanted | {environment_of(python) for python in pythons if python is not None}

    def changed(self) -> None:
        self._changed.set()

    def deployments_in(self, key: str) -> tuple[str, ...]:
        deployments = self._desired.deployments.values()
        return tuple(d.id for d in deployments if d.environment is not None and d.environment.key == key)

    def environment_failed(self, key: str, reason: str, log_tail: str) -> None:
        for deployment in self.deployments_in(key):
            self._load_failed(deployment, reason, log_tail)

    def _on_load(self, report: LoadReport) -> None:
        self._explain(report)
        if not self._desired.awake.issuperset(report.asked_for):
            self._desired.awake.update(report.asked_for)
            self._changed.set()
        leaving = any(w.stopping_since is not None for w in self._observed.workers.values())
        if not self._announced or leaving or self._switches or self._switched:
            self._changed.set()

    def _explain(self, report: LoadReport) -> None:
        if not self._settings.explain_batching:
            return
        for load in report.deployments:
            # The verdict counts, not every new digit in it.
            verdict = load.explanation.partition(":")[0]
            if load.requests and self._explained.get(load.deployment) != verdict:
                self._explained[load.deployment] = verdict
                self._say(events.BatchingExplained(load.deployment, load.explanation))

    def _say(self, event: events.Event) -> None:
        """Tell the supervisor's watcher, and remember for the API."""
        self._history.append({"at": time.time(), "type": type(event).__name__, **msgspec.to_builtins(event)})
        self._send(orders.Notify(event))

    def _send(self, order: orders.Order) -> None:
        self._link.setblocking(True)
        try:
            self._link.sendall(wrap(_encode(order)))
        except OSError as error:
            self._log.warning("the supervisor is gone", action="supervisor_gone", reason=str(error))
        finally:
            self._link.setblocking(False)

    # --- what the management API reads (api/ports.py) ---

    def routes(self) -> RouteTable:
        """The current route table."""
        return self._table

    def loads(self) -> list[LoadReport]:
        """The last load report of every connected gateway."""
        return list(self._gateways.loads.values())

    def events(self, limit: int) -> list[dict[str, object]]:
        """The last events, newest first."""
        return list(self._history)[::-1][:limit]

    def log_tail(self, replica: str) -> str:
        """Last output of a replica's worker. Raises UnknownModel for a replica that never was."""
        for worker, order in self._orders.items():
            if any(r.id == replica for r in order.replicas):
                return self._tails.get(worker, "")
        raise errors.UnknownModel(f"there is no replica {replica!r}")

    def ready(self) -> bool:
        """Everything that was asked for is ready."""
        return (
            self._inspected
            and not self._desired.failures
            and all(
                self._settled(s) and not self._observed.restarts_of(s.id).load_failure
                for s in self._desired.deployments.values()
            )
        )


def _ready(route: DeploymentRoute, other_than: str) -> ReplicaRoute | None:
    """A replica that can be asked."""
    able = (r for r in route.replicas if r.state is ReplicaState.READY and r.id != other_than)
    return next(able, None)


def main(arguments: list[str]) -> int:
    role = roles.decoded(Path(arguments[0]).read_bytes())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.configure(role.settings.logs, "controller")
    asyncio.run(Controller(role).main())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
