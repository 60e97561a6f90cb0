"""Rollouts of real versions under real load: one of each verdict, killed in the middle, and back at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

import headrace
from headrace.core import errors
from tests.acceptance.load import Load, ask
from tests.serving import Served, eventually, served

VERSION = """\
import time
import headrace

class Model(headrace.Model):
    def load(self):
        self.count = 0

    def predict(self, x: headrace.Float32) -> {{"y": headrace.Float32}}:
        self.count += 1
        time.sleep({seconds})
        if {bad_every} and self.count % {bad_every} == 0:
            raise ValueError("every so often")
        return {{"y": x * {factor}}}
"""
GOLDEN = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "data": [2.0, 4.0]}],
}

QUICK: dict[str, Any] = {"analysis": {"block_s": 0.6, "block_requests": 5, "false_alarm": 0.05, "false_pass": 0.2}}
"""Small blocks and bold conclusions: these tests look at what is done with a verdict, simulations at how good it is."""


def push(
    state: Path,
    folder: Path,
    *,
    factor: float = 2,
    seconds: float = 0.004,
    bad_every: int = 0,
    more: tuple[str, ...] = (),
) -> int:
    """Another version of ``m``; all of them are to answer as the first one does."""
    folder.mkdir(parents=True, exist_ok=True)
    path, golden = folder / "model.py", folder / "golden.jsonl"
    path.write_text(VERSION.format(factor=factor, seconds=seconds, bad_every=bad_every))
    golden.write_text(json.dumps(GOLDEN) + "\n")
    command = [sys.executable, "-m", "headrace.cli.main", "models", "push", "m", path, "--golden", golden, "--trust"]
    command += ["--state", state, *more, "--json"]
    done = subprocess.run([*map(str, command)], capture_output=True, check=True, text=True, timeout=60)
    return int(json.loads(done.stdout)[0]["version"]["number"])


@contextmanager
def serving(tmp_path: Path, *versions: dict[str, Any]) -> Iterator[tuple[Served, headrace.Client]]:
    """A server of ``m@1`` with two gateways; ``versions`` are further ones in its registry."""
    state = tmp_path / "state"
    for number, version in enumerate(({}, *versions)):
        push(state, tmp_path / str(number), **version)
    arguments = ("m@1", "--state", state, "--gateways", "2")
    with served(*arguments, directory=tmp_path / "run") as server, client_of(server) as client:
        yield server, client


def client_of(server: Served) -> headrace.Client:
    return headrace.Client(server.url, management_url=server.management_url, retries=0)


def versions_seen(server: Served, count: int = 60) -> set[str]:
    return {ask(server.address, "m", [1.0]).document["model_version"] for _ in range(count)}


def start(client: headrace.Client, to: str = "2", **more: Any) -> None:
    settings = {"canary": "30,60", "bake_s": 0.5, "final_bake_s": 0.5, "max_step_s": 60.0, **QUICK, **more}
    client.rollouts.start("m", to, **settings)


def phase(client: headrace.Client) -> str:
    return str(client.rollouts.status("m").phase)


def test_a_healthy_version_is_promoted_and_no_request_fails(tmp_path: Path) -> None:
    with serving(tmp_path, {}) as (server, client):
        with Load(server.address, "m", clients=8) as load:
            start(client)
            assert client.endpoints.show("m").owner.startswith("rollout r")
            with pytest.raises(errors.Conflict, match="is under way"):
                start(client)
            with pytest.raises(errors.Conflict, match="belongs to the rollout"):
                client.endpoints.set_traffic("m", {"main": 1})
            eventually(lambda: phase(client) == "done", timeout=90)
            load.wait_for(100)
        assert load.failed() == []
        status = client.rollouts.status("m")
        shares = [line.share for line in status.story]
        assert shares == sorted(shares)
        assert {0.3, 0.6, 1.0} <= set(shares)
        eventually(lambda: len(server.children("replica.worker")) == 1)
        assert versions_seen(server) == {"2"}
        shown = client.endpoints.show("m")
        assert (shown.owner, shown.document["model"], shown.settled) == ("manual", "m@2", True)
        story = httpx.get(f"{server.management_url}/api/v1/changes", params={"subject": "m", "limit": 50}).text
        for what in ("rollout.start", "rollout.golden", "rollout.step", "rollout.promoted", "rollout.done"):
            assert what in story


def test_a_version_that_fails_too_often_is_rolled_back(tmp_path: Path) -> None:
    with serving(tmp_path, {"bad_every": 4}) as (server, client):
        with Load(server.address, "m", clients=8) as load:
            start(client)
            eventually(lambda: phase(client) == "rolled_back", timeout=90)
            assert "errors" in client.rollouts.status("m").reason
            eventually(lambda: versions_seen(server) == {"1"})
            failed = len(load.failed())
            load.wait_for(300)
            assert len(load.failed()) == failed, "after the way back nothing fails any more"
        assert {answer.message.partition(":")[0] for answer in load.failed()} != set()
        eventually(lambda: len(server.children("replica.worker")) == 1)
        assert client.endpoints.show("m").document["model"] == "m@1"


def test_a_version_that_breaks_what_is_promised_is_rolled_back(tmp_path: Path) -> None:
    """Where the relative check does not mind: it warns, the objective decides."""
    file = tmp_path / "headrace.yaml"
    analysis = {**QUICK["analysis"], "errors": {"gate": False}}
    endpoint = {
        "model": "m@1",
        "slo": {"error_rate": 0.01, "p99_ms": 30_000},
        "rollout": {"canary": "50", "bake": 0.5, "max_step": 60, "analysis": analysis},
    }
    file.write_text(json.dumps({"endpoints": {"m": endpoint}}))
    with serving(tmp_path, {"bad_every": 8}) as (server, client):
        client.endpoints.apply(file, take_over=True)
        scraped = httpx.get(f"{server.management_url}/metrics").text
        assert 'headrace_slo_error_rate{model="m"} 0.01' in scraped
        assert 'headrace_slo_latency_seconds{model="m"} 30' in scraped
        with Load(server.address, "m", clients=8):
            client.rollouts.start("m", "2")
            eventually(lambda: phase(client) == "rolled_back", timeout=90)
        assert client.rollouts.status("m").reason.startswith("slo errors: ")
        assert client.endpoints.list()[0]["slo"] == {"p99_ms": 30_000.0, "error_rate": 0.01}


def test_without_traffic_it_stays_inconclusive_and_asks_a_person(tmp_path: Path) -> None:
    with serving(tmp_path, {}) as (server, client):
        start(client, max_step_s=2.0)
        eventually(lambda: phase(client) == "paused")
        assert "inconclusive" in client.rollouts.status("m").reason
        assert versions_seen(server) == {"1", "2"}, "a paused rollout keeps its share"
        client.rollouts.promote("m")
        client.rollouts.promote("m")
        eventually(lambda: versions_seen(server) == {"2"})
        client.rollouts.abort("m")
        eventually(lambda: versions_seen(server) == {"1"})
        assert phase(client) == "aborted"


def test_golden_requests_keep_a_wrong_version_from_traffic(tmp_path: Path) -> None:
    with serving(tmp_path, {"factor": 3}) as (server, client):
        with Load(server.address, "m", clients=2) as load:
            start(client)
            eventually(lambda: phase(client) == "rolled_back")
            assert "golden requests: 1 of 1 differ" in client.rollouts.status("m").reason
        assert {answer.document["model_version"] for answer in load.answers} == {"1"}


def test_the_way_back_takes_less_than_a_tenth_of_a_second(tmp_path: Path) -> None:
    """Seen by the gateways themselves: no request that is sent 100 ms after the command reaches the new version. On a
    busy machine the command takes longer: what counts begins when it was given."""
    with serving(tmp_path, {}) as (server, client):
        start(client, canary="50", bake_s=600.0)
        eventually(lambda: versions_seen(server) == {"1", "2"})
        with Load(server.address, "m", clients=4) as load:
            load.wait_for(100)
            client.rollouts.abort("m")
            answered = time.monotonic()
            load.wait_for(200)
        late = [a for a in load.answers if a.at > answered + 0.1 and a.document["model_version"] == "2"]
        assert late == []
        assert load.failed() == []


@pytest.mark.parametrize("victim", ["controller", "everything"])
def test_a_rollout_survives_the_death_of_its_controller(tmp_path: Path, victim: str) -> None:
    with serving(tmp_path, {}) as (server, client):
        start(client, canary="50", bake_s=2.0)
        eventually(lambda: versions_seen(server) == {"1", "2"})
        if victim == "controller":
            with Load(server.address, "m", clients=6) as load:
                (controller,) = server.children("app.controller")
                os.kill(controller.pid, signal.SIGKILL)
                eventually(lambda: [c.pid for c in server.children("app.controller")] not in ([], [controller.pid]))
                eventually(lambda: _phase_or_none(client) == "done", timeout=90)
            assert load.failed() == []
            assert versions_seen(server) == {"2"}
            return
        for process in [*server.children("app.controller"), *server.children("app.gateway")]:
            process.kill()
        server.process.kill()
        server.process.wait()
    with served("--state", tmp_path / "state", directory=tmp_path / "again") as server, client_of(server) as client:
        with Load(server.address, "m", clients=6) as load:
            eventually(lambda: phase(client) == "done", timeout=90)
        assert load.failed() == []
        assert versions_seen(server) == {"2"}


def _phase_or_none(client: headrace.Client) -> str | None:
    try:
        return phase(client)
    except (errors.NotReady, errors.ReplicaDied):  # the controller is gone, or went in the middle of the answer
        return None


def test_an_alias_that_moves_begins_a_rollout_where_it_is_followed(tmp_path: Path) -> None:
    state, file = tmp_path / "state", tmp_path / "headrace.yaml"
    for number in range(3):
        push(state, tmp_path / str(number))
    file.write_text(
        "endpoints:\n  m: {model: m@champion, follow: rollout, rollout: {canary: '20,40', bake: 1h}}\n"
        "  still: {model: m@champion}\n"
    )
    document = {"follow": "rollout:champion", "rollout": {"canary": "20,40", "bake": "1h"}}
    with served("--state", state, directory=tmp_path / "run") as server, client_of(server) as client:
        with pytest.raises(errors.UnknownModel, match="no alias 'champion'"):
            client.endpoints.apply(file)
        client.models.alias("m", "champion", 1)
        client.endpoints.apply(file)
        assert client.endpoints.show("m").document == {"model": "m@1", **document}
        client.models.alias("m", "champion", 2)
        eventually(lambda: client.endpoints.show("m").owner.startswith("rollout "))
        began = client.rollouts.status("m")
        assert (began.who, [(step.traffic, step.bake_s) for step in began.steps]) == (
            "alias m@champion",
            [(0.2, 3600.0), (0.4, 3600.0)],
        )
        eventually(lambda: phase(client) == "step")
        client.rollouts.abort("m")
        client.models.alias("m", "champion", 3)
        eventually(lambda: phase(client) == "step")
        for _ in range(2):
            client.rollouts.promote("m")
        eventually(lambda: phase(client) == "promoted")
        client.rollouts.promote("m")
        assert client.endpoints.show("m").document == {"model": "m@3", **document}
        assert client.endpoints.show("still").document == {"model": "m@1"}
        # The one that was aborted is not tried again by itself.
        client.models.alias("m", "champion", 2)
        file.write_text("endpoints:\n  m: {model: m@3, follow: rollout}\n")
        with pytest.raises(errors.BadSettings, match="follow: rollout needs a model that is named by an alias"):
            client.endpoints.plan(file)
        assert client.endpoints.show("m").versions == {"main": "3"}


def test_a_metric_that_is_posted_decides_too(tmp_path: Path) -> None:
    metric = {"name": "chargebacks", "success": "<= 0.2", "failure_limit": 0}
    with serving(tmp_path, {}) as (server, client):
        start(client, canary="50", bake_s=600.0, analysis={**QUICK["analysis"], "metrics": [metric]})
        eventually(lambda: phase(client) == "step")
        with pytest.raises(errors.UnknownModel, match="it has: chargebacks"):
            client.rollouts.measure("m", "refunds", 0.1)
        client.rollouts.measure("m", "chargebacks", 0.1)
        eventually(lambda: "1 good" in str(client.rollouts.status("m").verdict))
        client.rollouts.measure("m", "chargebacks", 0.7)
        eventually(lambda: phase(client) == "rolled_back")
        assert "metric chargebacks" in client.rollouts.status("m").reason
        assert versions_seen(server) == {"1"}


def test_the_way_back_does_not_wait_for_a_dead_database(tmp_path: Path, database: str) -> None:
    admin, _, name = database.rpartition("/")

    def alive(yes: bool) -> None:
        with psycopg.connect(f"{admin}/postgres", autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {str(yes).lower()}'.encode())
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

    more = ("--database", database)
    for number in range(2):
        push(tmp_path / "state", tmp_path / str(number), more=more)
    arguments = ("m@1", "--state", tmp_path / "state", *more, "--gateways", "2")
    with served(*arguments, directory=tmp_path / "run") as server, client_of(server) as client:
        start(client, canary="50", bake_s=600.0)
        eventually(lambda: versions_seen(server) == {"1", "2"})
        alive(False)
        client.rollouts.abort("m")
        assert versions_seen(server) == {"1"}
        alive(True)
        eventually(lambda: "rollout.aborted" in _story(server), timeout=60)
        assert phase(client) == "aborted"
        start(client, canary="50", bake_s=600.0)
        eventually(lambda: versions_seen(server) == {"1", "2"}, timeout=60)


def _story(server: Served) -> str:
    return httpx.get(f"{server.management_url}/api/v1/changes", params={"subject": "m", "limit": 50}).text


def test_what_was_asked_for_once_happens_once_whoever_drives_it(tmp_path: Path) -> None:
    """The same requests again, to the next controller: the answers of the first one, and no second rollout."""
    with serving(tmp_path, {}) as (server, client):

        def ask_for(path: str, key: str, body: Any = None) -> httpx.Response:
            url = f"{server.management_url}/api/v1/rollouts{path}"
            return httpx.post(url, json=body, headers={"Idempotency-Key": key, "X-Headrace-User": "ada"}, timeout=30)

        wanted = {"endpoint": "m", "to": "2", "canary": "30,60", "bake_s": 600.0}
        started = ask_for("", "start", wanted)
        assert started.status_code == 201, started.text
        eventually(lambda: phase(client) == "step")
        promoted = ask_for("/promote/m", "promote")
        assert promoted.json()["step"] == 2
        (controller,) = server.children("app.controller")
        os.kill(controller.pid, signal.SIGKILL)
        eventually(lambda: _phase_or_none(client) == "step")
        for path, key, body, first in (("", "start", wanted, started), ("/promote/m", "promote", None, promoted)):
            again = ask_for(path, key, body)
            assert (again.status_code, again.content) == (first.status_code, first.content)
            assert again.headers["idempotency-replayed"] == "true"
        assert client.rollouts.status("m").step == 2
        aborted = ask_for("/abort/m", "abort")
        assert aborted.json()["phase"] == "aborted"
        start(client, canary="50", bake_s=600.0)
        assert ask_for("/abort/m", "abort").content == aborted.content
        assert phase(client) != "aborted", "a later rollout is another one"
        assert len(client.rollouts.list("m")) == 2
