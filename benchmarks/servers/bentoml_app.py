"""A BentoML service around onnxruntime with adaptive batching on: ``{"input": [[30 floats]]}`` in, an array out."""

from __future__ import annotations

import bentoml
import numpy as np
from onnx_model import OnnxModel


@bentoml.service(
    workers=1,
    traffic={"timeout": 60, "max_concurrency": 100_000},
    logging={"access": {"enabled": False}},
)
class Fraud:
    def __init__(self) -> None:
        self.onnx = OnnxModel()

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=32, max_latency_ms=1000)
    def predict(self, input: np.ndarray) -> np.ndarray:
        return self.onnx.last(input)
