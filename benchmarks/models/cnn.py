"""Builds the image model: 3x224x224 floats in, ten scores out, about half a millisecond an image on one thread.

Small on purpose: what the image row measures is how 600 kB of tensor travel, so the model must not hide it. Runs in the
``tools`` environment: ``cnn.py DIR`` leaves ``cnn.onnx`` and ``cnn.npz`` (images to send and their right scores).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

IMAGE = (3, 224, 224)
CHANNELS = 64
SCORES = 10
IMAGES_TO_SEND = 8


def build(random: np.random.Generator) -> onnx.ModelProto:
    def weight(name: str, *shape: int) -> onnx.TensorProto:
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else shape[0]
        return numpy_helper.from_array((random.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["input", "kernel", "kernel_bias"], ["c"], strides=[4, 4], kernel_shape=[7, 7]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "dense", "dense_bias"], ["scores"], transB=1),
    ]
    weights = [
        weight("kernel", CHANNELS, 3, 7, 7),
        weight("kernel_bias", CHANNELS),
        weight("dense", SCORES, CHANNELS),
        weight("dense_bias", SCORES),
    ]
    images = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["rows", *IMAGE])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["rows", SCORES])
    graph = helper.make_graph(nodes, "cnn", [images], [scores], initializer=weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def main(folder: Path) -> None:
    random = np.random.default_rng(0)
    model = build(random)
    onnx.save(model, folder / "cnn.onnx")
    # Six decimals: four images are then a JSON body of about 5 MB, the size that the mixed row asks for.
    images = np.round(random.random((IMAGES_TO_SEND, *IMAGE)), 6).astype(np.float32)
    session = onnxruntime.InferenceSession(folder / "cnn.onnx", providers=["CPUExecutionProvider"])
    np.savez(folder / "cnn.npz", rows=images, scores=session.run(None, {"input": images})[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
