"""Everything that tells whether a server is ready, asked together: REST, gRPC and the health protocol."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import InferenceServerClient


class Readiness:
    """What a server says about itself and one of its models."""

    def __init__(self, url: str, model: str, rest: httpx.Client, channel: grpc.Channel, triton: object) -> None:
        self._url = url
        self._model = model
        self._rest = rest
        self._health = health_pb2_grpc.HealthStub(channel)
        self._triton = triton

    def answers(self) -> dict[str, bool]:
        """Every answer by the name of its question; each is asked on its own, so near a change they may differ."""
        status = self._health.Check(health_pb2.HealthCheckRequest(), timeout=10).status
        triton = self._triton
        assert isinstance(triton, InferenceServerClient)
        return {
            "GET /v2/health/ready": self._rest_says("/v2/health/ready"),
            "GET /ping": self._rest_says("/ping"),
            "GET /health": self._rest_says("/health"),
            "GET model/ready": self._rest_says(f"/v2/models/{self._model}/ready"),
            "ServerReady": bool(triton.is_server_ready()),
            "ModelReady": bool(triton.is_model_ready(self._model)),
            "grpc.health": status == health_pb2.HealthCheckResponse.SERVING,
        }

    def all(self) -> bool:
        return all(self.answers().values())

    def none(self) -> bool:
        return not any(self.answers().values())

    def _rest_says(self, path: str) -> bool:
        status = self._rest.get(self._url + path).status_code
        assert status in (200, 503), f"{path} answered {status}"
        return status == 200


@contextlib.contextmanager
def readiness(url: str, model: str = "m") -> Iterator[Readiness]:
    address = url.partition("//")[2]
    with (
        httpx.Client(timeout=10) as rest,
        grpc.insecure_channel(address) as channel,
        contextlib.closing(InferenceServerClient(address)) as triton,
    ):
        yield Readiness(url, model, rest, channel, triton)
