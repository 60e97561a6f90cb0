"""A mosec worker around onnxruntime: Open Inference Protocol JSON in and out, dynamic batching on.

The codec is msgspec, as in Headrace and the prototype: the comparison is one of servers, not of JSON parsers.
"""

from __future__ import annotations

import msgspec
import numpy as np
from mosec import Server, Worker
from onnx_model import OnnxModel


class Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Request(msgspec.Struct):
    inputs: list[Tensor]


decode = msgspec.json.Decoder(Request).decode
encode = msgspec.json.Encoder().encode


class Onnx(Worker):
    def __init__(self) -> None:
        super().__init__()
        self.onnx = OnnxModel()

    def deserialize(self, data: bytes) -> np.ndarray:
        tensor = decode(data).inputs[0]
        return np.array(tensor.data, dtype=np.float32).reshape(tensor.shape)

    def forward(self, data: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        labels, probabilities = self.onnx.run(np.concatenate(data))
        return [(labels[i : i + 1], probabilities[i : i + 1]) for i in range(len(data))]

    def serialize(self, data: tuple[np.ndarray, np.ndarray]) -> bytes:
        label, probabilities = data
        outputs = [
            {"name": "label", "datatype": "INT64", "shape": list(label.shape), "data": label.tolist()},
            {
                "name": "probabilities",
                "datatype": "FP32",
                "shape": list(probabilities.shape),
                "data": probabilities.ravel().tolist(),
            },
        ]
        return encode({"model_name": "fraud", "outputs": outputs})


if __name__ == "__main__":
    server = Server()
    server.append_worker(Onnx, num=1, max_batch_size=64, max_wait_time=1)
    server.run()
