"""An MLServer runtime around onnxruntime, and the settings files that MLServer reads.

``mlserver_app.py DIR HTTP_PORT GRPC_PORT METRICS_PORT`` writes the settings; ``mlserver start DIR`` then serves. The
codecs are called directly: it is the fastest form that MLServer's API allows. ``BENCH_PARALLEL`` is the number of
worker processes (0: the model runs in the server), ``BENCH_BATCH=1`` turns adaptive batching on.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from onnx_model import OnnxModel


class Onnx(MLModel):
    async def load(self) -> bool:
        self._onnx = OnnxModel()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        results = self._onnx.run(NumpyCodec.decode_input(payload.inputs[0]))
        named = zip(self._onnx.outputs, results, strict=True)
        outputs = [NumpyCodec.encode_output(name, value) for name, value in named]
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=outputs)


def write_settings(folder: Path, http_port: int, grpc_port: int, metrics_port: int) -> None:
    quiet = {"level": "WARNING"}
    server = {
        "host": "127.0.0.1",
        "http_port": http_port,
        "grpc_port": grpc_port,
        "metrics_port": metrics_port,
        "parallel_workers": int(os.environ["BENCH_PARALLEL"]),
        "debug": False,
        "metrics_dir": str(folder / "metrics"),
        "environments_dir": str(folder / "environments"),
        "logging_settings": {
            "version": 1,
            "disable_existing_loggers": False,
            "root": quiet,
            "loggers": {"mlserver": quiet, "mlserver.rest": quiet, "uvicorn.access": quiet},
        },
    }
    model: dict[str, str | float] = {"name": os.environ["BENCH_NAME"], "implementation": "mlserver_app.Onnx"}
    if os.environ["BENCH_BATCH"] == "1":
        model |= {"max_batch_size": 32, "max_batch_time": 0.002}
    (folder / "metrics").mkdir(parents=True, exist_ok=True)
    (folder / "model").mkdir(exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(server, indent=2))
    (folder / "model" / "model-settings.json").write_text(json.dumps(model, indent=2))


if __name__ == "__main__":
    write_settings(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
