"""--watch: a change is loaded beside what serves and takes over when it is ready; a bad one changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from pathlib import Path

import httpx

from tests import models
from tests.acceptance import saboteurs
from tests.acceptance.load import Load, ask, infer_body, output, post
from tests.acceptance.processes import pids
from tests.acceptance.readiness import readiness
from tests.serving import Served, eventually, served

TIMES = saboteurs.DOUBLE


def times(factor: int) -> str:
    return TIMES.replace("x * 2", f"x * {factor}")


def answered(server: Served, value: float = 1.0, path: str = "/v2/models/m/infer") -> float:
    answer = post(server.address, path, infer_body(value))
    assert answer.status == 200, answer
    return float(output(answer.document)[0])


def test_a_change_takes_over_under_load(tmp_path: Path) -> None:
    """No request fails, none is answered by the old version after one by the new, the server is ready all along."""
    model = saboteurs.write(tmp_path, times(2))
    with (
        served(model, "--watch", "--gateways", "2", directory=tmp_path / "run") as server,
        readiness(server.url) as ready,
    ):
        first = pids(server, "replica.worker")
        unready: list[dict[str, bool]] = []
        ended = threading.Event()

        def look() -> None:
            while not ended.is_set():
                now = ready.answers()
                if not all(now.values()):
                    unready.append(now)

        watcher = threading.Thread(target=look)
        watcher.start()
        with Load(server.address, "m", clients=6, value=lambda n: n + 1.0) as load:
            for version, factor in ((2, 3), (3, 4)):
                load.wait_for(50)
                model.write_text(times(factor))
                event = server.wait_event("VersionLoaded")
                assert (event["endpoint"], event["version"]) == ("m", str(version))
                load.wait_for(50)
            eventually(lambda: len(pids(server, "replica.worker")) == 1)
        ended.set()
        watcher.join()
        assert not load.failed(), load.failed()[:5]
        assert not unready
        factors = [round(output(a.document)[0] / (a.number + 1)) for a in load.answers]
        assert set(factors) == {2, 3, 4}
        assert all(a.document["model_version"] == str(f - 1) for a, f in zip(load.answers, factors, strict=True))
        assert not first & pids(server, "replica.worker")
        assert answered(server) == 4.0


def test_a_bad_change_leaves_the_old_version_serving(tmp_path: Path) -> None:
    """One that is no Python, one that raises while it loads, one that kills its process; then a good one."""
    model = saboteurs.write(tmp_path, times(2))
    with served(model, "--watch", directory=tmp_path / "run") as server:
        with Load(server.address, "m", clients=2, pause=0.005) as load:
            model.write_text("class Broken(")
            failed = server.wait_event("ModelFailed")
            assert "line 1" in failed["reason"]
            model.write_text(times(3) + "\n    def load(self):\n        raise OSError('no table')\n")
            failed = server.wait_event("ModelFailed")
            assert "OSError: no table" in failed["reason"]
            assert "Traceback" in failed["log_tail"]
            model.write_text(times(4) + "\n    def load(self):\n        import os\n        os._exit(9)\n")
            failed = server.wait_event("ModelFailed")
            assert "exited with code 9 while loading" in failed["reason"]
            assert answered(server) == 2.0
            assert httpx.get(f"{server.url}/v2/health/ready").status_code == 200
            assert httpx.get(f"{server.management_url}/readyz").status_code == 200

            # Even now the old version comes back when its replica dies: as it was, not as the file is.
            (worker,) = eventually(lambda: server.children("replica.worker"))
            worker.kill()
            server.wait_event("ReplicaRestarted", where=lambda event: event["replica"].startswith("m@1#"))
            assert answered(server) == 2.0

            model.write_text(times(5))
            server.wait_event("VersionLoaded")
            assert answered(server) == 5.0
        assert not load.failed(), load.failed()[:5]
        eventually(lambda: len(server.children("replica.worker")) == 1)


def test_changes_faster_than_they_load(tmp_path: Path) -> None:
    """Only the last one matters; none that came between is left running."""
    slow = saboteurs.SLOW_TO_LOAD
    model = saboteurs.write(tmp_path, slow)
    with served(model, "--watch", directory=tmp_path / "run") as server:
        with Load(server.address, "m", clients=2, pause=0.01, value=lambda n: n + 1.0) as load:
            for factor in (3, 4, 5):
                model.write_text(slow.replace("x * 2", f"x * {factor}").replace("sleep(1.0)", "sleep(3.0)"))
                server.wait_event("ModelInspected")
            server.wait_event("VersionLoaded", where=lambda event: event["version"] == "4")
            assert answered(server) == 5.0
            eventually(lambda: len(server.children("replica.worker")) == 1)
        assert not load.failed()
        assert {round(output(a.document)[0] / (a.number + 1)) for a in load.answers} <= {2, 5}


def test_a_body_that_is_on_its_way_during_the_switch(tmp_path: Path) -> None:
    """The version that its head was meant for has left when the body is complete: its successor answers."""
    model = saboteurs.write(tmp_path, times(2))
    body = infer_body(7.0)
    with served(model, "--watch", directory=tmp_path / "run") as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as slow:
            head = f"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            slow.sendall(head.encode() + body[:10])
            assert answered(server) == 2.0
            model.write_text(times(3))
            server.wait_event("VersionLoaded")
            eventually(lambda: len(server.children("replica.worker")) == 1)
            slow.sendall(body[10:])
            answer = slow.recv(65536)
        assert b" 200 " in answer.partition(b"\r\n")[0], answer
        assert output(json.loads(answer.partition(b"\r\n\r\n")[2])) == [21.0]


def test_a_stream_ends_on_the_version_it_began_on(tmp_path: Path) -> None:
    source = models.STREAM_SOURCE.replace(
        "                yield word", "                yield word\n                time.sleep(0.2)"
    )
    source = "import time\n" + source
    model = tmp_path / "m.py"
    model.write_text(source)
    with served(model, "--watch", directory=tmp_path / "run") as server:
        url = f"{server.url}/v2/models/m/generate_stream"
        with httpx.stream("POST", url, json={"prompt": "a b c", "times": 5}, timeout=60) as stream:
            lines = stream.iter_lines()
            first = next(lines)
            model.write_text(source.replace("yield word\n", "yield word.upper()\n"))
            server.wait_event("VersionLoaded")
            rest = [first, *(line for line in lines)]
        words = [json.loads(line.removeprefix("data: "))["text"] for line in rest if line]
        assert words == ["a", "b", "c"] * 5
        with httpx.stream("POST", url, json={"prompt": "a"}, timeout=60) as stream:
            assert '"text":"A"' in next(stream.iter_lines())
        eventually(lambda: len(server.children("replica.worker")) == 1)


def repository(root: Path, name: str, version: int, factor: int) -> Path:
    """A version folder that appears as a whole, as a careful copy does."""
    partial = root.parent / f"{name}-{version}.partial"
    saboteurs.write(partial, times(factor), "model")
    target = root / name / str(version)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(partial, target)
    return target / "model.py"


def test_new_version_folders_of_a_repository(tmp_path: Path) -> None:
    """The highest number takes over and the others stay addressable; a bad one is told, and can be put right."""
    root = tmp_path / "repository"
    repository(root, "m", 1, 2)
    with served(root, "--trust", root, "--watch", directory=tmp_path / "run") as server:
        with Load(server.address, "m", clients=2, pause=0.005) as load:
            repository(root, "m", 3, 4)
            event = server.wait_event("VersionLoaded")
            assert (event["version"], event["replaced"]) == ("3", "1")
            assert answered(server) == 4.0
            assert answered(server, path="/v2/models/m/versions/1/infer") == 2.0

            # A lower number is deployed, and that is all.
            repository(root, "m", 2, 3)
            eventually(lambda: post(server.address, "/v2/models/m/versions/2/infer", infer_body(1.0)).status == 200)
            assert answered(server, path="/v2/models/m/versions/2/infer") == 3.0
            assert answered(server) == 4.0

            bad = repository(root, "m", 4, 5)
            bad.write_text(times(5) + "\n    def load(self):\n        raise OSError('no table')\n")
            failed = server.wait_event("ModelFailed")
            assert (failed["version"], "no table" in failed["reason"]) == ("4", True)
            assert answered(server) == 4.0
            bad.write_text(times(5))
            event = server.wait_event("VersionLoaded")
            assert (event["version"], event["replaced"]) == ("4", "3")
            assert answered(server) == 5.0
            assert answered(server, path="/v2/models/m/versions/3/infer") == 4.0

            # A version that serves does not change.
            bad.write_text(times(6))
            failed = server.wait_event("ModelFailed")
            assert "a version that is served does not change" in failed["reason"]
            assert answered(server) == 5.0
        assert not load.failed(), load.failed()[:5]
        metadata = httpx.get(f"{server.url}/v2/models/m").json()
        assert metadata["versions"] == ["1", "2", "3", "4"]


def test_a_new_model_in_a_repository(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    repository(root, "m", 1, 2)
    with served(root, "--trust", root, "--watch", directory=tmp_path / "run") as server:
        assert ask(server.address, "other", 1.0).status == 404
        repository(root, "other", 1, 3)
        eventually(lambda: ask(server.address, "other", 1.0).status == 200)
        assert answered(server, path="/v2/models/other/infer") == 3.0
        assert answered(server) == 2.0
        assert httpx.get(f"{server.management_url}/readyz").status_code == 200


def test_a_model_that_never_worked_is_put_right(tmp_path: Path) -> None:
    """Both kinds of failure: seen by inspection, and seen when it loads."""
    unreadable = saboteurs.write(tmp_path, "class Broken(", "unreadable")
    unloadable = saboteurs.write(
        tmp_path, times(2) + "\n    def load(self):\n        raise OSError('x')\n", "unloadable"
    )
    with served(unreadable, unloadable, "--watch", directory=tmp_path / "run") as server:
        assert ask(server.address, "unreadable", 1.0).status == 503
        assert ask(server.address, "unloadable", 1.0).status == 503
        assert httpx.get(f"{server.management_url}/readyz").status_code == 503
        unreadable.write_text("class Broken(headrace.Model): pass; pass; (")
        assert server.wait_event("ModelFailed")["endpoint"] == "unreadable"
        unreadable.write_text(times(3))
        unloadable.write_text(times(4))
        eventually(lambda: ask(server.address, "unreadable", 1.0).status == 200)
        eventually(lambda: ask(server.address, "unloadable", 1.0).status == 200)
        assert answered(server, path="/v2/models/unreadable/infer") == 3.0
        assert answered(server, path="/v2/models/unloadable/infer") == 4.0
        eventually(lambda: httpx.get(f"{server.management_url}/readyz").status_code == 200)


def test_a_file_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    model = saboteurs.write(tmp_path, times(2))
    with served(model, "--watch", directory=tmp_path / "run") as server:
        text = times(3)
        began = time.monotonic()
        with model.open("w") as file:
            for position in range(0, len(text), 20):
                file.write(text[position : position + 20])
                file.flush()
                os.fsync(file.fileno())
                assert answered(server) == 2.0
                time.sleep(0.1)
        assert time.monotonic() - began > 1
        server.wait_event("VersionLoaded")
        assert answered(server) == 3.0
        assert not [event for event in server.events if event["type"] == "ModelFailed"]
