"""What is served is kept: changed while it is served, restored after any end, never half-done. Processes are killed for
real."""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path

import httpx
import psycopg
import pytest

import headrace
from headrace.core import errors
from tests.acceptance.load import Load, ask, output
from tests.serving import Served, eventually, served

TIMES = """\
import os
import time
import headrace

class Times(headrace.Model):
    def load(self):
        time.sleep({load_s})
        if {factor} < 0:
            raise RuntimeError("this factor cannot be loaded")
        self.process = os.getpid()

    def predict(self, x: headrace.Float32) -> {{"y": headrace.Float32}}:
        return {{"y": x * {factor}}}
"""


def write(folder: Path, name: str, factor: float, *, load_s: float = 0.0) -> Path:
    path = folder / name
    path.write_text(TIMES.format(factor=factor, load_s=load_s))
    return path


def config(folder: Path, *, model: str, **more: object) -> Path:
    path = folder / "headrace.yaml"
    lines = [f"  calc: {{model: {model}, {', '.join(f'{key}: {value}' for key, value in more.items())}}}"]
    path.write_text("\n".join(["endpoints:", *lines, f"trust: [{model}]", ""]))
    return path


def client_of(server: Served) -> headrace.Client:
    return headrace.Client(server.url, management_url=server.management_url, retries=0)


def answer(server: Served, x: float = 21.0) -> float | None:
    found = ask(server.address, "calc", [x])
    return output(found.document)[0] / x if found.status == 200 else None


def test_what_was_running_is_restored(tmp_path: Path) -> None:
    model = write(tmp_path, "two.py", 2)
    state = ("--state", tmp_path / "state")
    with (
        served(f"calc={model}", "--trust", model, *state, directory=tmp_path / "a") as server,
        client_of(server) as client,
    ):
        client.endpoints.scale("calc", 2)
        write(tmp_path, "other.py", 3)
        other = tmp_path / "other.yaml"
        other.write_text("endpoints: {other: {model: other.py, timeout: 7}}\ntrust: [other.py]\n")
        assert [change.kind for change in client.endpoints.apply(other)] == ["create"]
        client.endpoints.pause("other", "lunch")
        exported = client.endpoints.export()
        assert server.stop() == 0
    with served(*state, directory=tmp_path / "b") as server, client_of(server) as client:
        assert answer(server) == 2
        refused = ask(server.address, "other", [1.0])
        assert (refused.status, refused.message) == (503, "endpoint 'other' is paused: lunch")
        assert client.endpoints.export() == exported
        assert client.endpoints.show("other").owner == f"file {other}"
        client.endpoints.resume("other")
        assert output(ask(server.address, "other", [2.0]).document) == [6.0]
        assert len(server.children("replica.worker")) == 3
        with pytest.raises(errors.NotReady, match=r"in use by process \d+ \(headrace serve, http"):
            headrace_serve_in_use(state, tmp_path)


def headrace_serve_in_use(state: tuple[str, str | Path], folder: Path) -> None:
    """A second server on the same state ends with a message that names the first."""
    with served(*state, directory=folder / "c", wait=False) as second:
        code = second.process.wait(60)
        second._reader.join(10)
        found = next(iter(second._queue.queue))
    assert code == 3
    raise errors.NotReady(str(found["error"]) if found else "")


def test_a_new_version_takes_over_when_it_is_ready_and_a_bad_one_never(tmp_path: Path) -> None:
    state = ("--state", tmp_path / "state")
    write(tmp_path, "good.py", 2)
    write(tmp_path, "slow.py", 3, load_s=1.0)
    write(tmp_path, "bad.py", -1)
    with served(*state, directory=tmp_path / "run") as server, client_of(server) as client:
        client.endpoints.apply(config(tmp_path, model="good.py"))
        eventually(lambda: answer(server) == 2)
        with Load(server.address, "calc", clients=4) as load:
            client.endpoints.apply(config(tmp_path, model="slow.py"))
            assert not client.endpoints.show("calc").settled
            assert answer(server) == 2
            eventually(lambda: client.endpoints.show("calc").settled)
            eventually(lambda: answer(server) == 3)
            client.endpoints.apply(config(tmp_path, model="bad.py"))
            eventually(lambda: client.endpoints.show("calc").versions == {"main": "2"})
            assert client.endpoints.show("calc").document["model"] == str(tmp_path / "slow.py")
            load.wait_for(50)
        assert load.failed() == []
        factors = [output(a.document)[0] / a.number for a in sorted(load.answers, key=lambda a: a.at) if a.number]
        assert [factor for factor, _ in itertools.groupby(map(round, factors))] == [2, 3]
        story = httpx.get(f"{server.management_url}/api/v1/changes", params={"subject": "calc"}).json()
        assert "this factor cannot be loaded" in str(story)
    with served(*state, directory=tmp_path / "again") as server:
        assert answer(server) == 3


@pytest.mark.parametrize("victim", ["controller", "everything"])
def test_killed_in_the_middle_of_a_change(tmp_path: Path, victim: str) -> None:
    """The new version is kept in the state but has not loaded: what served before serves, and then the new one."""
    state = ("--state", tmp_path / "state")
    write(tmp_path, "old.py", 2)
    write(tmp_path, "new.py", 3, load_s=2.0)
    with served(*state, directory=tmp_path / "run") as server, client_of(server) as client:
        client.endpoints.apply(config(tmp_path, model="old.py"))
        eventually(lambda: answer(server) == 2)
        client.endpoints.apply(config(tmp_path, model="new.py"))
        if victim == "controller":
            (controller,) = server.children("app.controller")
            os.kill(controller.pid, signal.SIGKILL)
            assert answer(server) == 2
            eventually(lambda: answer(server) == 3)
            return
        for process in [*server.children("app.controller"), *server.children("app.gateway")]:
            process.kill()
        server.process.kill()
        server.process.wait()
    with served(*state, directory=tmp_path / "again") as server, client_of(server) as client:
        assert answer(server) in (2, 3)
        eventually(lambda: answer(server) == 3)
        eventually(lambda: client.endpoints.show("calc").settled)


def test_traffic_has_one_owner(tmp_path: Path) -> None:
    write(tmp_path, "two.py", 2)
    with served("--state", tmp_path / "state", directory=tmp_path / "run") as server, client_of(server) as client:
        file = config(tmp_path, model="two.py")
        client.endpoints.apply(file)
        with pytest.raises(errors.Conflict, match=f"belongs to the file {file}; use --take-over"):
            client.endpoints.set_traffic("calc", {"main": 1})
        seen = client.endpoints.set_traffic("calc", {"main": 1}, take_over=True)
        with pytest.raises(errors.Conflict, match="was set by hand"):
            client.endpoints.apply(file)
        with pytest.raises(errors.PreconditionFailed, match=f"has generation {seen.generation} by now"):
            client.endpoints.pause("calc", generation=seen.generation - 1)
        assert [c.taken_from for c in client.endpoints.apply(file, take_over=True)] == ["manual"]
        file.write_text("endpoints: {calc: {model: two.py, replicsa: 2}}\n")
        with pytest.raises(
            errors.BadSettings, match=r"headrace.yaml line 1 column 35: unknown key .* did you mean 'repl"
        ):
            client.endpoints.plan(file)
        file.write_text("endpoints: {}\n")
        assert [change.kind for change in client.endpoints.plan(file)] == ["delete"]
        client.endpoints.apply(file)
        assert ask(server.address, "calc", [1.0]).status == 404
        eventually(lambda: not server.children("replica.worker"))


def test_changes_drop_no_request(tmp_path: Path) -> None:
    """Weights, counts, pauses of others, restarts and new versions, five times a second."""
    write(tmp_path, "two.py", 2)
    write(tmp_path, "three.py", 3)
    path = tmp_path / "headrace.yaml"
    text = (
        "endpoints:\n  calc:\n    traffic: {a: 50, b: 50}\n"
        "    deployments: {a: {model: two.py, replicas: %d}, b: {model: three.py, version: %d}}\n"
        "  other: {model: two.py}\ntrust: [two.py, three.py]\n"
    )
    path.write_text(text % (1, 2))
    arguments = ("--state", tmp_path / "state", "--gateways", "2")
    with served(*arguments, directory=tmp_path / "run") as server, client_of(server) as client:
        client.endpoints.apply(path)
        eventually(lambda: all(ask(server.address, "calc", [1.0]).status == 200 for _ in range(8)))
        before = {process.pid for process in server.children("replica.worker")}
        with Load(server.address, "calc", clients=6) as load:
            for turn in range(8):
                path.write_text(text % (1 + turn % 2, 2 + turn))
                client.endpoints.apply(path, take_over=True)
                client.endpoints.set_traffic("calc", {"a": turn, "b": 8 - turn}, take_over=True)
                client.endpoints.restart("calc", deployment="a")
                client.endpoints.pause("other", f"turn {turn}")
                load.wait_for(60)
            eventually(lambda: client.endpoints.show("calc").settled)
            load.wait_for(200)
        assert load.failed() == []
        assert {round(output(a.document)[0] / a.number) for a in load.answers if a.number} == {2, 3}
        # The one that nobody asked to be restarted stays.
        eventually(lambda: len(before & {p.pid for p in server.children("replica.worker")}) == 1)


def test_a_dead_database_stops_changes_and_nothing_else(tmp_path: Path, database: str) -> None:
    admin, _, name = database.rpartition("/")

    def alive(yes: bool) -> None:
        with psycopg.connect(f"{admin}/postgres", autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {str(yes).lower()}'.encode())
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

    def reachable() -> bool:
        text = httpx.get(f"{server.management_url}/metrics").text
        return 'headrace_state_reachable{process="controller"} 1.0' in text

    write(tmp_path, "two.py", 2)
    state = ("--database", database, "--state", tmp_path / "state")
    with served(*state, directory=tmp_path / "run") as server, client_of(server) as client:
        client.endpoints.apply(config(tmp_path, model="two.py"))
        eventually(lambda: answer(server) == 2)
        with Load(server.address, "calc", clients=2) as load:
            alive(False)
            with pytest.raises(errors.StoreFailed):
                client.endpoints.scale("calc", 2)
            (controller,) = server.children("app.controller")
            controller.kill()
            eventually(lambda: server.children("app.controller") and not refused(client) and not reachable())
            load.wait_for(50)
            alive(True)
            eventually(reachable)
            client.endpoints.scale("calc", 2)
            eventually(lambda: len(server.children("replica.worker")) == 2)
        assert load.failed() == []


def refused(client: headrace.Client) -> bool:
    try:
        client.endpoints.list()
    except (errors.NotReady, errors.ReplicaDied):  # the controller is gone, or went in the middle of the answer
        return True
    return False


def test_a_second_controller_waits_until_the_first_lets_go(tmp_path: Path, database: str) -> None:
    write(tmp_path, "two.py", 2)
    state = ("--database", database, "--state", tmp_path / "state")
    with served(*state, directory=tmp_path / "run") as server, client_of(server) as client:
        client.endpoints.apply(config(tmp_path, model="two.py"))
        eventually(lambda: answer(server) == 2)
        began = time.monotonic()
        with pytest.raises(errors.NotReady, match="controls this database"):
            headrace_serve_in_use(("--database", database), tmp_path)
        assert time.monotonic() - began < 30
        server.stop()
    with served(*state, directory=tmp_path / "again") as server:
        assert answer(server) == 2
