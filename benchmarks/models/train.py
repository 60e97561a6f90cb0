"""Trains the bench model and writes it in every form that a server needs.

Runs in the ``tools`` environment (XGBoost, onnxmltools), not in the harness. ``train.py DIR`` leaves ``fraud.onnx``
(outputs ``label`` and ``probabilities``), ``fraud.pkl`` (the same model for the textbook server) and ``fraud.npz``
(rows to send and the probabilities that XGBoost itself gives for them: every server's answers are checked against it).
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import onnx
import xgboost
from onnxmltools.convert import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from sklearn.datasets import make_classification

FEATURES = 30
ROWS_TO_SEND = 256


def main(folder: Path) -> None:
    rows, labels = make_classification(4000, FEATURES, n_informative=12, flip_y=0.05, random_state=0)
    # Six decimals: the text form in a JSON body then parses to the same float32 in every server.
    rows = np.round(rows, 6).astype(np.float32)
    model = xgboost.XGBClassifier(n_estimators=100, max_depth=6, learning_rate=0.1, n_jobs=1, random_state=0)
    model.fit(rows, labels)
    sent = rows[:ROWS_TO_SEND]
    probabilities = model.predict_proba(sent).astype(np.float32)
    (folder / "fraud.pkl").write_bytes(pickle.dumps(model))
    converted = convert_xgboost(model, initial_types=[("input", FloatTensorType([None, FEATURES]))], target_opset=15)
    onnx.save(converted, folder / "fraud.onnx")
    np.savez(folder / "fraud.npz", rows=sent, probabilities=probabilities, labels=probabilities.argmax(axis=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
