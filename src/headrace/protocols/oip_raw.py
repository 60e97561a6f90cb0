"""Raw requests of the binary tensor extension: header length 0, the whole body is the bytes of the only input.

Shape and datatype come from the signature; all outputs of the answer are binary.
"""

from __future__ import annotations

from headrace.core import errors, tensors
from headrace.core.models import Signature, TensorSpec
from headrace.core.requests import InferenceRequest
from headrace.core.tensors import DType, Tensor
from headrace.protocols import json_elements, raw_tensors
from headrace.protocols.protocol import Rendering


def parse_raw(body: bytes, signature: Signature) -> tuple[InferenceRequest, Rendering]:
    """Decode a raw body by the model's only input. Raises InvalidInput."""
    if len(signature.inputs) != 1 or signature.any_inputs:
        raise errors.InvalidInput(
            f"a raw request (Inference-Header-Content-Length: 0) needs a model with one input, this one takes"
            f" {len(signature.inputs)}"
        )
    spec = signature.inputs[0]
    rendering = Rendering(binary_default=True)
    if spec.dtype is DType.BYTES:
        # The body is the element itself, without a length prefix.
        shape = tuple(1 if dim == -1 else dim for dim in spec.shape)
        if tensors.element_count(shape) != 1:
            raise errors.InvalidInput(
                f"a raw request for BYTES input {spec.name!r} needs shape [1], not {list(spec.shape)}"
            )
        array = json_elements.to_array(DType.BYTES, [body]).reshape(shape)
        return InferenceRequest([Tensor(spec.name, spec.dtype, array)]), rendering
    shape = _raw_shape(spec, len(body), signature.batchable)
    return InferenceRequest([raw_tensors.read(spec.name, spec.dtype, shape, body)]), rendering


def _raw_shape(spec: TensorSpec, size: int, batchable: bool) -> tuple[int, ...]:
    shape = list(spec.shape)
    free = [at for at, dim in enumerate(shape) if dim == -1]
    if len(free) == 2 and batchable:
        shape[free.pop(0)] = 1  # one row; the bytes tell the other dimension
    if len(free) > 1:
        raise errors.InvalidInput(
            f"a raw request cannot tell the shape of input {spec.name!r} {list(spec.shape)};"
            " at most one dimension may vary"
        )
    if free:
        step = tensors.NUMPY_DTYPES[spec.dtype].itemsize
        for at, dim in enumerate(shape):
            step *= 1 if at == free[0] else dim
        if step == 0 or size % step:
            raise errors.InvalidInput(
                f"input {spec.name!r}: a raw body of {size} bytes does not fill shape"
                f" {list(spec.shape)} of {spec.dtype}"
            )
        shape[free[0]] = size // step
    return tuple(shape)
