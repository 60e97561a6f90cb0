"""``headrace rollout`` against a real server over a driver that moves when the test says so."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headrace.cli.main import app
from tests import rollout_driver
from tests.rollout_driver import Driver

Run = Callable[..., Any]
COMMAND = [sys.executable, "-m", "headrace.cli.main", "rollout"]


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    with rollout_driver.running(tmp_path) as found:
        monkeypatch.setenv("HEADRACE_SERVER", found.url)
        yield found


def invoke(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["rollout", *arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if "--json" in arguments else result


def test_starting_one_returns_at_once_and_says_how_to_follow_it(driver: Driver) -> None:
    result = invoke("start", "fraud", "--to", "8")
    first, *_, last = result.stdout.splitlines()
    assert first.startswith("fraud: fraud@7 → fraud@8, starting its first replica, for ")
    assert last == "follow it with: headrace rollout status fraud"
    again = invoke("start", "fraud", "--to", "9", code=2)
    assert "a rollout is under way already" in again.stderr


def test_every_option_reaches_the_server(driver: Driver, tmp_path: Path) -> None:
    file = tmp_path / "strict.yaml"
    file.write_text("false_alarm: 0.01\nlatency: {margin: 1.1}\nmetrics: [{name: loss, success: '<= 0.2'}]\n")
    options = "--to 8 --deployment champion --canary 5,50 --shadow-first --bake 90s --final-bake 1h --max-step 2h"
    found = invoke("start", "org/fraud", *options.split(), "--analysis", str(file), "--take-over", "--json")
    assert (found["endpoint"], found["deployment"], found["new"]) == ("org/fraud", "champion", "org/fraud@8")
    assert found["steps"] == [
        {"traffic": 0.0, "shadow": 0.1, "bake_s": 90.0},
        {"traffic": 0.05, "shadow": 0.0, "bake_s": 90.0},
        {"traffic": 0.5, "shadow": 0.0, "bake_s": 90.0},
    ]
    assert (found["final_bake_s"], found["max_step_s"]) == (3600.0, 7200.0)
    analysis = found["analysis"]
    assert (analysis["false_alarm"], analysis["latency"]["margin"], analysis["latency"]["tolerance"]) == (
        0.01,
        1.1,
        1.5,
    )
    assert analysis["metrics"][0]["name"] == "loss"
    linear = invoke("start", "a", "--to", "8", "--linear", "25/2m", "--json")
    assert [step["traffic"] for step in linear["steps"]] == [0.25, 0.5, 0.75]
    assert invoke("start", "b", "--to", "8", "--blue-green", "--json")["steps"] == []


def test_a_path_from_here_is_told_as_one_from_anywhere(
    driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = invoke("start", "fraud", "--to", "./models/m.onnx", "--json")
    assert found["new"] == f"fraud@{tmp_path}/models/m.onnx"


@pytest.mark.parametrize(
    ("options", "file", "says"),
    [
        (["--canary", "5", "--linear", "10/2m"], None, "one strategy, got canary and linear"),
        (["--canary", "5,x"], None, "canary steps '5,x' are not numbers"),
        (["--bake", "soon"], None, "--bake 'soon' is no time: write 90s, 10m, 1h"),
        (["--final-bake", "1w"], None, "--final-bake '1w' is no time"),
        ([], "latncy: {}", "a.yaml: there is no setting 'latncy'; did you mean 'latency'?"),
        ([], "latency: {margn: 1}", "a.yaml: there is no setting 'latency.margn'; did you mean 'margin'?"),
        ([], "latency: {margin: x}", "a.yaml: latency.margin: expected `float`, got `str`"),
        ([], "a: [", "a.yaml: is not YAML: "),
        (["--analysis", "nowhere.yaml"], None, "nowhere.yaml: cannot be read"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_begins(
    driver: Driver, tmp_path: Path, options: list[str], file: str | None, says: str
) -> None:
    if file is not None:
        path = tmp_path / "a.yaml"
        path.write_text(file)
        options = ["--analysis", str(path)]
    assert says in invoke("start", "fraud", "--to", "8", *options, code=2).stderr
    assert "no rollouts yet" in invoke("list").stdout


def test_status_says_where_it_is_why_and_what_comes_next(driver: Driver) -> None:
    invoke("start", "fraud", "--to", "8", "--canary", "5,50", "--bake", "10m")
    driver.move("fraud", "step", 0, "golden requests: 20 answered as recorded")
    shown = invoke("status", "fraud").stdout.splitlines()
    assert shown[0].startswith("fraud: fraud@7 → fraud@8, step 1 of 2, 5 % of the requests, for ")
    assert shown[1].split(maxsplit=1) == ["because", "golden requests: 20 answered as recorded"]
    assert shown[2].split(maxsplit=1)[1].startswith("step 2 of 2: 50 % of the requests, when every gate")
    assert "at the earliest; else it pauses and asks a person in" in shown[2]
    assert len(shown) == 5
    assert shown[-1].endswith("step 1          5 %  golden requests: 20 answered as recorded")
    assert invoke("status", "fraud", "--json")["story"][-1]["step"] == 1
    assert "has had no rollout" in invoke("status", "nobody", code=2).stderr


def test_a_person_has_a_word_in_it(driver: Driver) -> None:
    invoke("start", "org/fraud", "--to", "8", "--canary", "5,50")
    driver.move("org/fraud", "step", 0)
    assert "paused in step 1 of 2" in invoke("pause", "org/fraud").stdout
    assert "paused already" in invoke("pause", "org/fraud", code=2).stderr
    assert "step 1 of 2" in invoke("resume", "org/fraud").stdout
    assert invoke("promote", "org/fraud", "--json")["step"] == 2
    assert "aborted" in invoke("abort", "org/fraud").stdout
    refused = invoke("promote", "org/fraud", "--json", code=2)
    assert refused["code"] == "conflict"
    assert "the rollout has ended (aborted" in refused["error"]
    invoke("start", "other", "--to", "3")
    listed = invoke("list").stdout.splitlines()
    assert [line.split()[2] for line in listed[1:]] == ["other", "org/fraud"]
    assert [one["phase"] for one in invoke("list", "org/fraud", "--json")["rollouts"]] == ["aborted"]


@pytest.mark.parametrize(("phase", "code"), [("done", 0), ("rolled_back", 1), ("aborted", 1), ("paused", 3)])
@pytest.mark.parametrize("as_json", [False, True])
def test_waiting_ends_with_what_came_of_it(driver: Driver, phase: str, code: int, as_json: bool) -> None:
    command = [*COMMAND, "start", "fraud", "--to", "8", "--wait", *(["--json"] if as_json else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if not as_json:
            assert process.stdout.readline().rstrip().endswith("started by " + started_by(driver))
        else:
            started_by(driver)
        driver.move("fraud", "step", 0)
        driver.move("fraud", phase, 0, "so it is")
        shown = process.stdout.read()
        assert process.wait(30) == code
    if as_json:
        assert (json.loads(shown)["phase"], json.loads(shown)["reason"]) == (phase, "so it is")
    else:
        moves = shown.splitlines()
        assert len(moves) == 2
        assert moves[-1].endswith("so it is")


def started_by(driver: Driver) -> str:
    """Who started the rollout, once there is one."""
    import headrace
    from headrace.core import errors
    from tests.serving import eventually

    with headrace.Client(management_url=driver.url) as client:

        def who() -> str | None:
            try:
                return client.rollouts.status("fraud").who
            except errors.UnknownModel:
                return None

        return str(eventually(who))


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        environment = {**os.environ, "COLUMNS": "150", "LINES": "40", "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            # A shell that runs the tests in the background has its children ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(slave)
        self.shown = ""

    def wait_for(self, text: str) -> None:
        while text not in self.shown:
            self.shown += os.read(self._master, 65536).decode(errors="replace")

    def close(self) -> int:
        """The exit code, once it has ended by itself."""
        with ThreadPoolExecutor(1) as pool:
            rest = pool.submit(self._read_all)
            code = self.process.wait(30)
            rest.result(30)
        os.close(self._master)
        return code

    def _read_all(self) -> None:
        try:
            while True:
                self.shown += os.read(self._master, 65536).decode(errors="replace")
        except OSError:  # the other side is closed
            return


def test_on_a_terminal_status_is_a_live_view_until_the_end(driver: Driver) -> None:
    invoke("start", "fraud", "--to", "8", "--canary", "5,50")
    view = Terminal("status", "fraud")
    view.wait_for("starting its first replica")
    driver.move("fraud", "step", 0, "golden requests passed")
    view.wait_for("step 1 of 2, 5 % of the requests")
    driver.move("fraud", "paused", 0)
    view.wait_for("paused in step 1 of 2")
    driver.move("fraud", "rolled_back", 0, "errors: 3 % of 1,000 failed")
    assert view.close() == 0
    assert "errors: 3 % of 1,000 failed" in view.shown


def test_ctrl_c_leaves_the_view_and_not_the_rollout(driver: Driver) -> None:
    invoke("start", "fraud", "--to", "8")
    view = Terminal("status", "fraud")
    view.wait_for("starting its first replica")
    view.process.send_signal(signal.SIGINT)
    assert view.close() == 130
    assert "the rollout goes on without you" in view.shown
    assert "Traceback" not in view.shown
    assert invoke("status", "fraud", "--json")["phase"] == "starting"


def test_on_a_terminal_waiting_shows_the_view(driver: Driver) -> None:
    view = Terminal("start", "fraud", "--to", "8", "--wait")
    view.wait_for("starting its first replica")
    driver.move("fraud", "paused", -1, "a person must decide")
    assert view.close() == 3
    assert "paused in starting its first replica" in view.shown
