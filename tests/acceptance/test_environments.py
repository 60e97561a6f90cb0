"""Versions in environments of their own, from ``models push`` to answers: real packages from the index, real servers.

One environment is built for all tests of this module, in a state directory that they share.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.load import ask, output
from tests.acceptance.processes import child
from tests.serving import Served, eventually, served

pytestmark = pytest.mark.xdist_group("environments")

OLD_NUMPY, OLD_SKLEARN = "1.26.4", "1.4.2"
REQUIREMENTS = f"joblib\nnumpy=={OLD_NUMPY}\npandas\nscikit-learn=={OLD_SKLEARN}\nskops\n"
"""With all that a worker needs for a pickled pipeline, so that this has the same environment as the Python model."""

BUILD_S = 300.0
"""Hundreds of megabytes may have to come from the index."""

TELLS = '''\
import os
import sys

import headrace
import numpy
import sklearn


class Tells(headrace.Model):
    """Which libraries it sees, and from where."""

    batchable = False

    def predict(self, x: headrace.Float32) -> {"y": headrace.Strings}:
        ours = [p for p in sys.path if not p.startswith((sys.prefix, sys.base_prefix))]
        return {"y": [numpy.__version__, sklearn.__version__, sys.prefix, headrace.__file__, os.pathsep.join(ours)]}
'''

TRAIN = """\
import sys

import joblib
import numpy
import sklearn
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

x, y = load_iris(return_X_y=True)
model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(x, y)
joblib.dump(model, sys.argv[1])
print(sklearn.__version__, numpy.__version__, *model.predict(x[::30]))
"""


def models(*arguments: str | Path, state: Path) -> Any:
    """The JSON that ``headrace models`` prints."""
    command = [sys.executable, "-m", "headrace.cli.main", "models", *map(str, arguments), "--state", str(state)]
    done = subprocess.run([*command, "--json"], capture_output=True, check=True, text=True, timeout=60)
    return json.loads(done.stdout)


def environments_of(state: Path) -> dict[str, str]:
    """Variables of a server with a state of its own, for a state has one server, that shares the environments."""
    return {"HEADRACE_ENVIRONMENTS__FOLDER": str(state / "environments")}


def tells(server: Served, model: str) -> list[str]:
    answer = ask(server.address, model, [1.0])
    assert answer.status == 200, answer.document
    return output(answer.document)


def events_of(server: Served, kind: str) -> list[dict[str, Any]]:
    return [event for event in server.events if event["type"] == kind]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry: ``tells@1`` wants old libraries, ``tells@2`` is the same code without wishes."""
    directory = tmp_path_factory.mktemp("environments")
    (directory / "tells.py").write_text(TELLS)
    (directory / "old.txt").write_text(REQUIREMENTS)
    registry = directory / "state"
    models("push", "tells", directory / "tells.py", "--requirements", directory / "old.txt", "--trust", state=registry)
    models("push", "tells", directory / "tells.py", "--trust", state=registry)
    return registry


@pytest.fixture(scope="module")
def first(state: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The server that had to build the environment. It serves ``old`` in it and ``now`` in its own."""
    directory = tmp_path_factory.mktemp("first")
    arguments = ("old=tells@1", "now=tells@2", "--state", state)
    with served(*arguments, directory=directory, wait=False) as server:
        serving = server.wait_event("Serving", timeout=BUILD_S)
        server.url, server.management_url = serving["url"], serving["management_url"]
        yield server


@pytest.fixture(scope="module")
def environment(first: Served, state: Path) -> Path:
    """The environment that was built."""
    (path,) = (path for path in (state / "environments").iterdir() if not path.name.startswith("."))
    return path


@pytest.mark.timeout(BUILD_S + 60)
def test_old_and_new_libraries_answer_side_by_side(first: Served, environment: Path, state: Path) -> None:
    numpy_version, sklearn_version, prefix, headrace_file, foreign = tells(first, "old")
    assert (numpy_version, sklearn_version) == (OLD_NUMPY, OLD_SKLEARN)
    assert prefix == str(environment)
    assert Path(headrace_file).is_relative_to(environment), "the build's own copy of Headrace"
    # Nothing of the server's environment or of PYTHONPATH is seen, only the folder of the model.
    assert foreign == str(state / "versions" / "tells@1" / "model")
    ours = tells(first, "now")
    assert ours[0] != OLD_NUMPY
    assert ours[2] == sys.prefix


def test_the_build_is_told_from_begin_to_end(first: Served, environment: Path) -> None:
    (begun,), (done,) = events_of(first, "EnvironmentBuilding"), events_of(first, "EnvironmentDone")
    assert begun["deployments"] == done["deployments"] == ["old@1"]
    assert begun["requirements"] == REQUIREMENTS.splitlines()
    assert environment.name.startswith(begun["environment"])
    assert (done["environment"], done["outcome"]) == (begun["environment"], "built")
    assert done["seconds"] > 0
    progress = [event["progress"] for event in events_of(first, "EnvironmentProgress")]
    resolved = re.fullmatch(r"building its environment \((\d+) packages resolved\)", progress[0])
    assert resolved is not None
    count = int(resolved[1])
    assert count >= 7
    assert progress[-1].endswith(f"{count} installed)")
    told = httpx.get(f"{first.management_url}/api/v1/events").text
    assert "EnvironmentBuilding" in told
    assert "EnvironmentDone" in told


def test_a_second_start_uses_what_is_there(first: Served, state: Path, tmp_path: Path) -> None:
    (tmp_path / "tells.py").write_text(TELLS)
    (tmp_path / "old.txt").write_text(REQUIREMENTS)
    own = tmp_path / "state"
    models("push", "tells", tmp_path / "tells.py", "--requirements", tmp_path / "old.txt", "--trust", state=own)
    with served("tells@1", "--state", own, directory=tmp_path, environment=environments_of(state)) as server:
        assert tells(server, "tells")[:2] == [OLD_NUMPY, OLD_SKLEARN]
        assert events_of(server, "EnvironmentBuilding") == []
        (done,) = events_of(server, "EnvironmentDone")
        assert done["outcome"] == "reused"


def test_replicas_die_and_come_back_in_their_environment(first: Served, environment: Path) -> None:
    for worker in first.children("replica.worker"):
        if Path(worker.cmdline()[0]).is_relative_to(environment):
            worker.kill()
    first.wait_event("ReplicaRestarted")
    assert eventually(lambda: ask(first.address, "old", [1.0]).status == 200)
    assert tells(first, "old")[:2] == [OLD_NUMPY, OLD_SKLEARN]


def test_a_controller_that_dies_finds_the_environment_again(first: Served, environment: Path) -> None:
    controller = child(first.process.pid, "app.controller")
    assert controller is not None
    controller.send_signal(signal.SIGKILL)
    first.wait_event("EnvironmentDone", where=lambda event: event["outcome"] == "reused")
    assert tells(first, "old")[0] == OLD_NUMPY
    assert tells(first, "now")[0] != OLD_NUMPY


def test_a_pipeline_of_an_older_scikit_learn_is_served_as_it_was_trained(
    first: Served, environment: Path, state: Path, tmp_path: Path
) -> None:
    """A pickle is only good with the libraries that wrote it: it is trained in such an environment, too."""
    script, pipeline = tmp_path / "train.py", tmp_path / "iris.joblib"
    script.write_text(TRAIN)
    trained = subprocess.run([environment / "bin" / "python", script, pipeline], capture_output=True, text=True)
    sklearn_version, numpy_version, *labels = trained.stdout.split()
    assert (sklearn_version, numpy_version) == (OLD_SKLEARN, OLD_NUMPY), trained.stderr
    (tmp_path / "old.txt").write_text(REQUIREMENTS)
    own = tmp_path / "state"
    models("push", "iris", pipeline, "--requirements", tmp_path / "old.txt", "--trust", state=own)
    with served("iris@1", "--state", own, directory=tmp_path / "run", environment=environments_of(state)) as server:
        assert [done["outcome"] for done in events_of(server, "EnvironmentDone")] == ["reused"]
        script = "from sklearn.datasets import load_iris; print(load_iris(return_X_y=True)[0][::30].tolist())"
        rows = json.loads(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)
        answer = httpx.post(f"{server.url}/v1/models/iris:predict", json={"instances": rows}).json()
        assert [str(row["label"]) for row in answer["predictions"]] == labels
        assert "InconsistentVersionWarning" not in server.log()


def test_packages_that_nobody_vouched_for_are_not_fetched(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (tmp_path / "tells.py").write_text(TELLS)
    (tmp_path / "old.txt").write_text("six==1.16.0\n")
    (pushed,) = models("push", "careless", tmp_path / "tells.py", "--requirements", tmp_path / "old.txt", state=state)
    assert pushed["runnable"] is False
    with served("careless@1", "--state", state, directory=tmp_path / "run") as server:
        (failed,) = events_of(server, "ModelFailed")
        assert "asks for packages, whose code would run beside the model" in failed["reason"]
        assert failed["reason"].endswith("headrace models trust careless@1")
        assert events_of(server, "EnvironmentBuilding") == []


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("numpy==1.26.4\nheadrace-tests-no-such-package==1.0\n", ("headrace-tests-no-such-package", "check the name")),
        ("numpy==1.26.4\nnumpy>=2\n", ("numpy", "unsatisfiable", "loosen what contradicts", "msgspec>=0.19")),
        ("numpy==1.22.0\n", ("numpy==1.22.0 and numpy>=1.24", "the worker itself needs msgspec>=0.19, numpy>=1.24")),
    ],
    ids=["does-not-exist", "contradicts-itself", "contradicts-the-worker"],
)
def test_what_cannot_be_built_fails_with_uvs_words_beside_a_version_that_serves(
    lines: str, says: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "tells.py").write_text(TELLS)
    (tmp_path / "bad.txt").write_text(lines)
    (tmp_path / "headrace.yaml").write_text(
        "endpoints:\n  bad: {model: tells.py, requirements: bad.txt}\n  good: {model: tells.py}\n"
    )
    with served("--state", tmp_path / "state", directory=tmp_path) as server:
        (failed,) = events_of(server, "ModelFailed")
        assert failed["endpoint"] == "bad"
        reason = " ".join(failed["reason"].split())  # some releases of uv wrap their lines
        for words in says:
            assert words in reason
        assert "No solution found" in failed["log_tail"]
        assert [done["outcome"] for done in events_of(server, "EnvironmentDone")] == ["failed"]
        refused = ask(server.address, "bad", [1.0])
        assert refused.status == 503
        assert says[0] in refused.message
        assert len(tells(server, "good")) == 5
