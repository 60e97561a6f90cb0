"""Which outputs a response carries: the caller's selection, its order, and the classification extension."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from headrace.core import errors
from headrace.core.models import Signature
from headrace.core.requests import InferenceResponse
from headrace.core.tensors import Array, DType, Tensor, bf16_to_fp32
from headrace.protocols import request_parameters
from headrace.protocols.json_elements import FLOATS
from headrace.protocols.protocol import Rendering


def check_wanted(names: Iterable[str], signature: Signature) -> tuple[str, ...]:
    """Requested output names without repetition. Raises InvalidInput for one the model does not have."""
    wanted = tuple(dict.fromkeys(names))
    if signature.outputs and not signature.any_inputs:
        known = [spec.name for spec in signature.outputs]
        for name in wanted:
            if name not in known:
                raise _unknown(name, known)
    return wanted


def classification_of(name: str, parameters: Mapping[str, Any]) -> int | None:
    """How many classes a requested output asks for; None: the plain tensor. Raises InvalidInput."""
    top = request_parameters.count(parameters, "classification")
    if top == 0:
        raise errors.InvalidInput(f"output {name!r}: classification asks for 0 classes; expected at least 1")
    return top


def select(response: InferenceResponse, rendering: Rendering, signature: Signature) -> list[Tensor]:
    """The outputs to send, in the order asked for, classified where that was asked.

    Raises InvalidInput when a dynamic model did not give a requested output."""
    outputs = response.outputs
    if rendering.wanted is not None:
        by_name = {tensor.name: tensor for tensor in outputs}
        for name in rendering.wanted:
            if name not in by_name:
                raise _unknown(name, list(by_name))
        outputs = [by_name[name] for name in rendering.wanted]
    if rendering.classification:
        outputs = [_classified(tensor, rendering.classification, signature) for tensor in outputs]
    return outputs


def _unknown(name: str, known: list[str]) -> errors.InvalidInput:
    return errors.InvalidInput(f"unknown output {name!r}; the model gives {', '.join(map(repr, known)) or 'none'}")


def _classified(tensor: Tensor, classification: dict[str, int], signature: Signature) -> Tensor:
    top = classification.get(tensor.name)
    if top is None:
        return tensor
    labels = next((spec.labels for spec in signature.outputs if spec.name == tensor.name), None)
    return classify(tensor, top, labels, signature.batchable)


def classify(tensor: Tensor, top: int, labels: tuple[str, ...] | None, rows: bool) -> Tensor:
    """The ``top`` largest values as BYTES ``value:index[:label]``, descending; shape [rows, k], or [k] without rows.

    Raises InvalidInput for outputs that are no numbers."""
    if tensor.dtype is DType.BYTES:
        raise errors.InvalidInput(f"output {tensor.name!r}: BYTES values cannot be classified")
    values = bf16_to_fp32(tensor.array) if tensor.dtype is DType.BF16 else tensor.array
    batched = rows and values.ndim > 0
    # Row count first: reshape cannot deduce -1 when there are no rows.
    classes = values.size // values.shape[0] if batched and values.shape[0] else values.size
    table = values.reshape(values.shape[0] if batched else 1, classes)
    order = _descending(table)[:, :top]
    picked = np.take_along_axis(table, order, axis=1)
    # Nine digits tell any two float32 apart; float64 needs repr.
    text = "{!r}" if tensor.dtype is DType.FP64 else "{:.9g}" if tensor.dtype in FLOATS else "{:d}"
    flat = [
        _entry(text.format(value), index, labels)
        for value, index in zip(picked.ravel().tolist(), order.ravel().tolist(), strict=True)
    ]
    out = np.empty(len(flat), dtype=object)
    out[:] = flat
    return Tensor(tensor.name, DType.BYTES, out.reshape(order.shape if batched else order.shape[1:]))


def _descending(table: Array) -> Array:
    # Reversed twice, so that equal values keep the order of their indices.
    ascending = np.argsort(table[:, ::-1], axis=1, kind="stable")
    order: Array = (table.shape[1] - 1 - ascending)[:, ::-1]
    return order


def _entry(value: str, index: int, labels: tuple[str, ...] | None) -> bytes:
    if labels is not None and index < len(labels):
        return f"{value}:{index}:{labels[index]}".encode()
    return f"{value}:{index}".encode()
