"""Events and routes in words: what the screens print, without how it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, assert_never

from headrace.app import events
from headrace.client.example import curl, example_inputs, predict_command
from headrace.core.binding import describe
from headrace.core.replicas import ReplicaState
from headrace.core.routes import DeploymentRoute, EndpointRoute

EXAMPLES_SHOWN = 3
_TAIL_LINES = 20
_INPUTS_SHOWN = 6
_REASON_SHOWN = 100
_PACKAGES_SHOWN = 5


class EndpointRow(NamedTuple):
    """One deployment in the table; ``reason`` is empty when it is ready."""

    endpoint: str
    version: str
    runtime: str
    replicas: str
    state: str
    inputs: str
    reason: str


def is_failure(event: events.Event) -> bool:
    return isinstance(event, events.ModelFailed | events.ReplicaRestarted)


def one_line(event: events.Event) -> str:
    """The event as a sentence."""
    match event:
        case events.ModelInspected():
            artifact = event.artifact
            return f"{event.endpoint} version {event.version}: {artifact.format.value} in {artifact.path}, loading"
        case events.ModelFailed():
            version = f" version {event.version}" if event.version else ""
            return f"{event.endpoint}{version} failed: {event.reason}"
        case events.EnvironmentBuilding():
            packages = ", ".join(event.requirements[:_PACKAGES_SHOWN])
            more = ", …" if len(event.requirements) > _PACKAGES_SHOWN else ""
            whose = " and ".join(event.deployments)
            return f"{whose}: building environment {event.environment} with {packages}{more}"
        case events.EnvironmentProgress():
            return f"{' and '.join(event.deployments)}: {event.progress}"
        case events.EnvironmentDone():
            took = f" after {event.seconds:.1f} s" if event.outcome != "reused" else ""
            return f"{' and '.join(event.deployments)}: environment {event.environment} {event.outcome}{took}"
        case events.Serving():
            return started(event)
        case events.ReplicaRestarted():
            return f"replica {event.replica} restarts: {event.reason}"
        case events.VersionLoaded():
            return f"{event.endpoint}: version {event.version} took over from {event.replaced}"
        case events.TrafficShifted():
            shares = ", ".join(f"{name} {share:.4g} %" for name, share in _percent(event.shares).items())
            if not event.waiting:
                return f"{event.endpoint}: every deployment takes its share again: {shares}"
            return f"{event.endpoint}: {' and '.join(event.waiting)} not ready, traffic goes to {shares}"
        case events.RolloutMoved():
            step = f" {event.step + 1}" if event.phase == "step" else ""
            return (
                f"{event.endpoint}: rollout {event.rollout} {event.phase}{step}, {event.share:.4g} of the traffic:"
                f" {event.reason}"
            )
        case events.EndpointChanged():
            why = f": {event.why}" if event.why else ""
            return f"{event.endpoint}: {event.what} by {event.who}{why}"
        case events.BatchingExplained():
            return f"batching {event.deployment}: {event.explanation}"
        case events.Draining():
            return f"stopping: up to {event.seconds:g} s to finish accepted requests (a second Ctrl-C stops at once)"
        case events.RequestsCut():
            requests = "1 request was" if event.requests == 1 else f"{event.requests} requests were"
            return f"the time to drain (--drain) was over: {requests} cut, answered with 503"
        case events.Stopped():
            return f"stopped with exit code {event.exit_code}" if event.exit_code else "stopped"
        case _:
            assert_never(event)


def log_tail(event: events.Event) -> list[str]:
    """The last lines that a failed model wrote."""
    if not isinstance(event, events.ModelFailed):
        return []
    return event.log_tail.rstrip().splitlines()[-_TAIL_LINES:]


def serving_lines(event: events.Serving) -> list[str]:
    """The start screen as plain lines."""
    lines = [one_line(event)]
    for row in endpoint_rows(event.endpoints):
        what = f"{row.runtime}, {row.replicas} replicas" if row.runtime else f"{row.replicas} replicas"
        rest = row.reason or f"inputs {row.inputs}"
        lines.append(f"endpoint {row.endpoint} version {row.version}: {row.state}; {what}; {rest}")
    lines += [f"{label}: {value}" for label, value in addresses(event)]
    lines += [f"try: {example}" for example in examples(event)]
    return lines


def endpoint_rows(endpoints: Sequence[EndpointRoute]) -> list[EndpointRow]:
    rows = []
    for endpoint in endpoints:
        for deployment in endpoint.deployments:
            ready = sum(replica.state is ReplicaState.READY for replica in deployment.replicas)
            rows.append(
                EndpointRow(
                    endpoint.name,
                    version(endpoint, deployment),
                    deployment.platform,
                    f"{ready}/{deployment.desired_replicas}",
                    state(deployment),
                    inputs(deployment),
                    "" if deployment.ready else _first_line(deployment.reason),
                )
            )
    return rows


def version(endpoint: EndpointRoute, deployment: DeploymentRoute) -> str:
    """``3``, or ``3 (challenger 5 %)`` where an endpoint has several deployments."""
    weights = endpoint.policy.weights
    if len(weights) < 2 or not deployment.name:
        return deployment.version
    share = 100 * weights.get(deployment.name, 0.0) / sum(weights.values())
    return f"{deployment.version} ({deployment.name} {share:.4g} %)"


def _percent(shares: dict[str, float]) -> dict[str, float]:
    return {name: 100 * share for name, share in shares.items()}


def state(deployment: DeploymentRoute) -> str:
    """ready, loading or failed, as a whole."""
    if deployment.ready:
        return "ready"
    states = {replica.state for replica in deployment.replicas}
    if states & {ReplicaState.STARTING, ReplicaState.LOADING, ReplicaState.WARMING}:
        return "loading"
    return "failed" if deployment.reason or ReplicaState.FAILED in states else "loading"


def inputs(deployment: DeploymentRoute) -> str:
    """Typed inputs, shortened: ``'amount' FP64[-1], …``."""
    signature = deployment.signature
    if signature is None:
        return ""
    if signature.any_inputs:
        return "any"
    shown = describe(signature.inputs[:_INPUTS_SHOWN])
    more = len(signature.inputs) - _INPUTS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def addresses(event: events.Serving) -> list[tuple[str, str]]:
    grpc = event.url.partition("://")[2]
    secure = " (TLS)" if event.url.startswith("https:") else ""
    found = [
        ("REST", event.url),
        ("gRPC", f"{grpc}{secure}"),
        ("metrics", f"{event.management_url}/metrics"),
        ("management", event.management_url),
    ]
    if event.asks_for_keys:
        found.append(("keys", "every request needs one: headrace keys create --help"))
    return found


def examples(event: events.Serving) -> list[str]:
    """Shell commands that work, for a few endpoints that are ready; the shortest say most."""
    found: list[list[str]] = []
    for endpoint in event.endpoints:
        deployment = next((d for d in endpoint.deployments if d.ready and d.signature is not None), None)
        if deployment is None or deployment.signature is None:
            continue
        signature = deployment.signature
        commands = [
            curl(
                event.url,
                endpoint.name,
                signature.inputs,
                batchable=signature.batchable,
                columns=signature.columns,
                streaming=signature.streaming,
                key=event.asks_for_keys,
            )
        ]
        if signature.inputs and example_inputs(signature.inputs) is None:
            # Too large to type: metadata by curl, data from a file.
            commands.append(predict_command(event.url, endpoint.name, signature.inputs))
        found.append(commands)
    found.sort(key=lambda commands: sum(map(len, commands)))
    return [command for commands in found for command in commands][:EXAMPLES_SHOWN]


def started(event: events.Serving) -> str:
    ready = sum(any(d.ready for d in endpoint.deployments) for endpoint in event.endpoints)
    total = len(event.endpoints)
    of = f"{ready} of {total}" if ready != total else str(total)
    return f"serving {of} endpoint{'s' if total != 1 else ''} after {event.seconds:.2f} s"


def _first_line(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return line if len(line) <= _REASON_SHOWN else f"{line[: _REASON_SHOWN - 1]}…"
