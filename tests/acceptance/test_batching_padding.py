"""Requests of different lengths share batches where padding is declared, seen from outside; answers are those of a
lone request."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from headrace.core.models import Artifact
from headrace.runtimes import onnx
from headrace.runtimes.inspect import inspect
from headrace.runtimes.runtime import LoadOptions, Runtime
from tests import models
from tests.acceptance.clients.callers import Arrays, Callers, Failed
from tests.acceptance.clients.metrics import counts
from tests.acceptance.conftest import no_bugs
from tests.serving import Served, eventually, served

pytestmark = pytest.mark.xdist_group("padding")

FORMS = ("oip-json", "oip-binary", "grpc-raw", "grpc-typed")
LONGEST = 40
"""Longer than the largest bucket."""

SQUARES = """\
import time
import headrace

class Squares(headrace.Model):
    pad = {"x": 0}
    buckets = (8, 16)
    dims = {"squares": "length"}

    def predict(self, x: headrace.Int64[-1]) -> {
        "squares": headrace.Int64[-1], "width": headrace.Int64, "together": headrace.Int64
    }:
        time.sleep(0.8)  # long enough for all callers of a busy machine
        return {"squares": x * x, "width": [x.shape[1]] * len(x), "together": [len(x)] * len(x)}
"""

CONFIG = """\
gateways: {gateways}
endpoints:
  text:
    model: {folder}/masked.onnx
    batching: {{mode: always, pad: {{input_ids: 0, attention_mask: 0}}, buckets: [8, 16, 32]}}
  exact: {{model: {folder}/masked.onnx, batching: always}}
  squares: {{model: {folder}/squares.py}}
trust: [{folder}/squares.py]
explain_batching: true
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("padding")
    models.onnx_masked(made)
    (made / "squares.py").write_text(textwrap.dedent(SQUARES))
    return made


@contextmanager
def serving(folder: Path, gateways: int) -> Iterator[Served]:
    directory = folder / f"gateways-{gateways}"
    directory.mkdir()
    config = directory / "config.yaml"
    config.write_text(CONFIG.format(folder=folder, gateways=gateways))
    with served("--config", config, directory=directory) as running:
        yield running
        no_bugs(running.log())


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Served]:
    with serving(folder, 1) as running:
        yield running


@pytest.fixture(scope="module")
def callers(server: Served) -> Iterator[Callers]:
    made = Callers(server.address)
    yield made
    made.close()


@pytest.fixture(scope="module")
def alone(folder: Path) -> Iterator[Runtime]:
    artifact: Artifact = inspect(folder / "masked.onnx")
    runtime = onnx.load(artifact, LoadOptions())
    yield runtime
    runtime.close()


def texts(at: int) -> Arrays:
    random = np.random.default_rng(at)
    shape = 1 + at % 3, 1 + at * 7 % LONGEST
    mask = random.integers(0, 2, shape)
    mask[:, :1] = 1
    return {"input_ids": random.integers(0, 100, shape), "attention_mask": mask}


def mean_batch(server: Served, model: str, requests: int) -> float:
    """In requests, once so many were counted: all rows over the batches, by the rows of a request."""

    def look() -> dict[str, float] | None:
        found = counts(server, model)
        return found if found.get("headrace_requests_total", 0) >= requests else None

    found = eventually(look)
    assert found is not None
    return found["headrace_batch_rows_sum"] / found["headrace_batch_rows_count"]


def test_mixed_lengths_share_batches_and_get_the_answers_of_a_lone_request(folder: Path, alone: Runtime) -> None:
    """With two gateways, so that the worker joins what they send."""
    with serving(folder, 2) as server:
        callers = Callers(server.address)
        try:
            compare(server, callers, alone)
        finally:
            callers.close()


def compare(server: Served, callers: Callers, alone: Runtime) -> None:
    requests = [texts(at) for at in range(600)]
    for model in ("text", "exact"):
        specs = callers.specs(model)
        calls = [callers.ask(FORMS[at % len(FORMS)], model, specs, inputs) for at, inputs in enumerate(requests)]
        for inputs, got in zip(requests, callers.together(calls), strict=True):
            assert not isinstance(got, Failed), got
            wanted = alone.predict(inputs, {})
            assert got.keys() == wanted.keys()
            for name, array in wanted.items():
                assert got[name].shape == array.shape, name
                if array.dtype.kind == "f":
                    np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-6, err_msg=name)
                else:
                    assert got[name].tolist() == array.tolist(), name
    rows = sum(len(inputs["input_ids"]) for inputs in requests) / len(requests)
    padded, exact = (mean_batch(server, model, len(requests)) for model in ("text", "exact"))
    assert padded > 1.2 * rows, "more than one request in a batch"
    assert padded > exact


def behind(callers: Callers, widths: list[int]) -> list[Arrays]:
    """Answers to rows of these widths that were all sent while the model was busy with one before them."""
    specs = callers.specs("squares")

    async def later(call: Any) -> Any:
        await asyncio.sleep(0.1)
        return await call

    def ask(at: int, width: int) -> Any:
        return callers.ask(FORMS[at % len(FORMS)], "squares", specs, {"x": np.arange(width).reshape(1, width)})

    calls = [ask(0, 1), *(later(ask(at, width)) for at, width in enumerate(widths))]
    found = []
    for answer in callers.together(calls)[1:]:
        assert not isinstance(answer, Failed), answer
        found.append(answer)
    return found


def test_a_batch_is_padded_to_its_longest_and_holds_one_bucket(callers: Callers) -> None:
    widths = [2, 5, 3, 5, 12, 10, 20, 20, 21]
    answers = behind(callers, widths)
    for width, answer in zip(widths, answers, strict=True):
        assert answer["squares"].tolist() == [[n * n for n in range(width)]]
    seen = [(int(a["width"][0]), int(a["together"][0])) for a in answers]
    assert seen == [(5, 4)] * 4 + [(12, 2)] * 2 + [(20, 2)] * 2 + [(21, 1)]


def test_a_lone_request_is_not_padded(callers: Callers) -> None:
    specs = callers.specs("squares")
    [answer] = callers.together([callers.ask("oip-json", "squares", specs, {"x": np.array([[3, 4]])})])
    assert not isinstance(answer, Failed)
    assert (answer["width"].tolist(), answer["squares"].tolist()) == ([2], [[9, 16]])


def test_what_is_padded_is_told(server: Served, callers: Callers) -> None:
    [answer] = callers.together([callers.ask("oip-json", "text", callers.specs("text"), texts(3))])
    assert not isinstance(answer, Failed)
    server.wait_event(
        "BatchingExplained",
        where=lambda event: event["deployment"] == "text@1" and "up to 8, 16, 32 go together" in event["explanation"],
    )
    text = httpx.get(f"{server.management_url}/api/v1/deployments/text@1/batching").json()
    assert (text["padded"], text["buckets"]) == (["input_ids", "attention_mask"], [8, 16, 32])
    exact = httpx.get(f"{server.management_url}/api/v1/deployments/exact@1/batching").json()
    assert (exact["padded"], exact["buckets"]) == ([], [])


def test_a_declaration_that_the_model_does_not_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"endpoints: {{t: {{model: {folder}/masked.onnx, batching: {{pad: {{input_ids: 0}}}}}}}}\n")
    with served("--config", config, directory=tmp_path, wait=False) as running:
        eventually(lambda: "input 'attention_mask' has 'sequence', which is padded" in running.log())
