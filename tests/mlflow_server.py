"""A real MLflow tracking server for the tests, in processes of its own, with models that its own client has logged."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

_START_TIMEOUT_S = 90.0
COMMIT = "0123456789abcdef0123456789abcdef01234567"

SEED = """\
import json, pathlib, sys, warnings
warnings.simplefilter("ignore")
import mlflow, mlflow.sklearn, mlflow.xgboost, numpy, pandas, xgboost
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression

random = numpy.random.default_rng(0)
frame = pandas.DataFrame(random.random((50, 3)), columns=["amount", "age", "limit"])
labels = (frame["amount"] > 0.5).astype(int)
boosted = xgboost.XGBClassifier(n_estimators=3, n_jobs=1).fit(frame, labels)
other = frame.rename(columns={"limit": "balance"})
client = mlflow.MlflowClient()
found = {}
with mlflow.start_run() as run:
    mlflow.log_params({"n_estimators": 3, "seed": 0})
    mlflow.log_metrics({"auc": 0.875, "loss": float("nan")})
    mlflow.set_tags({"team": "risk", "mlflow.source.git.commit": sys.argv[1]})
    log = mlflow.xgboost.log_model
    fraud = {"pip_requirements": ["xgboost==3.0.1"], "registered_model_name": "fraud"}
    found["logged"] = log(boosted, name="boosted", signature=infer_signature(frame), **fraud).model_id
    log(boosted, name="wrong", signature=infer_signature(other), **fraud)
    linear = LinearRegression().fit(frame, labels)
    part = pathlib.Path("package/inner/part.py")
    part.parent.mkdir(parents=True)
    part.write_text("VALUE = 1\\n")
    found["nested"] = mlflow.sklearn.log_model(linear, name="linear", pip_requirements=[], code_paths=["package"],
        registered_model_name="risk", serialization_format="cloudpickle").model_id
    mlflow.log_artifact(sys.argv[2], "plain")
    lost = log(boosted, name="lost", pip_requirements=[], registered_model_name="lost")
    found["run"] = run.info.run_id
client.set_registered_model_alias("fraud", "champion", "1")
client.set_model_version_tag("fraud", "1", "approved_by", "ada")
found["lost"] = client.get_logged_model(lost.model_id).artifact_location
print(json.dumps(found))
"""


class Server:
    """``seeded``: ids of what stands in it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.seeded: dict[str, str] = {}

    @property
    def environment(self) -> dict[str, str]:
        return {"MLFLOW_TRACKING_URI": self.url, "MLFLOW_DISABLE_TELEMETRY": "true"}

    def run(self, code: str, *arguments: str | Path) -> Any:
        """Run a script with MLflow's client; the last line that it prints is JSON."""
        command = [sys.executable, "-c", code, *map(str, arguments)]
        environment = {**os.environ, **self.environment}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, env=environment, cwd=self.folder, check=False
        )
        assert done.returncode == 0, done.stderr
        # MLflow prints links to its pages before and after.
        return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))

    def seed(self, plain: Path) -> None:
        """Models ``fraud`` (version 1, ``champion``, and 2 with a wrong signature), ``risk`` (code-bearing) and
        ``lost`` (its files are gone), and the file ``plain`` among the artifacts of their run."""
        self.seeded = self.run(SEED, COMMIT, plain)
        kept = self.folder / "artifacts" / self.seeded["lost"].partition(":/")[2].lstrip("/")
        for file in kept.rglob("*"):
            if file.is_file():
                file.unlink()


@contextmanager
def running(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """An empty server with SQLite and artifacts in ``folder``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    settings = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **settings, **(environment or {})},
            cwd=folder,
            start_new_session=True,  # the server is several processes, ended together
        )
    try:
        server = Server(f"http://127.0.0.1:{port}", folder)
        _wait_until_it_answers(server, process, log)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def _wait_until_it_answers(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{server.url}/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise RuntimeError(f"MLflow's server did not start (exit code {process.poll()}): {log.read_text()[-3000:]}")
