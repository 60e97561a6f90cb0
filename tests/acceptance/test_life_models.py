"""Models that do what no model should: the gateway and the models beside them serve on, and the end is in order.

One server has them all. Each test makes one of them misbehave; ``fine`` must answer before, during and after.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.acceptance import saboteurs
from tests.acceptance.load import Answer, ask, output
from tests.acceptance.processes import all_end, descendants, pids
from tests.serving import Served, eventually, served

pytestmark = pytest.mark.xdist_group("misbehaving-models")

HEAD = "import ctypes, fcntl, os, resource, signal, sys, threading, time\nimport numpy as np\nimport headrace\n\n\n"
PREDICT = "    def predict(self, x: headrace.Float32) -> {'y': headrace.Float32}:\n"

BODIES = {
    "prints": """
        def flood():
            while True:
                print("line of a model that prints without end " * 3)
        threading.Thread(target=flood, daemon=True).start()
        return {"y": x * 2}
""",
    "leaks": """
        try:
            while True:
                self.held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            return {"y": x * 2}
""",
    "closes": """
        if not self.held:
            sys.stdout.close()
            sys.stderr.close()
            os.close(1)
            os.close(2)
            self.held.append("nothing")
        return {"y": x * 2}
""",
    "closes_all": """
        os.closerange(3, 4096)
        return {"y": x * 2}
""",
    "moves": """
        os.chdir("/")
        os.umask(0o777)
        os.environ.clear()
        sys.path.clear()
        return {"y": x * 2}
""",
    "blocks": """
        ctypes.PyDLL(None).usleep(1_500_000)
        return {"y": x * 2}
""",
    "ignores_signals": """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        return {"y": x * 2}
""",
    "forks": """
        if os.fork() == 0:
            time.sleep(1000)
        return {"y": x * 2}
""",
    "threads": """
        for _ in range(50):
            threading.Thread(target=lambda: time.sleep(1000), daemon=False).start()
        return {"y": x * 2}
""",
    "recurses": """
        return self.predict(x)
""",
}
LIES = {
    "few_rows": ("{'y': x[:0]}", "dimension 0 must be the rows"),
    "no_rows": ("{'y': np.float32(3) * np.ones((), np.float32)}", "dimension 0 must be the rows"),
    "other_name": ("{'z': x}", "'z'"),
    "nothing": ("{}", "nothing"),
    "none": ("None", "NoneType"),
    "strings": ("{'y': ['one'] * len(x)}", "declared FP32"),
    "complex": ("{'y': x + 1j}", "declared FP32"),
    "ragged": ("{'y': [[1.0], [1.0, 2.0]]}", "rectangular"),
    "objects": ("{'y': [object()] * len(x)}", "declared FP32"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("misbehaving")
    sources = [saboteurs.write(folder, saboteurs.DOUBLE, "fine")]
    for name, body in BODIES.items():
        load = "    def load(self):\n        self.held = []\n"
        if name == "leaks":
            load += "        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        sources.append(saboteurs.write(folder, f"{HEAD}class Bad(headrace.Model):\n{load}\n{PREDICT}{body}", name))
    lies = "".join(f"        if mode == {name!r}:\n            return {value}\n" for name, (value, _) in LIES.items())
    predict = PREDICT.replace("x: headrace.Float32", "x: headrace.Float32, mode: str = ''")
    liar = f"{HEAD}class Liar(headrace.Model):\n{predict}{lies}        return {{'y': x * 2}}\n"
    sources.append(saboteurs.write(folder, liar, "liar"))
    run = folder / "run"
    run.mkdir()
    # Warming up would be the first misdeed.
    (run / "headrace.yaml").write_text("warmup: false\n")
    with served(*sources, directory=run) as running:
        yield running
        family = descendants(running.process.pid)
        assert running.stop(timeout=40) == 0
        assert all_end(family)


@pytest.fixture(autouse=True)
def others_serve_on(server: Served) -> Iterator[None]:
    gateways, supervisor = pids(server, "app.gateway"), server.process.pid
    assert right(ask(server.address, "fine", 1.0))
    yield
    assert right(ask(server.address, "fine", 1.0))
    assert pids(server, "app.gateway") == gateways
    assert server.process.poll() is None
    assert server.process.pid == supervisor


def right(answer: Answer) -> bool:
    return answer.status == 200 and output(answer.document) == [2.0]


@pytest.mark.parametrize("model", ["closes", "moves", "ignores_signals", "forks", "threads", "leaks"])
def test_a_misdeed_that_leaves_the_model_working(server: Served, model: str) -> None:
    for _ in range(3):
        assert right(ask(server.address, model, 1.0))


def test_a_model_that_blocks_with_the_interpreter_locked(server: Served) -> None:
    """Nothing in its process runs meanwhile, not even the thread that talks to gateways."""
    answers: list[Answer] = []
    caller = threading.Thread(target=lambda: answers.append(ask(server.address, "blocks", 1.0)))
    caller.start()
    served_meanwhile = 0
    while caller.is_alive():
        assert right(ask(server.address, "fine", 1.0))
        served_meanwhile += 1
    caller.join()
    assert right(answers[0])
    assert served_meanwhile > 10


def test_a_model_that_prints_without_end(server: Served) -> None:
    """Its lines are counted, not kept: the log stays small, the supervisor responsive, the last lines readable."""
    assert right(ask(server.address, "prints", 1.0))
    eventually(lambda: "lines are not shown: more than 500 a second" in server.log(), timeout=20)
    before = pids(server, "replica.worker")
    (fine,) = [p for p in server.children("replica.worker") if endpoint_of(server, p.pid) == "fine"]
    fine.kill()
    server.wait_event("ReplicaRestarted", where=lambda event: event["replica"].startswith("fine@"), timeout=10)
    eventually(lambda: right(ask(server.address, "fine", 1.0)))
    assert right(ask(server.address, "prints", 1.0))
    assert len(pids(server, "replica.worker") - before) == 1
    replica = next(r["id"] for r in replicas(server) if r["endpoint"] == "prints")
    log = f"{server.management_url}/api/v1/replicas/{replica.replace('#', '%23')}/log"
    eventually(lambda: "line of a model that prints without end" in httpx.get(log).text)
    assert server.log_path.stat().st_size < 20 << 20
    # It is quiet for the other tests.
    worker = next(p for p in server.children("replica.worker") if endpoint_of(server, p.pid) == "prints")
    worker.kill()
    server.wait_event("ReplicaRestarted", where=lambda event: event["replica"].startswith("prints@"))


def replicas(server: Served) -> list[dict[str, str]]:
    found: list[dict[str, str]] = httpx.get(f"{server.management_url}/api/v1/replicas").json()["replicas"]
    return found


def endpoint_of(server: Served, pid: int) -> str:
    """The endpoint that a worker process serves, by the socket it listens on."""
    for replica in replicas(server):
        socket_path = replica["address"].removeprefix("unix:")
        command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        if socket_path.removesuffix(".sock") + ".json" in command:
            return replica["endpoint"]
    return ""


def test_a_model_that_closes_every_descriptor(server: Served) -> None:
    """Its process ends; the request is tried once more, then it is poison. The model comes back."""
    answer = ask(server.address, "closes_all", 1.0)
    assert answer.status == 500
    assert "died 2 times" in answer.message
    eventually(lambda: any(r["endpoint"] == "closes_all" and r["state"] == "ready" for r in replicas(server)))


def test_a_model_that_recurses_without_end(server: Served) -> None:
    answer = ask(server.address, "recurses", 1.0)
    assert answer.status == 500
    assert "RecursionError" in answer.message


@pytest.mark.parametrize("lie", LIES)
def test_a_model_that_lies_about_its_outputs(server: Served, lie: str) -> None:
    """The caller reads what is wrong; the same replica answers the next request."""
    before = [r["id"] for r in replicas(server) if r["endpoint"] == "liar"]
    tensor = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]}
    infer = f"{server.url}/v2/models/liar/infer"
    answer = httpx.post(infer, json={"inputs": [tensor], "parameters": {"mode": lie}}, timeout=30)
    assert answer.status_code == 500
    assert LIES[lie][1] in answer.json()["error"]
    assert right(ask(server.address, "liar", 1.0))
    assert [r["id"] for r in replicas(server) if r["endpoint"] == "liar"] == before


def test_a_model_that_cannot_be_loaded(tmp_path: Path) -> None:
    """Reason and log stand in the event, in the API and in the readiness; the other one serves, and counts as ready."""
    source = HEAD + (
        "class Broken(headrace.Model):\n    def load(self):\n        print('looking for the table')\n"
        "        raise FileNotFoundError('prices.parquet')\n\n" + PREDICT + "        return {'y': x}\n"
    )
    broken, fine = saboteurs.write(tmp_path, source, "broken"), saboteurs.write(tmp_path, saboteurs.DOUBLE, "fine")
    with served(broken, fine, directory=tmp_path / "run", wait=False) as server:
        failed = server.wait_event("ModelFailed")
        serving = server.wait_event("Serving")
        server.url, server.management_url = serving["url"], serving["management_url"]
        assert failed["endpoint"] == "broken"
        assert "FileNotFoundError: prices.parquet" in failed["reason"]
        assert "looking for the table" in failed["log_tail"]
        assert "Traceback" in failed["log_tail"]
        assert right(ask(server.address, "fine", 1.0))

        answer = ask(server.address, "broken", 1.0)
        assert answer.status == 503
        assert "prices.parquet" in answer.message
        assert httpx.get(f"{server.url}/v2/models/broken/ready").status_code == 503
        # It must not take the others out of a load balancer; the management port says what is missing.
        assert httpx.get(f"{server.url}/v2/health/ready").status_code == 200
        unready = httpx.get(f"{server.management_url}/readyz")
        assert unready.status_code == 503
        assert "prices.parquet" in unready.json()["waiting"]["broken@1"]
        endpoint = httpx.get(f"{server.management_url}/api/v1/endpoints/broken").json()
        assert "prices.parquet" in endpoint["deployments"][0]["reason"]
        events = httpx.get(f"{server.management_url}/api/v1/events").json()["events"]
        assert any(e["type"] == "ModelFailed" and "looking for the table" in e["log_tail"] for e in events)
        # No process is kept for it, and none is started again and again.
        eventually(lambda: len(server.children("replica.worker")) == 1)


def test_a_model_that_takes_long_to_load(tmp_path: Path) -> None:
    """The others serve meanwhile; the server as a whole is ready when it is."""
    slow, fine = (
        saboteurs.write(tmp_path, saboteurs.SLOW_TO_LOAD.replace("sleep(1.0)", "sleep(3.0)"), "slow"),
        saboteurs.write(tmp_path, saboteurs.DOUBLE, "fine"),
    )
    port = free_port()
    with served(slow, fine, "--port", str(port), directory=tmp_path / "run", wait=False) as server:
        server.url = f"http://127.0.0.1:{port}"
        eventually(lambda: right(ask(server.address, "fine", 1.0)), timeout=20)
        assert httpx.get(f"{server.url}/v2/models/fine/ready").status_code == 200
        assert httpx.get(f"{server.url}/v2/models/slow/ready").status_code == 503
        assert httpx.get(f"{server.url}/v2/health/ready").status_code == 503
        waiting = ask(server.address, "slow", 1.0)
        assert waiting.status == 503
        assert "loading" in waiting.message
        assert waiting.headers["retry-after"]
        server.wait_event("Serving")
        assert httpx.get(f"{server.url}/v2/health/ready").status_code == 200
        assert right(ask(server.address, "slow", 1.0))


def free_port() -> int:

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
