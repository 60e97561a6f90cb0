"""The worker processes: what is ordered of them, and what the supervisor tells of them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from headrace.app import events, orders, resources, source_copies
from headrace.app.controller.role import ControllerRole
from headrace.app.controller.routing import Routing
from headrace.app.controller.version_environments import VersionEnvironments
from headrace.backends.environments.folder import environment_of
from headrace.control import plan as planning
from headrace.control.observed import Desired, Observed, ObservedReplica, ObservedWorker
from headrace.core import errors
from headrace.core.endpoints import DeploymentSpec, endpoint_and_version
from headrace.core.environments import EnvironmentSpec
from headrace.core.replicas import ReplicaState
from headrace.replica.spec import ReplicaSpec
from headrace.runtimes.runtime import LoadOptions
from headrace.telemetry.metrics import RestartReason
from headrace.telemetry.recording import ControlRecorder

_STOP_GRACE_S = 5.0
_DRAIN_LIMIT_S = 60.0
_REMEMBERED = 256
"""Workers whose last lines can be read, dead ones included."""
_LOAD_ATTEMPTS = 5


class Workers:
    """On the controller's event loop."""

    def __init__(
        self,
        role: ControllerRole,
        desired: Desired,
        observed: Observed,
        routing: Routing,
        recorder: ControlRecorder,
        changed: asyncio.Event,
        *,
        send: Callable[[orders.Order], None],
        say: Callable[[events.Event], None],
    ) -> None:
        self._directory = Path(role.directory)
        self._settings = role.settings
        self._desired = desired
        self._observed = observed
        self._routing = routing
        self._recorder = recorder
        self._changed = changed
        self._send = send
        self._say = say
        self._orders: dict[str, orders.StartWorker] = {}
        self._tails: dict[str, str] = {}
        self._drained_at: dict[str, int] = {}
        """Worker → route table that has no replica of it any more."""
        # Without a home they last as long as this run.
        folder = Path(role.settings.environments_folder or self._directory / "environments")
        self._environments = VersionEnvironments(folder, observed, self, say)

    # --- what the plan asks for ---

    def act(self, now: float) -> None:
        """One pass: observe → plan → orders. ``now``: monotonic seconds."""
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

    def _idle(self, now: float) -> frozenset[str]:
        """Draining workers whose deployments no gateway uses any more, or that have drained long enough."""
        draining = [w for w in self._observed.workers.values() if w.stopping_since is not None]
        if not draining:
            return frozenset()
        # A deployment that left the table may still be given what came before, until its gateway drops it.
        busy = {
            d.deployment
            for load in self._routing.loads()
            for d in load.deployments
            if d.in_flight or d.deployment not in self._desired.deployments
        }
        all_reported = self._routing.all_reported()
        idle = set()
        for worker in draining:
            seen = self._drained_at.get(worker.id, 0)
            left = seen and all_reported and self._routing.followed(seen)
            unused = left and busy.isdisjoint(r.deployment for r in worker.replicas)
            assert worker.stopping_since is not None
            if unused or now - worker.stopping_since > _DRAIN_LIMIT_S:
                idle.add(worker.id)
        return frozenset(idle)

    def _drain(self, worker_id: str, now: float) -> None:
        self._observed.workers[worker_id].stopping_since = now
        self._drained_at[worker_id] = self._routing.table.version + 1

    @property
    def leaving(self) -> bool:
        """Some worker drains."""
        return any(w.stopping_since is not None for w in self._observed.workers.values())

    def _start(self, deployments: tuple[DeploymentSpec, ...]) -> None:
        environment = deployments[0].environment  # packed ones share it
        python = None if environment is None else self._environments.python(environment)
        if environment is not None and python is None:
            return
        order = self._order(deployments, python)
        socket, status = (self._directory / f"{order.worker}.{kind}" for kind in ("sock", "status"))
        self.adopt(orders.LiveWorker(order, f"unix:{socket}", str(status), ()))
        self._send(order)

    def _order(self, deployments: tuple[DeploymentSpec, ...], python: str | None) -> orders.StartWorker:
        number = secrets.token_hex(4)
        threads = self._threads(deployments)
        memories = [d.resources.memory for d in deployments if d.resources.memory is not None]
        return orders.StartWorker(
            worker=f"w{number}",
            replicas=tuple(self._replica(d, number, t) for d, t in zip(deployments, threads, strict=True)),
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

    def _threads(self, deployments: tuple[DeploymentSpec, ...]) -> list[int]:
        total = sum(d.replicas for d in self._desired.deployments.values())
        cpus, gateways = resources.cpus(), self._settings.gateway.gateways
        return [d.threads or resources.threads_per_replica(cpus, gateways, total, d.resources.cpu) for d in deployments]

    def _replica(self, deployment: DeploymentSpec, number: str, threads: int) -> ReplicaSpec:
        return ReplicaSpec(
            id=f"{deployment.id}#{number}",
            artifact=deployment.artifact,
            options=LoadOptions(
                threads=threads,
                batch_limit=deployment.batching.max_batch_size,
                options=dict(deployment.platform_options),
                source=source_copies.find(self._directory, deployment.artifact),
                scratch=str(self._directory / "scratch"),
            ),
            warmup=deployment.warmup,
            padding=deployment.batching.padding,
        )

    def settled(self, spec: DeploymentSpec) -> bool:
        """It is ready as asked, or will not be without somebody's doing."""
        failed = bool(self._observed.restarts_of(spec.id).load_failure)
        failed = failed or planning.is_dormant(spec, self._desired, self._observed)
        return failed or len(self._observed.ready(spec.id)) >= spec.replicas

    # --- what the supervisor tells ---

    def adopt(self, live: orders.LiveWorker) -> None:
        """A worker that was ordered just now, or by a controller before this one."""
        order = live.order
        self._orders[order.worker] = order
        for gone in list(self._orders)[:-_REMEMBERED]:
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
            self.reported(report)

    def reported(self, report: orders.ReplicaReport) -> None:
        """A replica changed its state."""
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

    def wrote(self, log: orders.WorkerLog) -> None:
        """The last lines of a worker's output."""
        self._tails[log.worker] = log.tail

    def exited(self, report: orders.WorkerExited) -> None:
        """A worker process has ended."""
        worker = self._observed.workers.pop(report.worker, None)
        self._drained_at.pop(report.worker, None)
        if worker is None:
            return
        self._tails[report.worker] = report.log_tail
        for replica in worker.replicas:
            self._recorder.forget_replica(replica.id)
            if worker.stopping_since is None and replica.state is not ReplicaState.FAILED:
                self._died(replica, report)

    def _died(self, replica: ObservedReplica, report: orders.WorkerExited) -> None:
        """It is started again, later and later, unless it never gets ready."""
        restarts = self._observed.restarts_of(replica.deployment)
        restarts.fruitless = 0 if report.completed else restarts.fruitless + 1
        restarts.not_before = time.monotonic() + planning.backoff(restarts.fruitless)
        if replica.state is not ReplicaState.READY and restarts.fruitless >= _LOAD_ATTEMPTS:
            reason = f"{report.detail} while loading, {restarts.fruitless} times in a row"
            self._load_failed(replica.deployment, reason, report.log_tail)
            return
        endpoint, version = endpoint_and_version(replica.deployment)
        self._recorder.restarted(endpoint, version, RestartReason(report.reason))
        self._say(events.ReplicaRestarted(replica.id, report.detail))

    def log_tail(self, replica: str) -> str:
        """Last output of a replica's worker. Raises UnknownModel for a replica that never was."""
        for worker, order in self._orders.items():
            if any(r.id == replica for r in order.replicas):
                return self._tails.get(worker, "")
        raise errors.UnknownModel(f"there is no replica {replica!r}")

    # --- what its environments say (app/controller/version_environments.py) ---

    def _environments_in_use(self) -> set[str]:
        """Keys of what deployments want, and of what workers that drain still run in."""
        wanted = {environment.key for environment in self._wanted_environments().values()}
        pythons = [self._orders[worker].python for worker in self._observed.workers]
        return wanted | {environment_of(python) for python in pythons if python is not None}

    def _wanted_environments(self) -> dict[str, EnvironmentSpec]:
        """By deployment id."""
        return {d.id: d.environment for d in self._desired.deployments.values() if d.environment is not None}

    def changed(self) -> None:
        self._changed.set()

    def deployments_in(self, key: str) -> tuple[str, ...]:
        return tuple(id for id, environment in self._wanted_environments().items() if environment.key == key)

    def environment_failed(self, key: str, reason: str, log_tail: str) -> None:
        for deployment in self.deployments_in(key):
            self._load_failed(deployment, reason, log_tail)
