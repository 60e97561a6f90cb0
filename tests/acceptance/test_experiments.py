"""Experiments in real processes: every answered request can be given an outcome, whatever is killed; a bandit finds the
better arm; all of it is there after a restart."""

from __future__ import annotations

import itertools
import json
import math
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

import headrace
from headrace.cli.main import app
from headrace.core import errors
from headrace.core.experiments import Outcome
from tests.acceptance import grpc_calls
from tests.acceptance.load import Client, Load, ask, infer_body
from tests.acceptance.test_life_controller import kill_controller
from tests.serving import Served, eventually, served

SETTINGS = """
gateways: 2
endpoints:
  fraud:
    traffic: {champion: 90, challenger: 10}
    overrides: [X-Headrace-Deployment]
    deployments:
      champion: {model: champion.py}
      challenger: {model: challenger.py, version: 7}
trust: [champion.py, challenger.py]
"""
MODEL = """\
import headrace


class Times(headrace.Model):
    def predict(self, x: headrace.Float32) -> {"y": headrace.Float32}:
        return {"y": x * FACTOR}
"""
ARMS = ("champion", "challenger")
VERSIONS = {"1": "champion", "7": "challenger"}


def write(folder: Path) -> None:
    (folder / "headrace.yaml").write_text(SETTINGS)
    for name, factor in (("champion", "2"), ("challenger", "3")):
        (folder / f"{name}.py").write_text(MODEL.replace("FACTOR", factor))


@contextmanager
def serving(folder: Path, *arguments: str | Path) -> Iterator[tuple[Served, headrace.Client]]:
    with (
        served(*arguments, directory=folder) as server,
        headrace.Client(server.url, management_url=server.management_url, retries=5) as client,
    ):
        yield server, client


class GrpcLoad:
    """Two threads that ask over gRPC, by unary calls and by streams, until told to stop: id → arm of every answer."""

    def __init__(self, address: str) -> None:
        self.answers: dict[str, str] = {}
        self._address = address
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=run) for run in (self._unary, self._streams)]

    def __enter__(self) -> GrpcLoad:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(60)

    def _unary(self) -> None:
        import grpc

        with grpc_calls.stub(self._address) as stub:
            for number in itertools.takewhile(lambda _: not self._ended.is_set(), itertools.count()):
                try:
                    answer, call = stub.ModelInfer.with_call(grpc_calls.request("fraud", float(number)), timeout=20)
                except grpc.RpcError:
                    continue  # it was on its way in a process that was killed
                told = dict(call.initial_metadata())
                self.answers[told["x-request-id"]] = VERSIONS[answer.model_version]

    def _streams(self) -> None:
        import grpc

        with grpc_calls.stub(self._address) as stub:
            for number in itertools.takewhile(lambda _: not self._ended.is_set(), itertools.count()):
                request = grpc_calls.request("fraud", float(number))
                request.id = f"stream-{number}"
                try:
                    for answer in stub.ModelStreamInfer(iter([request]), timeout=20):
                        self.answers[answer.infer_response.id] = VERSIONS[answer.infer_response.model_version]
                except grpc.RpcError:
                    continue


def test_every_answered_request_is_found_whatever_is_killed(tmp_path: Path) -> None:
    """Gateways and the controller die by SIGKILL in the middle of traffic over REST and gRPC. Whoever has an answer can
    give its outcome, and it joins the deployment that gave the answer."""
    write(tmp_path)
    with serving(tmp_path) as (server, client):
        client.experiments.start("fraud", ARMS, take_over=True)
        with Load(server.address, "fraud", clients=4) as load, GrpcLoad(server.address) as calls:
            for _ in range(2):
                load.wait_for(300)
                victim = server.children("app.gateway")[0]
                victim.kill()
                eventually(
                    lambda victim=victim: len({p.pid for p in server.children("app.gateway")} - {victim.pid}) == 2
                )
                load.wait_for(300)
                kill_controller(server)
                load.wait_for(300)
        answered = {
            answer.headers["x-request-id"]: answer.headers["x-headrace-deployment"]
            for answer in load.answers
            if answer.status == 200
        }
        assert len(answered) > 1500
        assert len(calls.answers) > 50
        assert any(request_id.startswith("stream-") for request_id in calls.answers)
        expected = {**answered, **calls.answers}
        receipts = client.experiments.feedback("fraud", dict.fromkeys(expected, 1.0))
        assert {receipt.request_id: (receipt.arm, receipt.status) for receipt in receipts} == {
            request_id: (arm, "joined") for request_id, arm in expected.items()
        }
        report = client.experiments.report("fraud")
        # What was answered by a gateway that was killed before its caller had the answer is indexed too.
        assert sum(arm.requests for arm in report.arms) >= len(expected)
        assert sum(arm.outcomes for arm in report.arms) == len(expected)
        assert not report.sample_ratio_mismatch, report


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, headrace.Client]]:
    folder = tmp_path_factory.mktemp("experiments")
    write(folder)
    with serving(folder) as pair:
        yield pair


@pytest.mark.xdist_group("experiments")
def test_a_bandit_moves_the_traffic_to_the_better_arm(running: tuple[Served, headrace.Client]) -> None:
    """Challenger is paid 30 % of the time, champion 10 %."""
    server, client = running
    bandit = {"every_s": 0.2, "minimum": 30, "floor": 0.05}
    client.experiments.start("fraud", ARMS, bandit=bandit, metric="conversion", take_over=True)
    draw = random.Random(3).random
    caller = Client(server.address)

    def share() -> float:
        outcomes = []
        for number in range(100):
            answer = caller.post("/v2/models/fraud/infer", infer_body(float(number)))
            paid = draw() < (0.3 if answer.headers["x-headrace-deployment"] == "challenger" else 0.1)
            outcomes.append(Outcome(answer.headers["x-request-id"], float(paid)))
        assert all(receipt.status == "joined" for receipt in client.experiments.feedback("fraud", outcomes))
        return client.experiments.report("fraud").arms[1].share

    eventually(lambda: share() > 0.8, timeout=60)
    report = client.experiments.report("fraud")
    assert report.arms[0].share >= 0.05
    assert report.arms[1].probability_best > 0.95
    assert report.experiment.metric == "conversion"
    found = client.endpoints.show("fraud")
    assert found.owner == f"experiment {report.experiment.id}"
    assert found.weights["challenger"] > 80
    ended = client.experiments.stop("fraud")
    assert ended.experiment.why.startswith("stopped by ")
    after = client.endpoints.show("fraud")
    assert (after.owner, after.weights) == ("manual", found.weights)
    late = ask(server.address, "fraud", 1.0)
    (receipt,) = client.experiments.feedback("fraud", {late.headers["x-request-id"]: 1.0})
    assert receipt.status == "unknown", "it was answered when the experiment had ended"
    caller.close()


@pytest.mark.xdist_group("experiments")
def test_one_owner_at_a_time(running: tuple[Served, headrace.Client]) -> None:
    _, client = running
    first = client.experiments.start("fraud", ARMS, weights={"champion": 3, "challenger": 1}, take_over=True)
    assert client.endpoints.show("fraud").weights == {"champion": 75, "challenger": 25}
    with pytest.raises(errors.Conflict, match=f"belongs to the experiment {first.experiment.id}"):
        client.endpoints.set_traffic("fraud", {"champion": 1})
    with pytest.raises(errors.Conflict, match="belongs to the experiment"):
        client.experiments.start("fraud", ARMS)
    client.endpoints.set_traffic("fraud", {"champion": 1}, take_over=True)
    eventually(lambda: client.experiments.report("fraud").experiment.why == "taken over (manual)")
    with pytest.raises(errors.UnknownExperiment, match="no experiment runs"):
        client.experiments.stop("fraud")
    with pytest.raises(errors.UnknownExperiment, match="has had no experiment"):
        client.experiments.feedback("other", {"x": 1.0})
    with pytest.raises(errors.BadSettings, match="no deployment 'nobody'; it has: champion, challenger"):
        client.experiments.start("fraud", ["champion", "nobody"])


@pytest.mark.xdist_group("experiments")
def test_the_commands(running: tuple[Served, headrace.Client], tmp_path: Path) -> None:
    server, _ = running

    def command(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, [*arguments, "--server", server.management_url], catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result.output

    started = command(
        "experiment", "start", "fraud", "--arms", "champion,challenger", "--metric", "clicks", "--take-over"
    )
    assert "by clicks runs" in started
    assert "note: fewer than 100 outcomes of champion, challenger" in started
    answers = [ask(server.address, "fraud", 1.0) for _ in range(30)]
    first, *others = (answer.headers["x-request-id"] for answer in answers)
    arm = answers[0].headers["x-headrace-deployment"]
    assert command("feedback", "fraud", first, "--reward", "1") == f"joined: {arm}\n"
    lines = [f'{{"request_id": "{other}", "reward": {n % 2}}}' for n, other in enumerate([*others, "nobody"])]
    (tmp_path / "outcomes.jsonl").write_text("\n".join(lines))
    told = command("feedback", "fraud", "--file", str(tmp_path / "outcomes.jsonl"))
    assert told == "29 joined, 1 unknown\n"
    assert "has the id 'nobody'" in command("feedback", "fraud", "nobody", "--reward", "1", code=2)
    (tmp_path / "bad.jsonl").write_text('{"request_id": "a", "reward": 1}\n{"request_id": "a"}\n')
    assert "bad.jsonl:2: " in command("feedback", "fraud", "--file", str(tmp_path / "bad.jsonl"), code=2)
    assert "give REQUEST_ID and --reward, or --file" in command("feedback", "fraud", first, code=2)
    assert "add --bandit" in command("experiment", "start", "fraud", "--arms", "a,b", "--floor", "5", code=2)
    report = json.loads(command("experiment", "report", "fraud", "--json"))
    assert sum(arm["outcomes"] for arm in report["arms"]) == 30
    shown = command("experiment", "report", "fraud")
    assert "challenger against champion, 95 % intervals:" in shown
    assert "any number of looks: " in shown
    assert "has ended: stopped by " in command("experiment", "stop", "fraud")
    assert "fraud: champion, challenger by clicks" in command("experiment", "list").splitlines()[0]


def test_an_experiment_goes_on_after_a_restart(tmp_path: Path) -> None:
    """With a state, and with the same file on the command line that named the endpoint first."""
    write(tmp_path)
    state = ("--state", tmp_path / "state")
    with serving(tmp_path, *state) as (server, client):
        begun = client.experiments.start("fraud", ARMS, take_over=True)
        answers = [ask(server.address, "fraud", 1.0) for _ in range(40)]
        early, late = ({a.headers["x-request-id"]: 1.0 for a in part} for part in (answers[:20], answers[20:]))
        client.experiments.feedback("fraud", early)
        named = ask(server.address, "fraud", 1.0, x_headrace_deployment="champion")
        assert server.stop() == 0
    with serving(tmp_path, *state) as (server, client):
        assert client.endpoints.show("fraud").owner == f"experiment {begun.experiment.id}"
        assert {r.status for r in client.experiments.feedback("fraud", late)} == {"joined"}
        assert {r.status for r in client.experiments.feedback("fraud", early)} == {"unchanged"}
        (receipt,) = client.experiments.feedback("fraud", {named.headers["x-request-id"]: 0.0})
        assert (receipt.status, receipt.arm) == ("not_counted", "champion")
        more = ask(server.address, "fraud", 1.0)
        assert client.experiments.feedback("fraud", {more.headers["x-request-id"]: 1.0})[0].status == "joined"
        report = client.experiments.report("fraud")
        assert report.experiment == begun.experiment
        assert sum(arm.requests for arm in report.arms) == sum(arm.outcomes for arm in report.arms) == 41
        assert math.isclose(sum(arm.mean * arm.outcomes for arm in report.arms), 41)
