"""Builds the RouteTable that gateways follow from what is desired and observed. Pure."""

from __future__ import annotations

from collections import defaultdict

import msgspec

from headrace.control.observed import Desired, Observed, ObservedReplica
from headrace.control.plan import is_dormant
from headrace.core.endpoints import AdmissionSettings, BatchingSettings, DeploymentSpec, deployment_id
from headrace.core.models import Slots
from headrace.core.replicas import ReplicaState
from headrace.core.routes import DeploymentRoute, EndpointRoute, ReplicaRoute
from headrace.core.slo import Slo
from headrace.core.traffic import EndpointTraffic, shares


def endpoints(desired: Desired, observed: Observed) -> tuple[EndpointRoute, ...]:
    """Every endpoint with all its deployments, ready or not, and the reason of those that are not."""
    routes: defaultdict[str, list[DeploymentRoute]] = defaultdict(list)
    for spec in desired.deployments.values():
        routes[spec.endpoint].append(deployment(spec, desired, observed))
    for (endpoint, version), reason in desired.failures.items():
        routes[endpoint].append(_failed(endpoint, version, reason))
    return tuple(_endpoint(name, routes[name], desired) for name in sorted(routes))


def _endpoint(name: str, routes: list[DeploymentRoute], desired: Desired) -> EndpointRoute:
    traffic = desired.traffic.get(name, EndpointTraffic())
    named = {deployment: target for target, deployment in traffic.targets.items()}
    routes = [msgspec.structs.replace(route, name=named.get(route.id, "")) for route in routes]
    return EndpointRoute(
        name,
        tuple(routes),
        _weights(routes, traffic),
        traffic.policy,
        desired.paused.get(name, ""),
        desired.trials.get(name),
        desired.logs.get(name),
        desired.slos.get(name, Slo()),
    )


def _weights(routes: list[DeploymentRoute], traffic: EndpointTraffic) -> dict[str, float]:
    """What each deployment gets now, by id: nothing while it is not ready and another one is."""
    known = {route.name: route.id for route in routes if route.name}
    wanted = {name: weight for name, weight in traffic.policy.weights.items() if name in known}
    found = shares(wanted, [route.name for route in routes if route.ready])
    # Before anything could be aimed at: whoever asks reads why there is no answer.
    return {known[name]: share for name, share in found.items()} or {routes[0].id: 1.0}


def deployment(spec: DeploymentSpec, desired: Desired, observed: Observed) -> DeploymentRoute:
    """The route of one version, with every replica of it."""
    replicas = []
    loaded = observed.loaded.get((spec.id, spec.artifact.digest))
    model = loaded.model if loaded is not None else None
    timings = loaded.timings if loaded is not None else ()
    reasons: list[str] = []
    for worker, index, replica in observed.placed(spec.id):
        if replica.digest != spec.artifact.digest:
            continue
        if replica.reason:
            reasons.append(replica.reason)
        state = _published(replica, worker.stopping_since is not None)
        replicas.append(ReplicaRoute(replica.id, worker.address, index, state, worker.token, worker.status_path))
    failure = observed.restarts_of(spec.id).load_failure
    environment = observed.environment_of(spec)
    if environment is not None and not environment.python:
        reasons.append(environment.reason)
    return DeploymentRoute(
        id=spec.id,
        version=spec.version,
        platform=model.platform if model else spec.artifact.format.value,
        signature=model.signature if model else None,
        slots=model.slots if model else Slots(),
        batching=spec.batching,
        admission=spec.admission,
        # A Python class may say so itself (``idempotent = False``); the stricter of the two holds.
        idempotent=spec.idempotent and (model is None or model.metadata.get("idempotent") != "no"),
        timeout_s=spec.timeout_s,
        replica_timeout_s=spec.replica_timeout_s,
        stream_stall_s=spec.stream_stall_s,
        replicas=tuple(replicas),
        desired_replicas=spec.replicas,
        failed=bool(failure),
        lazy=spec.lazy,
        dormant=is_dormant(spec, desired, observed),
        reason=failure or (reasons[-1] if reasons else ""),
        warmup=timings,
    )


def _published(replica: ObservedReplica, draining: bool) -> ReplicaState:
    if draining and replica.state in (ReplicaState.READY, ReplicaState.DRAINING):
        return ReplicaState.DRAINING
    return replica.state


def _failed(endpoint: str, version: str, reason: str) -> DeploymentRoute:
    return DeploymentRoute(
        id=deployment_id(endpoint, version),
        version=version,
        platform="",
        signature=None,
        slots=Slots(),
        batching=BatchingSettings(),
        admission=AdmissionSettings(),
        idempotent=True,
        timeout_s=0.0,
        replica_timeout_s=0.0,
        stream_stall_s=0.0,
        replicas=(),
        desired_replicas=0,
        reason=reason,
        failed=True,
    )
