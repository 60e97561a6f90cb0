"""Models as the data plane sees them: signatures and what a runtime declares about a loaded model."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from headrace.core.padding import Padding
from headrace.core.tensors import DType


class TensorSpec(msgspec.Struct, frozen=True):
    """One typed input or output.

    ``shape`` uses -1 for a dimension of any size. In a batchable signature dimension 0 is the number of rows
    and is always -1. ``labels`` are class names of an output, when the artifact knows them."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    optional: bool = False
    labels: tuple[str, ...] | None = None


class Signature(msgspec.Struct, frozen=True):
    """Typed inputs and outputs, and how requests may be combined.

    batchable      rows of several requests may be joined along dimension 0 of every input
    columns        the inputs are columns of a table: shape [-1] each, plain JSON rows are objects
    streaming      one request may give any number of responses
    parameters     names of request parameters the model reads; only these keep requests apart in batches
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batchable: bool = True
    columns: bool = False
    streaming: bool = False
    parameters: tuple[str, ...] = ()
    any_inputs: bool = False
    """The model takes whatever tensors arrive (echo, dynamic Python models): no checks by name or dtype."""
    padding: Padding | None = None
    """How requests of different lengths share batches; None: only those of equal inner shapes do."""

    def agrees(self, other: Signature) -> bool:
        """Requests for one are requests for the other, and answers may be compared: padding makes no difference."""
        return self == other or (
            self.padding != other.padding and msgspec.structs.replace(self, padding=other.padding) == other
        )


class SlotKind(StrEnum):
    BATCH = "batch"
    """One batch runs at a time."""
    CONCURRENT = "concurrent"
    """Up to n requests run side by side, each alone (streams, LLM engines)."""


class Slots(msgspec.Struct, frozen=True):
    """How much a replica does at once."""

    kind: SlotKind = SlotKind.BATCH
    count: int = 1


class LoadedModel(msgspec.Struct, frozen=True):
    """What a worker reports when a replica is ready."""

    platform: str
    """Free text of the Open Inference Protocol: ``onnx_onnxv1``, ``sklearn``, …"""
    signature: Signature
    slots: Slots = Slots()
    metadata: dict[str, str] = {}
    load_seconds: float = 0.0
    warmup_seconds: float = 0.0


class Format(StrEnum):
    """Artifact formats, told apart by content."""

    ONNX = "onnx"
    SKOPS = "skops"
    PICKLE = "pickle"
    JOBLIB = "joblib"
    XGBOOST_JSON = "xgboost-json"
    XGBOOST_UBJ = "xgboost-ubj"
    LIGHTGBM = "lightgbm"
    MLFLOW = "mlflow"
    TORCHSERVE = "torchserve"
    PYTHON = "python"
    ECHO = "echo"


class Artifact(msgspec.Struct, frozen=True):
    """A model on disk, as inspected (``runtimes/inspect.py``) in a short-lived worker.

    ``path`` is a file or folder; ``digest`` is ``sha256:`` + hex of its content; ``imports`` are the modules
    and names that unpickling would import."""

    path: str
    format: Format
    runtime: str
    """Name in ``runtimes/table.py``: onnx, sklearn, pickle, xgboost, lightgbm, mlflow, torchserve, python, echo."""
    digest: str
    code_bearing: bool = False
    """Loading runs code chosen by the artifact's author: pickle, joblib, cloudpickle, .mar, .py."""
    imports: tuple[str, ...] = ()
    flavor: str | None = None
    """For MLflow folders: the flavor that will be loaded, e.g. ``sklearn``."""
    attribute: str | None = None
    """For Python files: the class after the colon, ``pricer.py:Pricer``."""
    details: dict[str, str] = {}
    """What the artifact says of itself, for people: name, version and handler of a TorchServe archive."""
    warnings: tuple[str, ...] = ()
    """What is odd about it and should be told, such as a signature that is not the model's. It is served even so."""
