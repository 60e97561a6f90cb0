"""The model behind every peer: one loader, so that all of them run onnxruntime with the same session options.

``BENCH_MODEL`` names the .onnx file. Imported inside the peers' own environments: numpy and onnxruntime only.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime


class OnnxModel:
    """Pickled by name of file, because some servers send the model object to their child processes."""

    def __init__(self, path: str | None = None) -> None:
        self.path = Path(path or os.environ["BENCH_MODEL"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name
        self.outputs = [output.name for output in self.session.get_outputs()]

    def __reduce__(self) -> tuple[type[OnnxModel], tuple[str]]:
        return OnnxModel, (str(self.path),)

    def run(self, rows: np.ndarray) -> list[np.ndarray]:
        """Every output, in the model's order."""
        return self.session.run(None, {self.input: np.ascontiguousarray(rows, dtype=np.float32)})

    def last(self, rows: np.ndarray) -> np.ndarray:
        """The last output only: probabilities or scores."""
        return self.session.run(self.outputs[-1:], {self.input: np.ascontiguousarray(rows, dtype=np.float32)})[0]
