"""A real TorchServe archive from ``models push`` to answers over REST, and never run before somebody vouches for it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import xgboost

import headrace
from tests import models, registry_server, torchserve
from tests.serving import eventually, served


def command(*arguments: str | Path, mark: Path) -> Any:
    line = [sys.executable, "-m", "headrace.cli.main", "models", *map(str, arguments), "--json"]
    environment = {**os.environ, "RAN_MARK": str(mark)}
    done = subprocess.run(line, capture_output=True, check=True, text=True, timeout=60, env=environment)
    return json.loads(done.stdout)


def test_an_archive_is_pushed_refused_vouched_for_and_served(tmp_path: Path) -> None:
    mark, state, model = tmp_path / "ran", tmp_path / "state", models.build("xgboost-ubj")
    path = torchserve.fraud(tmp_path, model)
    requirements = (tmp_path / "requirements.txt").read_text()
    [pushed] = command("push", "fraud", path, "--state", state, mark=mark)
    draft = pushed["version"]
    assert pushed["runnable"] is False
    assert draft["artifact"]["details"]["handler"] == "handler.py"
    assert draft["requirements"] == "requirements.txt"
    assert draft["provenance"]["packages"] == {"xgboost-cpu": torchserve.XGBOOST}
    command("pull", "fraud@1", tmp_path / "copy", "--state", state, mark=mark)
    assert (tmp_path / "copy" / "requirements.txt").read_text() == requirements
    environment = {"RAN_MARK": str(mark), "HEADRACE_STATE": str(state)}
    with served("fraud@1", directory=tmp_path / "run", environment=environment) as server:
        failed = next(event for event in server.events if event["type"] == "ModelFailed")
        assert "requirements.txt asks for packages" in failed["reason"]
        assert failed["reason"].endswith("headrace models trust fraud@1")
    assert not mark.exists(), "the handler ran though nobody vouched for it"
    command("trust", "fraud@1", "--state", state, mark=mark)
    features = models.inputs("xgboost-ubj", 3)["input"]
    bodies = [json.dumps(row.tolist()) for row in features]
    expected = xgboost.Booster(model_file=model).predict(xgboost.DMatrix(features)) + 1
    with served("fraud@1", directory=tmp_path / "run2", environment=environment) as server:
        answer = httpx.post(f"{server.url}/v1/models/fraud:predict", json={"instances": bodies}).raise_for_status()
        scores = [json.loads(text)["score"] for text in answer.json()["predictions"]]
        np.testing.assert_allclose(scores, expected, rtol=1e-6)
        tensor = {"name": "data", "datatype": "BYTES", "shape": [3], "data": bodies}
        request = {"inputs": [tensor], "parameters": {"content_type": "application/json"}}
        answer = httpx.post(f"{server.url}/v2/models/fraud/infer", json=request).raise_for_status()
        scores = [json.loads(text)["score"] for text in answer.json()["outputs"][0]["data"]]
        np.testing.assert_allclose(scores, expected, rtol=1e-6)
        refused = httpx.post(f"{server.url}/v1/models/fraud:predict", json={"instances": ['{"fail": 422}']})
        assert refused.status_code == 400
        assert "the handler answered with status 422 told to fail" in refused.text
    assert mark.exists()


def test_an_archive_pushed_from_python_keeps_its_requirements(tmp_path: Path) -> None:
    path = torchserve.fraud(tmp_path, models.build("xgboost-ubj"))
    with (
        registry_server.owning(tmp_path / "state") as server,
        headrace.Client(management_url=server.url) as client,
    ):
        [pushed] = client.models.push(path, "fraud")
        draft = pushed.version.draft
        assert (draft.requirements, draft.provenance.packages) == (
            "requirements.txt",
            {"xgboost-cpu": torchserve.XGBOOST},
        )
        assert draft.artifact.details["model_version"] == "2.1"
        client.models.pull("fraud@1", tmp_path / "copy")
    content = (tmp_path / "requirements.txt").read_bytes()
    assert (tmp_path / "copy" / "requirements.txt").read_bytes() == content
    assert (tmp_path / "copy" / "model" / "fraud.mar").read_bytes() == path.read_bytes()


def test_a_file_on_the_command_line_is_served_when_it_is_trusted(tmp_path: Path) -> None:
    source = "def handle(data, context):\n    return data and [bytes(row['image'])[::-1] for row in data]\n"
    path = torchserve.archive(tmp_path, source, name="reversed")
    runtime = tmp_path / "runtime"
    arguments = (path, "--trust", path, "--option", "field=image")
    body = {"instances": [{"b64": base64.b64encode(b"\x89PNG").decode()}]}
    expected = {"predictions": [{"b64": base64.b64encode(b"GNP\x89").decode()}]}
    with served(*arguments, directory=tmp_path, environment={"HEADRACE_RUNTIME_DIR": str(runtime)}) as server:
        url = f"{server.url}/v1/models/reversed:predict"
        assert httpx.post(url, json=body).raise_for_status().json() == expected
        [unpacked] = (runtime / "scratch").glob("model-*")
        assert (unpacked / "handler.py").read_text() == source
        server.children("replica.worker")[0].kill()
        eventually(lambda: [folder for folder in (runtime / "scratch").glob("model-*") if folder != unpacked])
        assert eventually(lambda: httpx.post(url, json=body).is_success)
        assert len(list((runtime / "scratch").glob("model-*"))) == 1, "what the dead worker left is removed"
    assert list((runtime / "scratch").glob("model-*")) == []
