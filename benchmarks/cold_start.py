"""``python -m benchmarks.cold_start``: how long a person waits for the first answer, and for ``headrace --help``.

The first answer is the first right one to ``POST /v2/models/fraud/infer``: the clock starts when the process is made,
a client with one kept-alive connection asks again after each refusal, without a pause of its own beyond a millisecond.
Median of ten runs, one after the other, files in the page cache, bytecode compiled (one run before that is not
counted). Targets: 2 s and 0.3 s on two cores.
"""

from __future__ import annotations

import http.client
import json
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import assets, machine
from benchmarks.processes import free_ports

RUNS = 10
GIVE_UP_SECONDS = 60.0
FIRST_ANSWER_TARGET = 2.0
HELP_TARGET = 0.3


def headrace() -> str:
    """The command as people type it."""
    found = shutil.which("headrace", path=sysconfig.get_path("scripts"))
    if found is None:
        raise SystemExit("the headrace command is not installed in this environment: pip install -e .")
    return found


def help_seconds() -> float:
    began = time.perf_counter()
    subprocess.run([headrace(), "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def first_answer_seconds(model: Path, sample: assets.Sample) -> float:
    port, management_port = free_ports(2)
    ports = ["--port", str(port), "--management-port", str(management_port)]
    row, right = sample.rows[:1], np.ravel(sample.outputs[:1])
    tensor = {"name": "input", "datatype": "FP32", "shape": list(row.shape), "data": row.ravel().tolist()}
    body = json.dumps({"inputs": [tensor]})
    with tempfile.TemporaryDirectory() as folder, Path(folder, "serve.log").open("w") as log:
        began = time.perf_counter()
        command = [headrace(), "serve", str(model), *ports, "--no-auth"]
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            answer = _ask_until_answered(port, f"/v2/models/{model.stem}/infer", body, began)
            took = time.perf_counter() - began
        finally:
            process.terminate()
            process.wait(30)
    values = next(output["data"] for output in answer["outputs"] if output["name"] == "probabilities")
    if not np.allclose(values, right, rtol=1e-5, atol=1e-6):
        raise SystemExit(f"the first answer is wrong: {values}, not {right}")
    return took


def _ask_until_answered(port: int, path: str, body: str, began: float) -> dict[str, list[dict[str, object]]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    said = ""
    while time.perf_counter() - began < GIVE_UP_SECONDS:
        try:
            connection.request("POST", path, body, {"content-type": "application/json"})
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            said = repr(error)
        else:
            if response.status == 200:
                answer: dict[str, list[dict[str, object]]] = json.loads(content)
                return answer
            said = f"{response.status} {content[:200]!r}"
        time.sleep(0.001)
    raise SystemExit(f"no answer after {GIVE_UP_SECONDS:g} s; the last one: {said}")


def measure(name: str, run: Callable[[], float], target: float) -> bool:
    run()
    seconds = sorted(run() for _ in range(RUNS))
    median = statistics.median(seconds)
    verdict = "met" if median <= target else "SHORT"
    print(f"{name}: median {median:.3f} s, {seconds[0]:.3f} to {seconds[-1]:.3f} s (target {target:g} s) {verdict}")
    return median <= target


def main() -> int:
    made = assets.prepare()
    described = machine.describe({})
    print(f"{described.cpu}, {described.cores} cores, load {described.load_before}; {RUNS} runs each")
    met = [
        measure("headrace --help", help_seconds, HELP_TARGET),
        measure(
            f"headrace serve {made.fraud_onnx.name}, first answer",
            lambda: first_answer_seconds(made.fraud_onnx, made.fraud),
            FIRST_ANSWER_TARGET,
        ),
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
