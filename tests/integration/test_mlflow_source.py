"""Models pushed from a real MLflow server: aliases become numbers, and what their runs know is kept."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

# `tests` is a namespace package of the repository; pytest's importlib mode does not put the root on the path.
_ROOT = str(Path(__file__).parents[2])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

from headrace.app.registry.pushing import PushRequest, push  # noqa: E402
from headrace.app.state.registry_state import locate, open_registry  # noqa: E402
from headrace.core import errors  # noqa: E402
from tests import mlflow_server, models, registry_server  # noqa: E402
from tests.serving import served  # noqa: E402

pytestmark = pytest.mark.xdist_group("mlflow")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mlflow_server.Server]:
    with mlflow_server.running(tmp_path_factory.mktemp("mlflow")) as running:
        running.seed(models.build("lightgbm"))
        yield running


@pytest.fixture
def run(tmp_path: Path, server: mlflow_server.Server) -> Run:
    """``headrace models …`` in a process: exit code, stdout, stderr. ``tracking`` is where MLflow is said to be."""

    def invoke(*arguments: str, tracking: str | None = server.url, path: Path | None = None) -> tuple[int, str, str]:
        environment = {**os.environ, "HEADRACE_STATE": str(tmp_path / "state")}
        environment.pop("MLFLOW_TRACKING_URI", None)
        if tracking is not None:
            environment["MLFLOW_TRACKING_URI"] = tracking
        if path is not None:
            environment["PYTHONPATH"] = os.pathsep.join((str(path), environment.get("PYTHONPATH", "")))
        command = [sys.executable, "-m", "headrace.cli.main", "models", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=110, env=environment, check=False)
        return done.returncode, done.stdout, done.stderr

    return invoke


def pushed(run: Run, *arguments: str, **more: Any) -> Any:
    code, out, err = run("push", *arguments, "--json", **more)
    assert code == 0, out + err
    [version] = json.loads(out)
    return version


def test_an_alias_is_resolved_and_its_story_kept(run: Run, server: mlflow_server.Server, tmp_path: Path) -> None:
    found = pushed(run, "risk-fraud", "mlflow:/models:/fraud@champion", "--metric", "recall=0.5", "--metadata", "a=b")
    draft = found["version"]
    assert (draft["ref"], draft["artifact"]["flavor"], found["runnable"]) == ("risk-fraud@1", "xgboost", True)
    provenance, tracked = draft["provenance"], draft["provenance"]["tracked"]
    assert provenance["source"] == "mlflow:/models:/fraud@champion"
    assert provenance["git_sha"] == mlflow_server.COMMIT
    assert provenance["metrics"] == {"auc": 0.875, "recall": 0.5}
    assert provenance["metadata"] == {"a": "b"}
    assert provenance["packages"]["xgboost"] == "3.0.1"
    assert (tracked["uri"], tracked["server"]) == ("models:/fraud/1", server.url)
    assert tracked["run_id"] == server.seeded["run"]
    assert tracked["params"] == {"n_estimators": "3", "seed": "0"}
    assert tracked["tags"].items() >= {"team": "risk", "approved_by": "ada"}.items()
    assert found["notes"] == ["the metric loss is nan, so it is left out"]
    assert draft["artifact"]["details"]["signature"] == "as in the model's file"
    files = {file["path"] for file in draft["files"]}
    assert {"model/MLmodel", "model/model.ubj", "model/requirements.txt"} <= files
    assert "model/registered_model_meta" not in files, "MLflow's client adds it, the model has none"
    text = run("show", "risk-fraud@1")[1]
    assert f"models:/fraud/1 at {server.url}, run {server.seeded['run']}" in text
    assert "team=risk" in text
    assert "n_estimators=3" in text


@pytest.mark.parametrize(
    ("source", "ref", "uri"),
    [
        ("models:/fraud/1", "fraud@1", "models:/fraud/1"),
        ("runs:/{run}/boosted", "boosted@1", "runs:/{run}/boosted"),
        ("mlflow:runs:/{run}/boosted/", "boosted@1", "runs:/{run}/boosted"),
        ("models:/{logged}", "boosted@1", "models:/{logged}"),
        ("runs:/{run}/plain/cancer.txt", "cancer@1", "runs:/{run}/plain/cancer.txt"),
    ],
)
def test_every_form_of_a_source(run: Run, server: mlflow_server.Server, source: str, ref: str, uri: str) -> None:
    found = pushed(run, source.format(**server.seeded), "--tracking-uri", server.url, tracking=None)["version"]
    assert found["ref"] == ref
    assert found["provenance"]["tracked"]["uri"] == uri.format(**server.seeded)
    assert found["provenance"]["tracked"]["run_id"] == server.seeded["run"]
    assert found["provenance"]["metrics"] == {"auc": 0.875}


def test_a_signature_that_is_not_the_models_is_told(run: Run) -> None:
    code, out, err = run("push", "mlflow:/models:/fraud/2")
    assert code == 0, err
    assert "the model has features that the signature lacks: limit" in out
    assert "the signature has columns that the model lacks: balance" in out
    assert "differs from the model's file" in run("show", "fraud@1")[1]


def test_code_of_a_registry_needs_trust_like_any_other(run: Run) -> None:
    found = pushed(run, "mlflow:/models:/risk/1")
    assert (found["version"]["artifact"]["code_bearing"], found["runnable"]) == (True, False)
    assert pushed(run, "mlflow:/models:/risk/1", "--trust")["runnable"] is True


@pytest.mark.parametrize("source", ["mlflow:/models:/risk/1", "models:/{nested}", "runs:/{run}/linear"])
def test_bytes_are_told_on_their_way(server: mlflow_server.Server, tmp_path: Path, source: str) -> None:
    source = source.format(**server.seeded)
    moved: dict[str, int] = {}
    totals: dict[str, int] = {}

    def progress(what: str, count: int, total: int) -> None:
        moved[what] = moved.get(what, 0) + count
        totals[what] = total

    with open_registry(locate(str(tmp_path / "state"), None, None, {})) as state:
        [found] = push(state, PushRequest(source, model="x", tracking_uri=server.url), progress)
    assert "model/code/package/inner/part.py" in {file.path for file in found.version.draft.files}
    assert totals == {source: found.version.size, "x": found.version.size}
    assert totals["x"] == moved["x"] <= moved[source], "MLflow adds a file of its own that is not kept"


def test_a_server_that_owns_the_registry_keeps_the_same(run: Run, server: mlflow_server.Server, tmp_path: Path) -> None:
    with registry_server.owning(tmp_path / "state"):
        found = pushed(run, "mlflow:/models:/fraud/2", "--state", str(tmp_path / "state"))
    provenance = found["version"]["provenance"]
    assert (provenance["tracked"]["uri"], provenance["tracked"]["run_id"]) == ("models:/fraud/2", server.seeded["run"])
    assert (provenance["git_sha"], provenance["metrics"]) == (mlflow_server.COMMIT, {"auc": 0.875})
    assert found["version"]["requirements"] is None, "it lists all that the training had: it runs in the server's own"
    assert found["version"]["provenance"]["packages"]
    assert "the signature has columns that the model lacks: balance" in found["notes"]
    assert found["version"]["artifact"]["warnings"] == found["notes"][1:]


def test_a_model_of_the_registry_is_served(run: Run, tmp_path: Path) -> None:
    pushed(run, "mlflow:/models:/fraud@champion")
    environment = {"HEADRACE_STATE": str(tmp_path / "state")}
    with served("fraud@1", directory=tmp_path / "run", environment=environment) as running:
        rows = {"instances": [{"amount": 0.9, "age": 0.5, "limit": 0.5}, {"amount": 0.1, "age": 0.5, "limit": 0.5}]}
        answer = httpx.post(f"{running.url}/v1/models/fraud:predict", json=rows).raise_for_status().json()
    assert [row["label"] for row in answer["predictions"]] == [1, 0]


@pytest.mark.parametrize(
    ("source", "code", "says"),
    [
        ("models:/nope@champion", 2, "does not have models:/nope@champion: RESOURCE_DOES_NOT_EXIST"),
        ("models:/fraud@nope", 2, "MLflow's model 'fraud' has no alias 'nope'; it has champion → 1"),
        ("models:/fraud/9", 2, "does not have models:/fraud/9"),
        ("models:/fraud/Production", 2, "write a number, or NAME@ALIAS"),
        ("models:/fraud", 2, "says not which version: write models:/fraud@ALIAS or models:/fraud/3"),
        ("mlflow:/fraud", 2, "names nothing in MLflow: write models:/NAME@ALIAS"),
        ("runs:/{run}/nope", 2, "does not have runs:/{run}/nope"),
        ("runs:/00000000000000000000000000000000/boosted", 2, "Run with id=0000"),
        ("models:/m-00000000000000000000000000000000", 2, "Logged model with ID"),
        ("models:/lost/1", 2, "MLflow has no artifact at models:/lost/1: it was deleted, or never logged"),
    ],
)
def test_what_is_not_there_is_named(run: Run, server: mlflow_server.Server, source: str, code: int, says: str) -> None:
    found, out, err = run("push", "x", source.format(**server.seeded))
    assert (found, out) == (code, "")
    assert says.format(**server.seeded) in err
    assert "Traceback" not in err
    assert run("list", "--json")[1] == "[]\n", "nothing was registered"


def test_a_server_that_is_not_there_is_said_without_its_password(run: Run) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{probe.getsockname()[1]}"
        # Bound and not listening: nobody else gets the port, and nobody answers.
        code, _, err = run("push", "fraud", "models:/fraud/1", tracking=f"http://ada:secret@{place}")
    assert code == 1
    assert f"MLflow at http://{place} cannot be reached; is it running?" in err
    assert "secret" not in err
    code, _, err = run("push", "fraud", "models:/fraud/1", tracking=None)
    assert code == 2
    assert "say where MLflow is: --tracking-uri http://HOST:5000, or MLFLOW_TRACKING_URI" in err
    code, _, err = run("push", "fraud", "models:/fraud/1", tracking="nonsense://x")
    assert code == 1
    assert "unsupported URI 'nonsense://x'" in err


def test_credentials_of_the_server_are_not_kept(run: Run, server: mlflow_server.Server) -> None:
    found = pushed(run, "models:/fraud/1", tracking=server.url.replace("//", "//ada:secret@"))
    assert found["version"]["provenance"]["tracked"]["server"] == server.url
    assert "secret" not in json.dumps(found)


@contextmanager
def listening(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """The URL of a server in this process."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{other.server_address[1]}"
        finally:
            other.shutdown()
            thread.join()


class Stranger(http.server.BaseHTTPRequestHandler):
    """A web server that knows nothing of MLflow."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: Any) -> None:
        pass


def test_another_server_is_no_mlflow(run: Run) -> None:
    with listening(Stranger) as place:
        code, _, err = run("push", "fraud", "models:/fraud/1", tracking=place)
    assert code == 1
    assert f"{place} does not answer as an MLflow server does" in err


class Hostile(http.server.BaseHTTPRequestHandler):
    """Speaks enough of MLflow's protocol to offer an artifact whose file would be written elsewhere."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        version = {"name": "fraud", "version": "1", "source": "mlflow-artifacts:/1", "status": "READY"}
        answers: dict[str, Any] = {
            "registered-models/get": {"registered_model": {"name": "fraud"}},
            "model-versions/get": {"model_version": version},
            "model-versions/get-download-uri": {"artifact_uri": "mlflow-artifacts:/1"},
            "mlflow-artifacts/artifacts": {"files": [{"path": "../../evil", "is_dir": False, "file_size": 4}]},
        }
        known = next((answer for name, answer in answers.items() if path.endswith(name)), None)
        body = b"evil" if known is None else json.dumps(known).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def test_a_hostile_server_writes_nothing_elsewhere(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    with listening(Hostile) as place:
        code, _, err = run("push", "fraud", "models:/fraud/1", tracking=place)
    assert code == 1
    assert f"MLflow at {place} failed for models:/fraud/1: Invalid path" in err, "MLflow's client refuses it first"
    assert list(tmp_path.rglob("evil")) == []


SQLITE = """\
import json, warnings
warnings.simplefilter("ignore")
import mlflow, mlflow.sklearn
from sklearn.linear_model import LinearRegression
with mlflow.start_run() as run:
    model = LinearRegression().fit([[0.0], [1.0]], [0, 1])
    mlflow.sklearn.log_model(model, name="line", pip_requirements=[], registered_model_name="line")
print(json.dumps({"run": run.info.run_id}))
"""


def test_a_store_without_a_server_keeps_its_files(run: Run, tmp_path: Path) -> None:
    place = tmp_path / "store"
    place.mkdir()
    store = mlflow_server.Server(f"sqlite:///{place / 'mlflow.db'}", place)
    seeded = store.run(SQLITE)
    before = {path: path.read_bytes() for path in (place / "mlruns").rglob("*") if path.is_file()}
    found = pushed(run, "models:/line/1", tracking=store.url)
    assert found["version"]["provenance"]["tracked"]["run_id"] == seeded["run"]
    assert before == {path: path.read_bytes() for path in (place / "mlruns").rglob("*") if path.is_file()}


def test_without_the_library_the_command_that_installs_it_is_given(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mlflow.py").write_text("raise ModuleNotFoundError('hidden', name='mlflow')\n")
    code, _, err = run("push", "fraud", "models:/fraud/1", path=tmp_path)
    assert code == 2
    assert "pip install 'headrace[mlflow]'" in err


def test_a_download_that_dies_says_what_it_said(
    server: mlflow_server.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlflow.py").write_text("import os\nos.write(2, b'out of luck')\nos._exit(9)\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", ""))))
    request = PushRequest("models:/fraud/1", tracking_uri=server.url)
    with open_registry(locate(str(tmp_path / "state"), None, None, {})) as state:
        with pytest.raises(errors.StoreFailed, match="ended without a result: out of luck"):
            push(state, request, lambda *_: None)
        assert state.registry.models() == []
