"""Every server of the comparison: how it is started and how it is spoken to. Headrace runs its defaults."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from benchmarks import dialects, environments
from benchmarks.assets import Assets, Sample
from benchmarks.dialects import Dialect
from benchmarks.processes import Running, free_ports, running

HERE = environments.HERE
SERVERS = HERE / "servers"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Launch:
    """What a command line is made of."""

    python: Path
    folder: Path
    """Empty, for files that the server wants."""
    rest: int
    grpc: int
    other: int


@dataclass(frozen=True)
class Contender:
    name: str
    environment: str | None
    """Name of the virtual environment; None: the project's own."""
    command: Callable[[Launch], list[str]]
    variables: Mapping[str, str]
    endpoint: str
    sample: Sample
    output: str
    """Name of the output that is checked."""
    rest: Dialect | None = None
    grpc: bool = False
    prepare: Callable[[Launch], list[str]] | None = None
    """A command to run before: writes settings files."""
    versions: tuple[str, ...] = ()
    """Packages whose versions belong in the results."""

    def python(self) -> Path:
        return environments.python_of(self.environment) if self.environment else Path(sys.executable)


@dataclass
class Served:
    """A contender that is up and has answered right."""

    contender: Contender
    launch: Launch
    server: Running
    start_seconds: float = 0.0
    unanswered: int = 0
    """Calls of the probe that a peer left without an answer."""
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30))

    @property
    def port(self) -> int:
        return self.launch.rest

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.launch.rest}"

    @property
    def management_url(self) -> str:
        return f"http://127.0.0.1:{self.launch.other}"

    def tree(self) -> list[psutil.Process]:
        return self.server.tree()

    def check_rest(self, first: int = 0) -> None:
        """One request with a real decode; raises when the answer is not the model's."""
        contender = self.contender
        if (dialect := contender.rest) is None:
            raise ValueError(f"{contender.name} has no REST form")
        index = first % len(contender.sample.rows)
        rows, right = contender.sample.rows[index : index + 1], contender.sample.outputs[index : index + 1]
        headers = dict(line.split(": ", 1) for line in dialect.headers)
        answer = self.client.post(self.url + dialect.path, content=dialect.encode(rows), headers=headers)
        if answer.status_code in (429, 503):
            raise dialects.Refused(f"{contender.name}: {answer.status_code} {answer.text[:300]}")
        if answer.status_code != 200:
            raise dialects.WrongAnswer(f"{contender.name}: {answer.status_code} {answer.text[:300]}")
        dialects.check(dialect.decode(answer.content), right, contender.name)

    def check_grpc(self, client: InferenceServerClient, first: int = 0) -> None:
        contender = self.contender
        index = first % len(contender.sample.rows)
        rows, right = contender.sample.rows[index : index + 1], contender.sample.outputs[index : index + 1]
        got = dialects.grpc_infer(client, contender.endpoint, rows, contender.output)
        dialects.check(got, right, f"{contender.name} gRPC")

    def probe_grpc(self, client: InferenceServerClient, first: int = 0) -> None:
        """``check_grpc`` beside a load. A call that a peer loses is counted and does not end the row: the peer is
        measured for what it answers. Ours must answer all."""
        try:
            self.check_grpc(client, first)
        except InferenceServerException as error:
            if self.contender.environment is None or error.status() != "StatusCode.DEADLINE_EXCEEDED":
                raise
            self.unanswered += 1

    @contextlib.contextmanager
    def grpc_client(self) -> Iterator[InferenceServerClient]:
        with InferenceServerClient(f"127.0.0.1:{self.launch.grpc}") as client:
            yield client


@contextlib.contextmanager
def serve(contender: Contender, folder: Path) -> Iterator[Served]:
    """Start, wait for right answers on every protocol the contender speaks, and stop at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    python = contender.python()
    rest, grpc, other = free_ports(3)
    # Headrace speaks both on one port.
    launch = Launch(python, folder, rest, grpc if contender.environment else rest, other)
    variables = {**contender.variables, "PYTHONPATH": str(SERVERS)}
    if contender.prepare:
        with running(f"{contender.name} prepare", contender.prepare(launch), variables, folder) as preparation:
            if preparation.process.wait(60):
                raise environments.SetupFailed(f"{contender.name}: {preparation.tail()}")
    with running(contender.name, contender.command(launch), variables, folder) as server:
        served = Served(contender, launch, server)
        try:
            if contender.rest:
                served.start_seconds = server.wait_until(served.check_rest)
            if contender.grpc:
                with served.grpc_client() as client:
                    server.wait_until(lambda: served.check_grpc(client))
            yield served
        finally:
            served.client.close()


def headrace(assets: Assets, flags: Sequence[str] = (), model: str = "fraud", name: str = "headrace") -> Contender:
    """``headrace serve`` with its defaults and only the flags that a row is about."""
    fraud = model == "fraud"
    path = assets.fraud_onnx if fraud else assets.cnn_onnx
    output = "probabilities" if fraud else "scores"
    return Contender(
        name=name,
        environment=None,
        command=lambda launch: _headrace_command([str(path)], launch, flags),
        variables={},
        endpoint=model,
        sample=assets.fraud if fraud else assets.cnn,
        output=output,
        rest=dialects.oip(model, output),
        grpc=True,
    )


def headrace_slow(assets: Assets, kind: str, flags: Sequence[str] = ()) -> Contender:
    """The five-millisecond model, ``Batchable`` or ``Unbatchable``."""
    source = f"slow={HERE / 'models' / 'slow.py'}:{kind}"
    return Contender(
        name=f"headrace slow {' '.join(flags)}".strip(),
        environment=None,
        command=lambda launch: _headrace_command([source], launch, flags),
        variables={},
        endpoint="slow",
        sample=assets.slow,
        output="y",
        rest=dialects.oip("slow", "y", input_name="x"),
    )


def headrace_both(assets: Assets) -> Contender:
    """Two endpoints in one server: small rows and large images."""
    sources = [str(assets.fraud_onnx), str(assets.cnn_onnx)]
    return Contender(
        name="headrace fraud+cnn",
        environment=None,
        command=lambda launch: _headrace_command(sources, launch, ()),
        variables={},
        endpoint="fraud",
        sample=assets.fraud,
        output="probabilities",
        rest=dialects.oip("fraud"),
    )


def _headrace_command(models: Sequence[str], launch: Launch, flags: Sequence[str]) -> list[str]:
    ports = ["--port", str(launch.rest), "--management-port", str(launch.other)]
    return [str(launch.python.with_name("headrace")), "serve", *models, *ports, "--json", "--no-auth", *flags]


def prototype(assets: Assets) -> Contender:
    return Contender(
        name="prototype",
        environment=None,
        command=lambda launch: [
            str(launch.python.with_name("h2corn")),
            *("--app-dir", str(HERE / "prototype"), "app:app", "--host", "127.0.0.1", "--port", str(launch.rest)),
            *("--loop", "uvloop", "--no-access-log"),
        ],
        variables={"BENCH_MODEL": str(assets.fraud_onnx)},
        endpoint="fraud",
        sample=assets.fraud,
        output="probabilities",
        rest=dialects.oip("fraud", path="/"),
    )


def peers(assets: Assets, model: str = "fraud") -> list[Contender]:
    """The others, each in the fastest form that its own documentation leads to, one model process each."""
    image = model == "cnn"
    sample, output = (assets.cnn, "scores") if image else (assets.fraud, "probabilities")
    variables = {
        **ONE_THREAD,
        "BENCH_MODEL": str(assets.cnn_onnx if image else assets.fraud_onnx),
        "BENCH_PICKLE": str(assets.fraud_pickle),
        "BENCH_NAME": model,
        "BENTOML_DO_NOT_TRACK": "True",
    }

    def peer(
        name: str,
        environment: str,
        command: Callable[[Launch], list[str]],
        rest: Dialect,
        versions: tuple[str, ...],
        grpc: bool = False,
        prepare: Callable[[Launch], list[str]] | None = None,
        more: Mapping[str, str] | None = None,
    ) -> Contender:
        given = {**variables, **(more or {})}
        return Contender(name, environment, command, given, model, sample, output, rest, grpc, prepare, versions)

    def mlserver(name: str, **more: str) -> Contender:
        return peer(name, "mlserver", _mlserver, speaks_oip, ("mlserver",), True, _mlserver_settings, more)

    speaks_oip = dialects.oip(model, output)
    with_mosec = dialects.oip(model, output, path="/inference")
    return [
        peer("FastAPI, 1 worker", "fastapi", _textbook(1), dialects.TEXTBOOK, ("fastapi", "uvicorn")),
        peer("FastAPI, 2 workers", "fastapi", _textbook(2), dialects.TEXTBOOK, ("fastapi", "uvicorn")),
        # Two forms, because neither is the best at everything: batching in a worker process as the others have it, and
        # without either, which is faster for a model as small as this one but lets the model block the server.
        mlserver("MLServer", BENCH_PARALLEL="1", BENCH_BATCH="1"),
        mlserver("MLServer, in process", BENCH_PARALLEL="0", BENCH_BATCH="0"),
        peer("KServe", "kserve", _kserve, speaks_oip, ("kserve",), grpc=True),
        peer("LitServe", "litserve", _litserve, dialects.LITSERVE, ("litserve",)),
        peer("BentoML", "bentoml", _bentoml, dialects.BENTOML, ("bentoml",)),
        peer("mosec", "mosec", _mosec, with_mosec, ("mosec",)),
    ]


def _textbook(workers: int) -> Callable[[Launch], list[str]]:
    def command(launch: Launch) -> list[str]:
        options = ["--workers", str(workers), "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
        place = ["--host", "127.0.0.1", "--port", str(launch.rest), "--log-level", "warning"]
        return [str(launch.python), "-m", "uvicorn", "fastapi_app:app", *place, *options]

    return command


def _mlserver_settings(launch: Launch) -> list[str]:
    ports = [str(launch.rest), str(launch.grpc), str(launch.other)]
    return [str(launch.python), str(SERVERS / "mlserver_app.py"), str(launch.folder), *ports]


def _mlserver(launch: Launch) -> list[str]:
    return [str(launch.python.with_name("mlserver")), "start", str(launch.folder)]


def _kserve(launch: Launch) -> list[str]:
    ports = ["--http_port", str(launch.rest), "--grpc_port", str(launch.grpc)]
    quiet = ["--enable_latency_logging", "false", "--log_config_file", str(SERVERS / "kserve_logging.yaml")]
    return [str(launch.python), str(SERVERS / "kserve_app.py"), *ports, "--workers", "1", *quiet]


def _litserve(launch: Launch) -> list[str]:
    return [str(launch.python), str(SERVERS / "litserve_app.py"), str(launch.rest)]


def _bentoml(launch: Launch) -> list[str]:
    place = ["--host", "127.0.0.1", "--port", str(launch.rest)]
    return [str(launch.python.with_name("bentoml")), "serve", "bentoml_app:Fraud", *place]


def _mosec(launch: Launch) -> list[str]:
    place = ["--address", "127.0.0.1", "--port", str(launch.rest), "--log-level", "warning"]
    return [str(launch.python), str(SERVERS / "mosec_app.py"), *place]
