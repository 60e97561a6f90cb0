"""The remaining methods of ``inference.GRPCInferenceService``: health, metadata, configuration, statistics, index.

Messages are made from the JSON documents of ``oip_documents.py``, so REST and gRPC cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from headrace.core.models import Signature
from headrace.protocols import grpc_messages, oip_documents
from headrace.protocols.proto import open_inference_pb2 as pb
from headrace.protocols.proto import pool

SERVICE = "inference.GRPCInferenceService"

METHODS = pool.methods()
"""Every gRPC method on the port: ``/package.Service/Method`` → (the client streams, the server streams)."""


def decode_model(body: bytes) -> tuple[str, str]:
    """Name and version (empty: not given) of a ModelReady, ModelMetadata, ModelConfig or ModelStatistics request,
    which all have the same fields. Raises InvalidInput."""
    request = grpc_messages.parse(pb.ModelReadyRequest, body, "request message")
    return request.name, request.version


def decode_index(body: bytes) -> bool:
    """Whether a RepositoryIndexRequest asks for ready models only. Raises InvalidInput."""
    return grpc_messages.parse(pb.RepositoryIndexRequest, body).ready


def render_live(live: bool) -> bytes:
    return pb.ServerLiveResponse(live=live).SerializeToString()


def render_ready(ready: bool) -> bytes:
    return pb.ServerReadyResponse(ready=ready).SerializeToString()


def render_model_ready(ready: bool) -> bytes:
    return pb.ModelReadyResponse(ready=ready).SerializeToString()


def render_server_metadata(version: str) -> bytes:
    return _serialize(oip_documents.server_metadata(version), pb.ServerMetadataResponse())


def render_model_metadata(name: str, versions: Sequence[str], platform: str, signature: Signature) -> bytes:
    return _serialize(oip_documents.model_metadata(name, versions, platform, signature), pb.ModelMetadataResponse())


def render_model_config(
    name: str, platform: str, signature: Signature, max_batch_size: int = 0, backend: str = ""
) -> bytes:
    config = oip_documents.model_config(name, platform, signature, max_batch_size, backend)
    return _serialize({"config": config}, pb.ModelConfigResponse())


def render_statistics(models: Iterable[oip_documents.ModelStatistics]) -> bytes:
    return _serialize(oip_documents.statistics(models), pb.ModelStatisticsResponse())


def render_index(entries: Iterable[oip_documents.IndexEntry]) -> bytes:
    return _serialize({"models": oip_documents.repository_index(entries)}, pb.RepositoryIndexResponse())


def _serialize(document: dict[str, Any], into: Message) -> bytes:
    return json_format.ParseDict(document, into).SerializeToString()
