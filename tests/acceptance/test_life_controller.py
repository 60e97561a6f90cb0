"""The controller, killed: requests do not notice, its successor adopts what lives and goes on where it ended."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import httpx
import psutil

from tests.acceptance import saboteurs
from tests.acceptance.load import Load, ask, output
from tests.acceptance.processes import all_end, descendants, pids
from tests.acceptance.readiness import readiness
from tests.serving import Served, eventually, served


def kill_controller(server: Served) -> None:
    """Returns when the next one answers."""
    (old,) = server.children("app.controller")
    old.kill()
    eventually(lambda: server.children("app.controller") not in ([], [old]))
    # The kernel keeps connections to the management port until somebody accepts them.
    httpx.get(f"{server.management_url}/healthz", timeout=30)
    eventually(lambda: replicas(server))


def replicas(server: Served) -> dict[str, str]:
    """Replica id → state."""
    document = httpx.get(f"{server.management_url}/api/v1/replicas", timeout=30).json()
    return {replica["id"]: replica["state"] for replica in document["replicas"]}


def requests_served(server: Served) -> int:
    """Successful requests, over all processes, as /metrics has them."""
    text = httpx.get(f"{server.management_url}/metrics", timeout=30).text
    return int(sum(float(n) for n in re.findall(r'^headrace_requests_total\{.*outcome="ok".*\} (\S+)$', text, re.M)))


def test_requests_and_workers_do_not_notice(tmp_path: Path) -> None:
    model = saboteurs.write(tmp_path, saboteurs.DOUBLE)
    with (
        served(model, "--replicas", "2", "--gateways", "2", directory=tmp_path / "run") as server,
        readiness(server.url) as ready,
    ):
        workers, before = pids(server, "replica.worker"), replicas(server)
        with Load(server.address, "m", clients=4) as load:
            load.wait_for(100)
            eventually(lambda: requests_served(server) >= 100)
            for _ in range(2):
                counted = requests_served(server)
                kill_controller(server)
                assert ready.all()
                assert replicas(server) == before
                assert requests_served(server) >= counted
                load.wait_for(100)
                assert httpx.get(f"{server.management_url}/readyz").status_code == 200
        assert not load.failed(), load.failed()[:5]
        assert all(output(answer.document) == [2 * answer.number] for answer in load.answers)
        assert pids(server, "replica.worker") == workers
        eventually(lambda: requests_served(server) == len(load.answers))

        # And it does its work: what dies from now on is seen, told and replaced.
        psutil.Process(min(workers)).kill()
        event = server.wait_event("ReplicaRestarted")
        assert event["replica"] in before
        eventually(lambda: sorted(replicas(server).values()) == ["ready", "ready"])
        told = httpx.get(f"{server.management_url}/api/v1/events").json()["events"]
        assert told[0]["type"] == "ReplicaRestarted"


def test_a_replica_that_dies_together_with_the_controller_is_replaced(tmp_path: Path) -> None:
    model = saboteurs.write(tmp_path, saboteurs.DOUBLE)
    with served(model, "--replicas", "2", directory=tmp_path / "run") as server:
        before = pids(server, "replica.worker")
        with Load(server.address, "m", clients=4) as load:
            load.wait_for(50)
            (controller,) = server.children("app.controller")
            controller.kill()
            psutil.Process(min(before)).kill()
            eventually(lambda: len(pids(server, "replica.worker") - {min(before)}) == 2)
            eventually(lambda: sorted(replicas(server).values()) == ["ready", "ready"])
            load.wait_for(50)
        assert not load.failed()
        assert max(before) in pids(server, "replica.worker")


def test_what_is_on_disk_meanwhile_does_not_matter(tmp_path: Path) -> None:
    """Without --watch a file that was changed or removed after the start takes nothing out of service."""
    changed = saboteurs.write(tmp_path, saboteurs.DOUBLE, "changed")
    removed = saboteurs.write(tmp_path, saboteurs.DOUBLE, "removed")
    with served(changed, removed, directory=tmp_path / "run") as server:
        workers = pids(server, "replica.worker")
        changed.write_text("this is not Python")
        removed.unlink()
        kill_controller(server)
        assert ask(server.address, "changed", 3.0).status == 200
        assert ask(server.address, "removed", 3.0).status == 200
        assert set(replicas(server).values()) == {"ready"}
        assert pids(server, "replica.worker") == workers


def test_what_watch_had_deployed_stays_deployed(tmp_path: Path) -> None:
    model = saboteurs.write(tmp_path, saboteurs.DOUBLE)
    with served(model, "--watch", directory=tmp_path / "run") as server:
        model.write_text(saboteurs.DOUBLE.replace("x * 2", "x * 3"))
        assert server.wait_event("VersionLoaded")["version"] == "2"
        eventually(lambda: len(pids(server, "replica.worker")) == 1)
        workers = pids(server, "replica.worker")
        kill_controller(server)
        assert output(ask(server.address, "m", 5.0).document) == [15.0]
        assert pids(server, "replica.worker") == workers
        assert set(replicas(server).values()) == {"ready"}
        model.write_text(saboteurs.DOUBLE.replace("x * 2", "x * 4"))
        event = server.wait_event("VersionLoaded")
        assert (event["version"], event["replaced"]) == ("3", "2")
        assert output(ask(server.address, "m", 5.0).document) == [20.0]


def test_killed_while_models_load(tmp_path: Path) -> None:
    """The start is told once, by the next one; a model that cannot be loaded stays known as failed."""
    slow = saboteurs.write(tmp_path, saboteurs.SLOW_TO_LOAD, "slow")
    bad = saboteurs.write(
        tmp_path, saboteurs.DOUBLE + "\n    def load(self):\n        raise OSError('no table')\n", "bad"
    )
    with served(slow, bad, directory=tmp_path / "run", wait=False) as server:
        failed = server.wait_event("ModelFailed")
        assert "no table" in failed["reason"]
        (controller,) = server.children("app.controller")
        controller.kill()
        serving = server.wait_event("Serving")
        server.url, server.management_url = serving["url"], serving["management_url"]
        assert ask(server.address, "slow", 3.0).status == 200
        answer = ask(server.address, "bad", 3.0)
        assert answer.status == 503
        assert "no table" in answer.message
        kill_controller(server)
        assert "no table" in ask(server.address, "bad", 3.0).message
        endpoint = httpx.get(f"{server.management_url}/api/v1/endpoints/bad").json()
        assert "no table" in endpoint["deployments"][0]["reason"]
        server.stop()
        server.wait_event("Stopped")
        assert [event["type"] for event in server.events].count("Serving") == 1


def test_a_controller_that_hangs_holds_nothing_up(tmp_path: Path) -> None:
    """Requests are served, dead gateways replaced, and SIGTERM still ends everything in time."""
    model = saboteurs.write(tmp_path, saboteurs.DOUBLE)
    with served(model, "--gateways", "2", directory=tmp_path / "run") as server:
        (controller,) = server.children("app.controller")
        controller.send_signal(signal.SIGSTOP)
        with Load(server.address, "m", clients=4) as load:
            load.wait_for(100)
        assert not load.failed()
        family = descendants(server.process.pid)
        assert server.stop(timeout=20) == 0
        assert all_end(family)
