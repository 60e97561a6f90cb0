"""Real TorchServe archives, made by ``torch-model-archiver`` in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

XGBOOST = metadata.version("xgboost-cpu")
"""Another release predicts otherwise: the archive asks for the one that wrote its model."""

HANDLER = '''\
import json
import os
from pathlib import Path

import numpy as np
import xgboost

from labels import NAMES

if "RAN_MARK" in os.environ:
    Path(os.environ["RAN_MARK"]).touch()


class Fraud:
    """Rows of 30 numbers as JSON -> {"label", "score"}; a row that is {"fail": code} is answered with that status."""

    def initialize(self, context):
        self.context = context
        folder = Path(context.system_properties["model_dir"])
        self.model = xgboost.Booster(model_file=folder / context.manifest["model"]["serializedFile"])
        self.offset = context.model_yaml_config.get("handler", {}).get("offset", 0)

    def preprocess(self, requests):
        rows = []
        for index, request in enumerate(requests):
            row = request.get("data") or request.get("body")
            row = json.loads(row) if isinstance(row, (bytes, bytearray, str)) else row
            if isinstance(row, dict):
                self.context.set_response_status(row["fail"], "told to fail", index)
                row = [0.0] * 30
            rows.append(row)
        return np.array(rows, dtype=np.float32)

    def inference(self, rows):
        return self.model.predict(xgboost.DMatrix(rows))

    def postprocess(self, scores):
        self.context.metrics.add_counter("rows", len(scores))
        return [{"label": NAMES[int(s > 0.5)], "score": float(s) + self.offset} for s in scores]

    def handle(self, requests, context):
        return self.postprocess(self.inference(self.preprocess(requests)))
'''

LABELS = 'NAMES = ("malignant", "benign")\n'


def archive(folder: Path, handler: str, *, name: str = "model", version: str = "1.0", **files: str | Path) -> Path:
    """``folder/name.mar`` with the handler's source, or one of TorchServe's own by its name.

    ``files``: ``serialized_file``, ``extra_files``, ``requirements_file``, ``config_file``, as paths; ``entry`` is the
    name of the function or class in the handler."""
    folder.mkdir(parents=True, exist_ok=True)
    entry = files.pop("entry", None)
    if "\n" in handler:
        (folder / "handler.py").write_text(handler, encoding="utf-8")
        handler = "handler.py" if entry is None else f"{folder / 'handler'}:{entry}"
    command = [sys.executable, "-m", "model_archiver.model_packaging", "--model-name", name, "--version", version]
    command += ["--handler", handler, "--export-path", str(folder), "--force"]
    for option, path in files.items():
        command += [f"--{option.replace('_', '-')}", str(path)]
    # The archiver gathers files in a temporary folder of the model's name: tests that run at once need their own.
    environment = {**os.environ, "TMPDIR": str(folder)}
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, env=environment, cwd=folder)
    return folder / f"{name}.mar"


def fraud(folder: Path, model: Path) -> Path:
    """An archive whose handler runs the XGBoost model at ``model``, with every kind of file that archives have."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labels.py").write_text(LABELS)
    (folder / "requirements.txt").write_text(f"xgboost-cpu=={XGBOOST}\nnumpy>=1.24\n")
    (folder / "model-config.yaml").write_text("handler:\n  offset: 1\n")
    return archive(
        folder,
        HANDLER,
        name="fraud",
        version="2.1",
        serialized_file=model,
        extra_files=folder / "labels.py",
        requirements_file=folder / "requirements.txt",
        config_file=folder / "model-config.yaml",
    )
