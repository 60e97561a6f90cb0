"""kserve's REST and gRPC clients, through ``clients/kserve_client.py``."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Rest
from tests.serving import Served

pytestmark = pytest.mark.xdist_group("clients")

ECHOED = {
    "FP32": [0.5, -1.25],
    "FP64": [0.1, 1e300],
    "INT8": [-128, 127],
    "INT64": [-(1 << 53), 5],
    "UINT16": [0, 65535],
    "BOOL": [True, False],
    "BYTES": ["küche", "中国"],
}


@functools.cache
def run(protocol: str, address: str) -> dict[str, Any]:
    script = Path(__file__).with_name("clients") / "kserve_client.py"
    done = subprocess.run([sys.executable, script, protocol, address], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def values(answer: dict[str, Any]) -> dict[str, Any]:
    return {output["name"]: output["values"] for output in answer["outputs"]}


def check_cancer(answer: dict[str, Any]) -> None:
    found = {output["name"]: output for output in answer["outputs"]}
    assert found["label"]["datatype"] == "INT64"
    assert found["label"]["shape"] == [2]
    assert found["probabilities"]["shape"] == [2, 2]
    assert sum(found["probabilities"]["values"]) == pytest.approx(2, rel=1e-5)


def test_rest_health(rest: Rest) -> None:
    got = run("rest", rest.address)
    assert {name: got[name] for name in got if name.split()[-1] in ("live", "ready", "model")} == {
        "v1 live": True,
        "v2 live": True,
        "v2 ready": True,
        "v1 model": True,
        "v2 model": True,
        "v2 no model": False,
    }


def test_rest_v1(rest: Rest) -> None:
    got = run("rest", rest.address)
    assert [row.keys() for row in got["v1 instances"]["predictions"]] == [{"label", "probabilities"}] * 2
    assert got["v1 inputs"]["outputs"].keys() == {"label", "probabilities"}
    first, second = got["v1 columns"]["predictions"]
    assert first == second
    assert first["label"] in ("fine", "fraud")
    assert "instances[0]: column 'age' is missing" in got["v1 error"]
    assert "'nobody'" in got["v1 unknown"]


@pytest.mark.parametrize("form", ["binary", "json"])
def test_rest_v2_datatypes(rest: Rest, form: str) -> None:
    got = run("rest", rest.address)[f"v2 {form}"]
    assert got["id"] == "a1"
    assert got["model_name"] == "echo"
    assert values(got) == ECHOED


def test_rest_v2_models(rest: Rest) -> None:
    got = run("rest", rest.address)
    for name in ("v2 cancer", "v2 slash", "v2 binary outputs"):
        check_cancer(got[name])
    assert got["v2 cancer"]["id"] == "c7"
    assert got["v2 slash"]["model_name"] == "org/cancer"
    assert values(got["v2 cancer"]) == values(got["v2 binary outputs"])
    assert "missing input 'X'" in got["v2 error"]
    assert "'nobody'" in got["v2 unknown"]


def test_grpc(clients_server: Served) -> None:
    got = run("grpc", clients_server.address)
    assert got["live"] is True
    assert got["ready"] is True
    assert got["model"] is True
    for name in ("raw", "typed"):
        assert got[name]["id"] == "a1"
        assert values(got[name]) == ECHOED
    check_cancer(got["cancer"])
    assert got["cancer"]["id"] == "c7"


def test_grpc_errors(clients_server: Served) -> None:
    got = run("grpc", clients_server.address)
    assert "INVALID_ARGUMENT" in got["error"]
    assert "missing input 'X'" in got["error"]
    assert "NOT_FOUND" in got["unknown"]
    assert "DEADLINE_EXCEEDED" in got["late"]
