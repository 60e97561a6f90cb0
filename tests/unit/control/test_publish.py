"""What gateways are told: every deployment with the state and address of its replicas, and why others are not ready."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.control import publish
from headrace.control.observed import Desired, Observed, ObservedReplica, ObservedWorker
from headrace.core import errors
from headrace.core.endpoints import BatchingSettings, DeploymentSpec
from headrace.core.models import Artifact, Format, LoadedModel, SlotKind, Slots
from headrace.core.replicas import ReplicaState
from headrace.core.routes import DeploymentRoute, EndpointRoute
from headrace.core.traffic import EndpointTraffic, TrafficPolicy
from tests.fakes import ROWS


def spec(endpoint: str = "m", version: str = "1", digest: str = "d", **fields: Any) -> DeploymentSpec:
    return DeploymentSpec(endpoint, version, Artifact("/m", Format.ONNX, "onnx", digest), **fields)


def replica(of: DeploymentSpec, number: int = 1, state: ReplicaState = ReplicaState.READY) -> ObservedReplica:
    return ObservedReplica(f"{of.id}#{number}", of.id, of.artifact.digest, of.load_key, state)


def worker(*replicas: ObservedReplica, id: str = "w1", stopping: float | None = None) -> ObservedWorker:
    return ObservedWorker(id, list(replicas), f"unix:/{id}", f"/{id}.status", "token", stopping)


def only(desired: Desired, observed: Observed) -> DeploymentRoute:
    (endpoint,) = publish.endpoints(desired, observed)
    (deployment,) = endpoint.deployments
    return deployment


def test_loaded_deployment() -> None:
    one = spec(batching=BatchingSettings(max_batch_size=7), replicas=2, timeout_s=3.0)
    ready = replica(one)
    observed = Observed(workers={"w1": worker(replica(spec("other"), 9), ready)})
    model = LoadedModel("onnx_onnxv1", ROWS, Slots(SlotKind.CONCURRENT, 4))
    ready.model, ready.timings = model, ((1, 0.5),)
    observed.loaded[one.id, "d"] = ready
    route = only(Desired(deployments={one.id: one}), observed)
    assert (route.id, route.platform, route.signature, route.slots) == ("m@1", "onnx_onnxv1", ROWS, model.slots)
    assert (route.batching.max_batch_size, route.desired_replicas, route.timeout_s) == (7, 2, 3.0)
    assert (route.warmup, route.failed, route.ready) == (((1, 0.5),), False, True)
    (shown,) = route.replicas
    assert (shown.id, shown.address, shown.index, shown.token) == ("m@1#1", "unix:/w1", 1, "token")
    assert shown.status_path == "/w1.status"


def test_model_stays_known_when_all_replicas_have_died() -> None:
    one = spec()
    gone = replica(one)
    gone.model = LoadedModel("onnx_onnxv1", ROWS)
    observed = Observed(loaded={(one.id, "d"): gone})
    route = only(Desired(deployments={one.id: one}), observed)
    assert (route.signature, route.replicas, route.ready) == (ROWS, (), False)
    other = spec(digest="d2")
    assert only(Desired(deployments={other.id: other}), observed).signature is None


@pytest.mark.parametrize(
    ("state", "stopping", "shown"),
    [
        (ReplicaState.STARTING, None, ReplicaState.STARTING),
        (ReplicaState.LOADING, None, ReplicaState.LOADING),
        (ReplicaState.READY, None, ReplicaState.READY),
        (ReplicaState.READY, 1.0, ReplicaState.DRAINING),
        (ReplicaState.LOADING, 1.0, ReplicaState.LOADING),
        (ReplicaState.FAILED, 1.0, ReplicaState.FAILED),
    ],
)
def test_published_state(state: ReplicaState, stopping: float | None, shown: ReplicaState) -> None:
    one = spec()
    observed = Observed(workers={"w1": worker(replica(one, state=state), stopping=stopping)})
    assert [r.state for r in only(Desired(deployments={one.id: one}), observed).replicas] == [shown]


def test_replicas_of_another_digest_are_not_shown() -> None:
    one = spec(digest="new")
    observed = Observed(workers={"w1": worker(replica(spec(digest="old")))})
    assert only(Desired(deployments={one.id: one}), observed).replicas == ()


def test_reasons() -> None:
    one = spec()
    failing = replica(one, state=ReplicaState.LOADING)
    failing.reason = "still trying"
    observed = Observed(workers={"w1": worker(failing)})
    desired = Desired(deployments={one.id: one})
    assert (only(desired, observed).reason, only(desired, observed).failed) == ("still trying", False)
    observed.restarts_of(one.id).load_failure = "no such file"
    assert (only(desired, observed).reason, only(desired, observed).failed) == ("no such file", True)


def test_stricter_word_on_idempotence_holds() -> None:
    one = spec()
    loaded = replica(one)
    for said, asked, expected in (("no", True, False), ("yes", True, True), ("yes", False, False)):
        loaded.model = LoadedModel("python", ROWS, metadata={"idempotent": said})
        observed = Observed(loaded={(one.id, "d"): loaded})
        assert only(Desired(deployments={one.id: spec(idempotent=asked)}), observed).idempotent is expected


def test_failures_are_endpoints_too_and_traffic_goes_to_its_target() -> None:
    one, two = spec(version="1"), spec(version="2")
    desired = Desired(
        deployments={one.id: one, two.id: two},
        traffic={"m": EndpointTraffic(targets={"main": "m@2"})},
        failures={("m", "3"): "broken", ("z", "1"): "pickle"},
    )
    m, z = publish.endpoints(desired, Observed())
    assert ([d.version for d in m.deployments], m.traffic) == (["1", "2", "3"], {"m@2": 1.0})
    assert [d.failed for d in m.deployments] == [False, False, True]
    (broken,) = z.deployments
    assert (z.name, z.traffic, broken.reason, broken.ready) == ("z", {"z@1": 1.0}, "pickle", False)


def test_publishing_changes_nothing_and_says_the_same_twice() -> None:
    one = spec()
    desired, observed = Desired(deployments={one.id: one}), Observed(workers={"w1": worker(replica(one))})
    assert publish.endpoints(desired, observed) == publish.endpoints(desired, observed)


def test_observed_replicas_move_by_the_table() -> None:
    moving = replica(spec(), state=ReplicaState.STARTING)
    for state in (ReplicaState.LOADING, ReplicaState.WARMING, ReplicaState.READY):
        moving.move(state)
    with pytest.raises(errors.Bug):
        moving.move(ReplicaState.LOADING)


def split(weights: dict[str, float], *ready: str) -> EndpointRoute:
    """An endpoint with a champion (version 1), a challenger (2) and an unnamed version 3."""
    specs = [spec(version=version) for version in ("1", "2", "3")]
    workers = {s.version: worker(replica(s)) for s in specs if s.version in ready}
    desired = Desired(
        deployments={s.id: s for s in specs},
        traffic={
            "m": EndpointTraffic(TrafficPolicy(weights), {"champion": "m@1", "challenger": "m@2", "broken": "m@4"})
        },
        failures={("m", "4"): "broken file"},
    )
    (endpoint,) = publish.endpoints(desired, Observed(workers=workers))
    return endpoint


@pytest.mark.parametrize(
    ("weights", "ready", "traffic", "waiting"),
    [
        ({"champion": 95.0, "challenger": 5.0}, "12", {"m@1": 0.95, "m@2": 0.05}, ()),
        ({"champion": 95.0, "challenger": 5.0}, "23", {"m@2": 1.0}, ("champion",)),
        ({"champion": 95.0, "challenger": 5.0}, "13", {"m@1": 1.0}, ("challenger",)),
        ({"champion": 95.0, "challenger": 5.0}, "3", {"m@1": 0.95, "m@2": 0.05}, ()),
        ({"champion": 1.0, "challenger": 0.0}, "2", {"m@1": 1.0}, ()),
        ({"champion": 1.0, "broken": 1.0}, "1", {"m@1": 1.0}, ("broken",)),
        ({"champion": 1.0, "vanished": 1.0}, "1", {"m@1": 1.0}, ("vanished",)),
    ],
)
def test_shares_of_those_that_are_not_ready_fall_to_those_that_are(
    weights: dict[str, float], ready: str, traffic: dict[str, float], waiting: tuple[str, ...]
) -> None:
    endpoint = split(weights, *ready)
    assert endpoint.traffic == pytest.approx(traffic)
    assert endpoint.waiting == waiting
    assert [d.name for d in endpoint.deployments] == ["champion", "challenger", "", "broken"]
    assert endpoint.policy.weights == weights
