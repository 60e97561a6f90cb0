"""The gRPC health codec against the messages of grpcio-health-checking."""

from __future__ import annotations

import pytest
from grpc_health.v1 import health_pb2

from headrace.core import errors
from headrace.protocols import health
from headrace.protocols.health import Serving
from headrace.protocols.proto import health_pb2 as ours


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService", "org/é"])
def test_requests(service: str) -> None:
    assert health.decode_check(health_pb2.HealthCheckRequest(service=service).SerializeToString()) == service


def test_a_malformed_request() -> None:
    with pytest.raises(errors.InvalidInput, match="HealthCheckRequest is malformed"):
        health.decode_check(b"\x0a\xff")


@pytest.mark.parametrize("state", list(Serving))
def test_states(state: Serving) -> None:
    found = health_pb2.HealthCheckResponse.FromString(health.render_check(state))
    assert health_pb2.HealthCheckResponse.ServingStatus.Name(found.status) == state.name


def test_the_list() -> None:
    # Not every grpcio-health-checking has List, so our own message reads it.
    found = ours.HealthListResponse.FromString(health.render_list({"": Serving.SERVING, "a": Serving.NOT_SERVING}))
    assert {name: item.status for name, item in found.statuses.items()} == {"": 1, "a": 2}
