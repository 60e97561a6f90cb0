"""The standard gRPC health service (``grpc.health.v1``): bytes ↔ service names and states."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from headrace.protocols import grpc_messages
from headrace.protocols.proto import health_pb2

SERVICE = "grpc.health.v1.Health"


class Serving(IntEnum):
    """States of a service."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3
    """Only ``Watch`` answers this; ``Check`` answers NOT_FOUND (raise UnknownModel)."""


def decode_check(body: bytes) -> str:
    """The service that Check or Watch asks about; empty is the whole server. Raises InvalidInput."""
    return grpc_messages.parse(health_pb2.HealthCheckRequest, body).service


def render_check(status: Serving) -> bytes:
    """One HealthCheckResponse, for Check and for every change that Watch reports."""
    return health_pb2.HealthCheckResponse(status=status.name).SerializeToString()


def render_list(statuses: Mapping[str, Serving]) -> bytes:
    response = health_pb2.HealthListResponse()
    for service, status in statuses.items():
        response.statuses[service].CopyFrom(health_pb2.HealthCheckResponse(status=status.name))
    return response.SerializeToString()
