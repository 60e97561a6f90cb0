"""The models and the rows to send, trained once and kept in ``benchmarks/.assets``."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import environments
from benchmarks.dialects import Rows

FOLDER = environments.HERE / ".assets"
MODELS = environments.HERE / "models"
SLOW = MODELS / "slow.py"


@dataclass(frozen=True)
class Sample:
    """Inputs and the outputs that are right for them, row by row."""

    rows: Rows
    outputs: Rows


@dataclass(frozen=True)
class Assets:
    fraud_onnx: Path
    fraud_pickle: Path
    cnn_onnx: Path
    fraud: Sample
    cnn: Sample

    @property
    def slow(self) -> Sample:
        return Sample(self.fraud.rows, self.fraud.rows.sum(axis=1))


def prepare() -> Assets:
    for script, left in (("train.py", "fraud.npz"), ("cnn.py", "cnn.npz")):
        source, result = MODELS / script, FOLDER / left
        if not result.exists() or result.stat().st_mtime < source.stat().st_mtime:
            FOLDER.mkdir(exist_ok=True)
            print(f"  making {left} …", flush=True)
            subprocess.run([environments.python_of("tools"), source, FOLDER], check=True)
    fraud, cnn = np.load(FOLDER / "fraud.npz"), np.load(FOLDER / "cnn.npz")
    return Assets(
        fraud_onnx=FOLDER / "fraud.onnx",
        fraud_pickle=FOLDER / "fraud.pkl",
        cnn_onnx=FOLDER / "cnn.onnx",
        fraud=Sample(fraud["rows"], fraud["probabilities"]),
        cnn=Sample(cnn["rows"], cnn["scores"]),
    )
