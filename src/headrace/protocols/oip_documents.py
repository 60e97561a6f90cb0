"""Documents of the Open Inference Protocol about servers and models: metadata, config, statistics, repository index.

They are plain JSON values; the gRPC codec builds its messages from the same ones, so the two cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from headrace.core import errors
from headrace.core.models import Signature, TensorSpec
from headrace.core.tensors import DType
from headrace.protocols import json_elements

SERVER_NAME = "headrace"

EXTENSIONS = ("classification", "model_configuration", "binary_tensor_data", "parameters", "statistics")
"""Extensions of the protocol that are served, by Triton's names."""


class Duration(msgspec.Struct, frozen=True):
    """How often something happened and the summed time it took, in nanoseconds."""

    count: int = 0
    ns: int = 0


class InferStatistics(msgspec.Struct, frozen=True):
    """Durations by stage, as perf_analyzer reads them."""

    success: Duration = Duration()
    fail: Duration = Duration()
    queue: Duration = Duration()
    compute_input: Duration = Duration()
    compute_infer: Duration = Duration()
    compute_output: Duration = Duration()
    cache_hit: Duration = Duration()
    cache_miss: Duration = Duration()


class BatchStatistics(msgspec.Struct, frozen=True):
    """Model calls with ``batch_size`` rows."""

    batch_size: int
    compute_input: Duration = Duration()
    compute_infer: Duration = Duration()
    compute_output: Duration = Duration()


class ModelStatistics(msgspec.Struct, frozen=True):
    """Statistics of one version since it was loaded.

    last_inference   Unix time of the last request, milliseconds; 0: none yet
    inference_count  rows inferred; execution_count: model calls (batches)
    """

    name: str
    version: str
    last_inference: int = 0
    inference_count: int = 0
    execution_count: int = 0
    inference_stats: InferStatistics = InferStatistics()
    batch_stats: tuple[BatchStatistics, ...] = ()


class IndexEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One version in the repository index; ``state`` is READY, LOADING, UNLOADING or UNAVAILABLE."""

    name: str
    version: str = ""
    state: str = ""
    reason: str | None = None


def health(live: bool = True, ready: bool = True) -> dict[str, bool]:
    """Both keys in both answers: the KServe client reads ``live`` of one and ``ready`` of the other."""
    return {"live": live, "ready": ready}


def model_ready(name: str, ready: bool) -> dict[str, Any]:
    return {"name": name, "ready": ready}


def model_list(names: Sequence[str]) -> dict[str, Any]:
    return {"models": list(names)}


def server_metadata(version: str) -> dict[str, Any]:
    return {"name": SERVER_NAME, "version": version, "extensions": list(EXTENSIONS)}


def model_metadata(name: str, versions: Sequence[str], platform: str, signature: Signature) -> dict[str, Any]:
    return {
        "name": name,
        "versions": list(versions),
        "platform": platform,
        "inputs": [_tensor_metadata(spec) for spec in signature.inputs],
        "outputs": [_tensor_metadata(spec) for spec in signature.outputs],
    }


def _tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": str(spec.dtype), "shape": list(spec.shape)}


def model_config(
    name: str, platform: str, signature: Signature, max_batch_size: int = 0, backend: str = ""
) -> dict[str, Any]:
    """The part of Triton's model configuration that perf_analyzer and friends read.

    ``max_batch_size`` is the row limit of a batchable model; others have 0 and keep dimension 0 in ``dims``."""
    batching = signature.batchable and max_batch_size > 0
    config: dict[str, Any] = {
        "name": name,
        "platform": platform,
        "backend": backend or platform,
        "max_batch_size": max_batch_size if batching else 0,
        "input": [_tensor_config(spec, batching) for spec in signature.inputs],
        "output": [_tensor_config(spec, batching) for spec in signature.outputs],
        "model_transaction_policy": {"decoupled": signature.streaming},
    }
    if batching:
        config["dynamic_batching"] = {}
    return config


def _tensor_config(spec: TensorSpec, batching: bool) -> dict[str, Any]:
    dims = list(spec.shape[1:] if batching else spec.shape)
    config: dict[str, Any] = {"name": spec.name, "data_type": data_type(spec.dtype), "dims": dims}
    if not dims:
        # The configuration has no empty dims: a column of scalars is [1], reshaped away.
        config["dims"] = [1]
        config["reshape"] = {"shape": []}
    if spec.optional:
        config["optional"] = True
    return config


def data_type(dtype: DType) -> str:
    """The configuration's own name of a datatype, ``TYPE_FP32``; BYTES is TYPE_STRING."""
    return "TYPE_STRING" if dtype is DType.BYTES else f"TYPE_{dtype}"


def statistics(models: Iterable[ModelStatistics]) -> dict[str, Any]:
    return {"model_stats": [msgspec.to_builtins(model) for model in models]}


def repository_index(entries: Iterable[IndexEntry]) -> list[dict[str, Any]]:
    """A bare array, as tritonclient expects."""
    return [msgspec.to_builtins(entry) for entry in entries]


class _IndexBody(msgspec.Struct):
    ready: bool | None = None


def parse_index(body: bytes) -> bool:
    """Whether only ready models are asked for; an empty body asks for all. Raises InvalidInput."""
    if not body.strip():
        return False
    try:
        return bool(msgspec.json.decode(body, type=_IndexBody).ready)
    except msgspec.ValidationError as error:
        problem = json_elements.problem(error)
        raise errors.InvalidInput(f"{problem.path.removeprefix('.') or 'the body'}: {problem.what}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        json_elements.refuse_malformed(error, body)
