"""Every artifact from the command line: formats, folders, versions, trust, several models at once, broken ones."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from headrace.replica import execution
from headrace.runtimes.inspect import inspect
from tests import models
from tests.acceptance.clients.callers import Callers, Failed
from tests.acceptance.conftest import ZOO, runtime
from tests.serving import Event, Served, served

in_zoo = pytest.mark.xdist_group("zoo")
in_formats = pytest.mark.xdist_group("formats")


# --- every kind ------------------------------------------------------------------------------------------------


@in_zoo
@pytest.mark.parametrize("kind", ZOO)
def test_signatures_are_those_of_the_artifact(zoo: Served, kind: str) -> None:
    found = httpx.get(f"{zoo.url}/v2/models/{kind}").raise_for_status().json()
    signature = runtime(kind).signature
    for side, specs in (("inputs", signature.inputs), ("outputs", signature.outputs)):
        wanted = [{"name": spec.name, "datatype": spec.dtype, "shape": list(spec.shape)} for spec in specs]
        assert found[side] == wanted
    assert found["platform"]
    assert httpx.get(f"{zoo.url}/v2/models/{kind}/ready").status_code == 200


@in_zoo
@pytest.mark.parametrize("kind", [kind for kind in ZOO if kind != "python-stream"])
def test_answers_are_those_of_the_artifact(callers: Callers, kind: str) -> None:
    rows = 1 if kind == "onnx-fixed-batch" else 5
    inputs = models.inputs(kind, rows, seed=11)
    wanted = execution.run_batch(runtime(kind), inputs, [rows], {}, idempotent=True)
    assert not wanted.failures
    specs = callers.specs(kind)
    forms = specs.forms_for(inputs, rows)
    if kind == "echo":
        forms = forms[:4]
    for form, answer in zip(forms, callers.together([callers.ask(f, kind, specs, inputs) for f in forms]), strict=True):
        assert not isinstance(answer, Failed), (form, answer)
        assert answer.keys() == wanted.outputs.keys()
        for name, array in wanted.outputs.items():
            if array.dtype.kind == "f":
                np.testing.assert_allclose(answer[name], array, rtol=1e-5, atol=1e-6, err_msg=form)
            else:
                assert answer[name].tolist() == array.tolist(), form


@in_zoo
def test_streams_are_served(zoo: Served) -> None:
    body = {"prompt": "one two three", "times": 2}
    answer = httpx.post(f"{zoo.url}/v2/models/python-stream/generate_stream", json=body)
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
    assert [event["text"] for event in events] == ["one", "two", "three"] * 2


# --- folders, versions, broken models: one server for all of it -------------------------------------------------

BROKEN = """\
import headrace
print("a line that the model printed")

class Broken(headrace.Model):
    def load(self):
        raise FileNotFoundError("weights.bin is not here")

    def predict(self, x: headrace.Int64) -> {"x": headrace.Int64}:
        return {"x": x}
"""

TWO = """\
import headrace

class First(headrace.Model):
    def predict(self, x: headrace.Int64) -> {"y": headrace.Int64}:
        return {"y": x + 1}

class Second(headrace.Model):
    def predict(self, x: headrace.Int64) -> {"y": headrace.Int64}:
        return {"y": x + 2}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user's disk may look like."""
    root = tmp_path_factory.mktemp("formats")
    versions = {"fraud/1": "onnx", "fraud/3": "onnx-regression", "fraud/12": "onnx-int64", "churn/2": "xgboost-ubj"}
    for place, kind in versions.items():
        (root / "repository" / place).mkdir(parents=True)
        shutil.copy(models.build(kind), root / "repository" / place / f"model{models.build(kind).suffix}")
    (root / "alone").mkdir()
    shutil.copy(models.build("lightgbm"), root / "alone" / "cancer.txt")
    shutil.copy(models.build("onnx"), root / "no_suffix")
    shutil.copy(models.build("sklearn-pickle"), root / "untrusted.pkl")
    shutil.copy(models.build("sklearn-joblib"), root / "untrusted.joblib")
    (root / "garbage.onnx").write_bytes(b"\x00\xffthis is no model" * 50)
    (root / "broken.py").write_text(textwrap.dedent(BROKEN))
    (root / "two.py").write_text(textwrap.dedent(TWO))
    models.build("mlflow-sklearn", root)
    models.build("mlflow-xgboost", root)
    return root


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Served]:
    things = ("repository", "alone", "no_suffix", "untrusted.pkl", "garbage.onnx", "broken.py")
    with served(
        *(folder / thing for thing in things),
        f"joblib={folder / 'untrusted.joblib'}",
        f"{folder / 'two.py'}:First",
        f"second={folder / 'two.py'}:Second",
        f"mlflow={folder / 'cancer_mlflow'}",
        f"pyfunc={folder / 'mixed_mlflow'}",
        f"gone={folder / 'repository' / 'churn'}",
        directory=folder / "serving",
    ) as running:
        yield running


def failures(server: Served) -> dict[str, Event]:
    return {event["endpoint"]: event for event in server.events if event["type"] == "ModelFailed"}


def infer(server: Served, path: str, **tensors: Any) -> httpx.Response:
    inputs = [
        {"name": name, "datatype": datatype, "shape": list(array.shape), "data": array.ravel().tolist()}
        for name, (datatype, array) in tensors.items()
    ]
    return httpx.post(f"{server.url}/v2/models/{path}/infer", json={"inputs": inputs})


def index(server: Served) -> dict[tuple[str, str], dict[str, Any]]:
    listed = httpx.post(f"{server.url}/v2/repository/index", content=b"").json()
    return {(item["name"], item.get("version", "")): item for item in listed}


@in_formats
def test_the_highest_version_is_served_and_each_can_be_addressed(server: Served) -> None:
    metadata = httpx.get(f"{server.url}/v2/models/fraud").json()
    assert set(metadata["versions"]) == {"1", "3", "12"}
    assert [item["name"] for item in metadata["inputs"]] == ["A", "B"]
    numbers = np.arange(6).reshape(2, 3)
    answer = infer(server, "fraud", A=("INT64", numbers), B=("INT64", numbers)).json()
    assert answer["model_version"] == "12"
    assert answer["outputs"][0]["data"] == (numbers * 2).ravel().tolist()
    answer = infer(server, "fraud/versions/1", X=("FP32", np.zeros((1, 30)))).json()
    assert answer["model_version"] == "1"
    assert {item["name"] for item in answer["outputs"]} == {"label", "probabilities"}
    answer = infer(server, "fraud/versions/3", X=("FP32", np.zeros((1, 10)))).json()
    assert answer["model_version"] == "3"
    unknown = infer(server, "fraud/versions/2", X=("FP32", np.zeros((1, 10))))
    assert unknown.status_code == 404
    assert "'fraud'" in unknown.json()["error"]
    for version in ("1", "3", "12"):
        assert httpx.get(f"{server.url}/v2/models/fraud/versions/{version}/ready").status_code == 200
        assert index(server)["fraud", version]["state"] == "READY"
    assert httpx.get(f"{server.url}/v2/models/fraud/versions/2/ready").status_code == 404


@in_formats
def test_formats_are_found_from_the_content(server: Served) -> None:
    platforms = {
        name: httpx.get(f"{server.url}/v2/models/{name}").json()["platform"]
        for name in ("no_suffix", "alone", "churn", "mlflow", "two")
    }
    assert "onnx" in platforms["no_suffix"]
    assert "lightgbm" in platforms["alone"]
    assert "xgboost" in platforms["churn"]
    assert "xgboost" in platforms["mlflow"]
    assert platforms["two"] == "python"
    assert infer(server, "alone", input=("FP64", np.zeros((1, 30)))).status_code == 200
    assert infer(server, "mlflow", input=("FP32", np.zeros((1, 30)))).status_code == 200


@in_formats
def test_a_class_is_named_with_a_colon(server: Served) -> None:
    assert infer(server, "two", x=("INT64", np.array([1]))).json()["outputs"][0]["data"] == [2]
    assert infer(server, "second", x=("INT64", np.array([1]))).json()["outputs"][0]["data"] == [3]


@in_formats
@pytest.mark.parametrize(("endpoint", "file"), [("untrusted", "untrusted.pkl"), ("joblib", "untrusted.joblib")])
def test_pickles_are_refused_with_their_digest(server: Served, folder: Path, endpoint: str, file: str) -> None:
    reason = failures(server)[endpoint]["reason"]
    digest = inspect(folder / file).digest
    assert file in reason
    assert f"digest: {digest}" in reason
    assert "it would import:" in reason
    assert "sklearn" in reason
    assert f"--trust {digest}" in reason
    check_unavailable(server, endpoint, digest)


@in_formats
def test_mlflow_folders_that_run_code_are_refused(server: Served) -> None:
    reason = failures(server)["pyfunc"]["reason"]
    assert "MLflow" in reason
    digest = re.search(r"sha256:[0-9a-f]{64}", reason)
    assert digest is not None
    assert f"--trust {digest[0]}" in reason
    check_unavailable(server, "pyfunc", digest[0])


@in_formats
def test_a_broken_model_leaves_the_others_serving(server: Served) -> None:
    broken = failures(server)["broken"]
    assert "weights.bin is not here" in broken["reason"]
    assert "broken.py line 6" in broken["reason"]
    assert "a line that the model printed" in broken["log_tail"]
    check_unavailable(server, "broken", "weights.bin is not here")
    garbage = failures(server)["garbage"]
    assert "garbage.onnx" in garbage["reason"]
    check_unavailable(server, "garbage", "garbage.onnx")
    assert httpx.get(f"{server.url}/v2/health/ready").status_code == 200
    assert failures(server).keys() == {"untrusted", "joblib", "pyfunc", "broken", "garbage"}


def check_unavailable(server: Served, endpoint: str, part: str) -> None:
    """The reason is told wherever somebody may look for it."""
    entry = next(item for (name, _), item in index(server).items() if name == endpoint)
    assert entry["state"] == "UNAVAILABLE"
    assert part in entry["reason"]
    answer = infer(server, endpoint, x=("INT64", np.array([1])))
    assert answer.status_code == 503
    assert part in answer.json()["error"]
    assert httpx.get(f"{server.url}/v2/models/{endpoint}/ready").status_code == 503
    endpoints = httpx.get(f"{server.management_url}/api/v1/endpoints").raise_for_status()
    assert part in endpoints.text.replace("\\n", "\n")


@in_formats
def test_one_file_under_two_names(server: Served) -> None:
    zeros = ("FP32", np.zeros((1, 30)))
    one, other = (infer(server, name, input=zeros).json() for name in ("churn", "gone"))
    assert one["outputs"] == other["outputs"]
    assert other["model_name"] == "gone"
    assert one["model_version"] == other["model_version"] == "2"


@in_formats
def test_trusted_pickles_are_served(folder: Path) -> None:
    """By digest, by path, by folder; a digest of something else opens nothing."""
    digest = inspect(folder / "untrusted.pkl").digest
    stranger = folder / "stranger.pkl"
    stranger.write_bytes(models.build("sklearn-pickle").read_bytes() + b"\0")
    with served(
        f"by-digest={folder / 'untrusted.pkl'}",
        f"by-path={folder / 'untrusted.joblib'}",
        f"by-folder={folder / 'mixed_mlflow'}",
        f"stranger={stranger}",
        *("--trust", digest, "--trust", folder / "untrusted.joblib", "--trust", folder / "mixed_mlflow"),
        directory=folder / "trusting",
    ) as server:
        columns = {"amount": [12.5], "age": [40], "country": ["US"], "plan": ["pro"]}
        labels = {
            httpx.post(f"{server.url}/v1/models/{name}:predict", json={"inputs": columns}).json()["outputs"]["label"][0]
            for name in ("by-digest", "by-path", "by-folder")
        }
        assert labels <= {"fine", "fraud"}
        assert len(labels) == 1
        assert failures(server).keys() == {"stranger"}


SCRIPT = """\
import numpy as np
from sklearn.linear_model import LogisticRegression

import headrace

features = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [4.0, 4.0]] * 5)
model = LogisticRegression().fit(features, [0, 1, 0, 1] * 5)
if __name__ == "__main__":
    with headrace.serve(model, name="mine") as server:
        found = server.predict(features)
        assert found["label"].tolist() == model.predict(features).tolist()
        print(server.url, found["probabilities"].shape)
"""


@in_formats
def test_serve_from_a_script(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    url, shape = done.stdout.split(" ", 1)
    assert shape.strip() == "(20, 2)"
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
