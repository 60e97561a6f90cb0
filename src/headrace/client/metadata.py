"""What a server says about a model: the metadata document of the Open Inference Protocol, typed."""

from __future__ import annotations

import msgspec

from headrace.core import errors
from headrace.core.models import TensorSpec
from headrace.core.tensors import DType


class ModelMetadata(msgspec.Struct, frozen=True):
    """Typed inputs and outputs of a served model. ``inputs`` is empty for a model that takes any tensors."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def columns(self) -> bool:
        """The inputs are columns of a table: one value per row each."""
        return bool(self.inputs) and all(spec.shape == (-1,) for spec in self.inputs)

    @property
    def batchable(self) -> bool:
        """Dimension 0 of every input counts rows. OIP does not say so; a free first dimension everywhere does."""
        return bool(self.inputs) and all(spec.shape[:1] == (-1,) for spec in self.inputs)


class _WireTensor(msgspec.Struct):
    name: str
    datatype: DType
    shape: tuple[int, ...]


class _WireMetadata(msgspec.Struct):
    name: str
    platform: str = ""
    versions: tuple[str, ...] = ()
    inputs: tuple[_WireTensor, ...] = ()
    outputs: tuple[_WireTensor, ...] = ()


def decode_metadata(body: bytes) -> ModelMetadata:
    """Read the answer of ``GET /v2/models/{model}``. Raises Unsupported when it is something else."""
    try:
        wire = msgspec.json.decode(body, type=_WireMetadata)
    except msgspec.DecodeError as error:
        raise errors.Unsupported(
            f"the server's model metadata is not that of the Open Inference Protocol: {error}"
        ) from error
    return ModelMetadata(
        name=wire.name,
        versions=wire.versions,
        platform=wire.platform,
        inputs=tuple(TensorSpec(t.name, t.datatype, t.shape) for t in wire.inputs),
        outputs=tuple(TensorSpec(t.name, t.datatype, t.shape) for t in wire.outputs),
    )
