"""A KServe custom model around onnxruntime: REST and gRPC, Open Inference Protocol.

KServe listens on every interface and has no option for it. The benchmark must stay on loopback, so the two server
constructors are wrapped to change the address and nothing else.
"""

from __future__ import annotations

import os
from typing import Any

import grpc.aio
import uvicorn


def listen_on_loopback() -> None:
    make_config = uvicorn.Config.__init__
    make_server = grpc.aio.server

    def config(self: uvicorn.Config, *args: Any, **options: Any) -> None:
        make_config(self, *args, **{**options, "host": "127.0.0.1"})

    def server(*args: Any, **options: Any) -> grpc.aio.Server:
        made = make_server(*args, **options)
        add_port = made.add_insecure_port
        made.add_insecure_port = lambda address: add_port(address.replace("[::]", "127.0.0.1"))
        return made

    uvicorn.Config.__init__ = config
    grpc.aio.server = server


listen_on_loopback()  # before kserve is imported: it keeps references to both

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer  # noqa: E402
from kserve.utils.utils import generate_uuid  # noqa: E402
from onnx_model import OnnxModel  # noqa: E402

DATATYPES = {"float32": "FP32", "int64": "INT64"}


class Onnx(Model):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.onnx = OnnxModel()
        self.ready = True

    async def predict(self, payload: InferRequest, *_: Any, **__: Any) -> InferResponse:
        outputs = []
        results = self.onnx.run(payload.inputs[0].as_numpy())
        for name, value in zip(self.onnx.outputs, results, strict=True):
            output = InferOutput(name=name, shape=list(value.shape), datatype=DATATYPES[value.dtype.name])
            output.set_data_from_numpy(value, binary_data=False)
            outputs.append(output)
        # KServe refuses to encode a response that has no id.
        return InferResponse(response_id=payload.id or generate_uuid(), model_name=self.name, infer_outputs=outputs)


if __name__ == "__main__":
    ModelServer().start([Onnx(os.environ["BENCH_NAME"])])
