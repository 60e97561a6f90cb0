"""Routes and a server in memory for the tests of this folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from headrace.app import events
from headrace.core.endpoints import AdmissionSettings, BatchingSettings
from headrace.core.models import Signature, Slots, TensorSpec
from headrace.core.replicas import ReplicaState
from headrace.core.routes import DeploymentRoute, EndpointRoute, ReplicaRoute
from headrace.core.tensors import DType
from tests.unit.client.fake_server import FakeServer

TABLE = Signature(
    (TensorSpec("amount", DType.FP64, (-1,)), TensorSpec("country", DType.BYTES, (-1,))), (), columns=True
)


def make_endpoint(name: str, *states: ReplicaState, **changes: Any) -> EndpointRoute:
    replicas = tuple(
        ReplicaRoute(f"{name}@1#{n}", f"unix:/run/{name}.{n}", 0, state, token=f"secret-{n}")
        for n, state in enumerate(states)
    )
    values: dict[str, Any] = {
        "id": f"{name}@1",
        "version": "1",
        "platform": "sklearn",
        "signature": TABLE,
        "slots": Slots(),
        "batching": BatchingSettings(),
        "admission": AdmissionSettings(),
        "idempotent": True,
        "timeout_s": 60.0,
        "replica_timeout_s": 60.0,
        "stream_stall_s": 30.0,
        "replicas": replicas,
        "desired_replicas": len(states),
    }
    deployment = DeploymentRoute(**(values | changes))
    return EndpointRoute(name, (deployment,), {deployment.id: 1.0})


@pytest.fixture
def endpoint() -> Callable[..., EndpointRoute]:
    return make_endpoint


@pytest.fixture
def serving() -> events.Serving:
    """One endpoint that is ready, one that failed."""
    return events.Serving(
        url="http://127.0.0.1:8000",
        management_url="http://127.0.0.1:9000",
        endpoints=(
            make_endpoint("fraud", ReplicaState.READY, ReplicaState.LOADING),
            make_endpoint("bad", signature=None, platform="", reason="no weights\nin line 3", desired_replicas=1),
        ),
        gateways=1,
        seconds=1.234,
    )


@pytest.fixture
def fake_server() -> type[FakeServer]:
    return FakeServer
