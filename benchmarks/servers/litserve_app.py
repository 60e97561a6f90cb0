"""A LitServe API around onnxruntime with batching on: ``{"input": [30 floats]}`` in, ``{"output": [...]}`` out.

LitServe hands the annotations to FastAPI, which needs them as types: no ``from __future__ import annotations``.
"""

import sys
from typing import Any

import litserve
import numpy as np
from onnx_model import OnnxModel


class Onnx(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.onnx = OnnxModel()

    def decode_request(self, request: dict[str, Any]) -> np.ndarray:
        return np.asarray(request["input"], dtype=np.float32)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self.onnx.last(rows)

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        return {"output": output.tolist()}


if __name__ == "__main__":
    api = Onnx(max_batch_size=32, batch_timeout=0.002)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
