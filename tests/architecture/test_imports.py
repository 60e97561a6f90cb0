"""What each process imports, looked at in real processes: the worker stays lean, the gateway knows no framework."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import workers
from tests.workers import Gateway, answer, call, echo, python_model, running

SERVER_SIDE = (
    *("prometheus_client", "opentelemetry", "structlog", "h2corn", "fastapi", "starlette", "uvicorn", "uvloop"),
    *("rich", "typer", "click", "pydantic", "google.protobuf", "grpc", "httpx", "yaml"),
)
FRAMEWORKS = (
    *("onnxruntime", "sklearn", "skops", "joblib", "xgboost", "lightgbm", "pandas", "scipy", "torch", "tensorflow"),
    *("cloudpickle", "mlflow", "onnx"),
)
OUR_SERVER = (
    "headrace.gateway",
    "headrace.pipeline",
    "headrace.api",
    "headrace.app",
    "headrace.cli",
    "headrace.control",
)


def imported(code: str) -> set[str]:
    """Modules that a fresh interpreter has after running ``code``."""
    program = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    return set(json.loads(output.splitlines()[-1]))


def offenders(modules: set[str], forbidden: tuple[str, ...]) -> list[str]:
    return sorted(m for m in modules if any(m == f or m.startswith(f"{f}.") for f in forbidden))


def test_worker_process_that_serves_imports_nothing_of_the_server(tmp_path: Path) -> None:
    """Asked from inside: a model that tells what its process has imported, while it serves."""
    body = "batchable = False\ndef predict(self, x): return {'m': np.array(sorted(sys.modules), object)}"

    async def ask() -> set[str]:
        async with running(tmp_path, python_model(tmp_path, body)) as worker:
            await worker.ready()
            handle = await worker.connect(Gateway())
            one = call(1)
            handle.submit([one], 0.0, 1, idempotent=True)
            names = {item.decode() for item in await answer(one)}
            handle.close()
            return names

    modules = asyncio.run(ask())
    assert "headrace.replica.execution" in modules
    assert offenders(modules, SERVER_SIDE) == []
    assert offenders(modules, FRAMEWORKS) == [], "only the runtime that is needed is imported"
    assert offenders(modules, OUR_SERVER) == []
    assert offenders(modules, ("asyncio",)) == []
    assert workers.TOKEN not in modules


def test_echo_worker_imports_no_framework(tmp_path: Path) -> None:
    path = echo(tmp_path).path
    code = (
        "from headrace.runtimes import table\n"
        "from headrace.core.models import Artifact, Format\n"
        "from headrace.runtimes.runtime import LoadOptions\n"
        "import headrace.replica.worker\n"
        f"table.load(Artifact({path!r}, Format.ECHO, 'echo', 'd'), LoadOptions())"
    )
    assert offenders(imported(code), (*SERVER_SIDE, *FRAMEWORKS, *OUR_SERVER)) == []


def test_gateway_imports_no_runtime_framework_and_no_management_api() -> None:
    modules = imported("import headrace.app.gateway, headrace.gateway.codec_process")
    assert "headrace.gateway.http" in modules
    assert offenders(modules, FRAMEWORKS) == []
    assert offenders(modules, ("fastapi", "starlette", "pydantic", "rich", "typer")) == []
    assert offenders(modules, ("headrace.api", "headrace.cli", "headrace.control", "headrace.store")) == []


def test_codec_process_is_lean() -> None:
    modules = imported("import headrace.gateway.codec_process")
    assert offenders(modules, FRAMEWORKS) == []
    assert offenders(modules, ("h2corn", "uvloop", "fastapi", "structlog", "prometheus_client", "rich", "typer")) == []


def test_supervisor_imports_no_framework_at_all() -> None:
    modules = imported("import headrace.app.supervisor")
    assert offenders(modules, (*FRAMEWORKS, "fastapi", "h2corn", "uvloop", "google.protobuf")) == []


def test_controller_imports_fastapi_only_when_it_serves_it() -> None:
    modules = imported("import headrace.app.controller.controller")
    assert offenders(modules, (*FRAMEWORKS, "fastapi", "h2corn")) == []


def test_inspection_runs_without_frameworks() -> None:
    modules = imported("import headrace.runtimes.inspect")
    assert offenders(modules, (*FRAMEWORKS, *SERVER_SIDE, *OUR_SERVER)) == []


@pytest.mark.parametrize("statement", ["import headrace", "from headrace import Model"])
def test_import_of_the_package_is_cheap(statement: str) -> None:
    modules = imported(statement)
    lazy = ("fastapi", "h2corn", "uvloop", "google.protobuf", "structlog", "prometheus_client", "rich", "typer")
    assert offenders(modules, (*FRAMEWORKS, *lazy)) == []
    assert len(offenders(modules, ("headrace",))) < 40


def test_help_imports_neither_numpy_nor_frameworks() -> None:
    modules = imported("import headrace.cli.main")
    assert offenders(modules, (*FRAMEWORKS, "numpy", "fastapi", "h2corn", "google.protobuf")) == []
