"""The path grammar of every REST path that is served: raw path → operation, model, version, allowed verbs.

Model names may hold slashes, raw (tritonclient) or as ``%2F`` (openai, browsers): paths are split first and
decoded after, and a name takes every segment up to a known suffix. Knows no verbs of a request, no routes, no I/O.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, NamedTuple
from urllib.parse import unquote


class Operation(StrEnum):
    ROOT = "root"
    PING = "ping"
    HEALTH = "health"
    SERVER_METADATA = "server_metadata"
    SERVER_LIVE = "server_live"
    SERVER_READY = "server_ready"
    MODEL_LIST = "model_list"
    ALL_STATISTICS = "all_statistics"
    REPOSITORY_INDEX = "repository_index"
    MODEL_METADATA = "model_metadata"
    MODEL_READY = "model_ready"
    MODEL_CONFIG = "model_config"
    MODEL_STATISTICS = "model_statistics"
    INFER = "infer"
    GENERATE = "generate"
    GENERATE_STREAM = "generate_stream"
    V1_LIST = "v1_list"
    V1_MODEL = "v1_model"
    V1_PREDICT = "v1_predict"


ProtocolName = Literal["oip", "v1"]


class Match(NamedTuple):
    """What a path stands for. ``model`` and ``version`` are decoded; empty when the path does not give them."""

    operation: Operation
    protocol: ProtocolName
    model: str
    version: str
    methods: tuple[str, ...]
    """Verbs the path accepts, for routing and the Allow header."""


_GET = ("GET",)
_POST = ("POST",)
_PROBE = ("GET", "HEAD")

_FIXED: dict[str, Match] = {
    "/": Match(Operation.ROOT, "v1", "", "", _PROBE),
    "/ping": Match(Operation.PING, "v1", "", "", _PROBE),
    "/health": Match(Operation.HEALTH, "v1", "", "", _PROBE),
    "/v1/models": Match(Operation.V1_LIST, "v1", "", "", _GET),
    "/v2": Match(Operation.SERVER_METADATA, "oip", "", "", _GET),
    "/v2/health/live": Match(Operation.SERVER_LIVE, "oip", "", "", _PROBE),
    "/v2/health/ready": Match(Operation.SERVER_READY, "oip", "", "", _PROBE),
    "/v2/models": Match(Operation.MODEL_LIST, "oip", "", "", _GET),
    "/v2/models/stats": Match(Operation.ALL_STATISTICS, "oip", "", "", _GET),
    "/v2/repository/index": Match(Operation.REPOSITORY_INDEX, "oip", "", "", _POST),
}

_SUFFIXES: dict[str, tuple[Operation, tuple[str, ...]]] = {
    "ready": (Operation.MODEL_READY, _PROBE),
    "infer": (Operation.INFER, _POST),
    "config": (Operation.MODEL_CONFIG, _GET),
    "stats": (Operation.MODEL_STATISTICS, _GET),
    "generate": (Operation.GENERATE, _POST),
    "generate_stream": (Operation.GENERATE_STREAM, _POST),
}
"""Last segments that are an operation and not part of a model name."""


def match(path: str) -> Match | None:
    """The meaning of a raw (still percent-encoded) path without its query; None when there is none.

    One trailing slash is ignored. Whether the model exists is not this module's business."""
    if len(path) > 1 and path.endswith("/"):
        path = path[:-1]
    fixed = _FIXED.get(path)
    if fixed is not None:
        return fixed
    if path.startswith("/v2/models/"):
        return _oip_model(path.removeprefix("/v2/models/").split("/"))
    if path.startswith("/v1/models/"):
        return _v1_model(path.removeprefix("/v1/models/").split("/"))
    return None


def _oip_model(segments: list[str]) -> Match | None:
    operation = Operation.MODEL_METADATA
    methods: tuple[str, ...] = _GET
    if len(segments) > 1 and segments[-1] in _SUFFIXES:
        operation, methods = _SUFFIXES[segments.pop()]
    return _named(operation, "oip", segments, methods)


def _v1_model(segments: list[str]) -> Match | None:
    # The verb after the colon belongs to the last segment; some clients encode the colon.
    last, colon, verb = unquote(segments[-1]).rpartition(":")
    if not colon:
        return _named(Operation.V1_MODEL, "v1", segments, _GET)
    if verb != "predict":
        return None
    return _named(Operation.V1_PREDICT, "v1", [*segments[:-1], last], _POST)


def _named(operation: Operation, protocol: ProtocolName, segments: list[str], methods: tuple[str, ...]) -> Match | None:
    version = ""
    if len(segments) > 1 and "versions" in segments[1:]:
        if len(segments) < 3 or segments[-2] != "versions":
            return None
        version = unquote(segments[-1])
        segments = segments[:-2]
        if not version:
            return None
    if not all(segments):
        return None
    return Match(operation, protocol, "/".join(map(unquote, segments)), version, methods)
