"""When batches form and what keeps requests apart, seen from outside: models that say how many rows they were called
with. Default settings: nothing waits for a batch; one forms because the replica is busy."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import models
from tests.acceptance.clients.callers import FORMS, Arrays, Callers, Failed
from tests.acceptance.clients.metrics import counts
from tests.acceptance.conftest import no_bugs
from tests.serving import Served, eventually, served

pytestmark = pytest.mark.xdist_group("batching")

CROWD = """\
import time
import headrace

class Crowd(headrace.Model):
    '''How many rows came together; takes its time, so that others wait meanwhile.'''

    def predict(self, x: headrace.Int64) -> {"x": headrace.Int64, "together": headrace.Int64}:
        time.sleep(0.8)  # long enough for all callers of a busy machine
        if (x == 13).any():
            raise ValueError("13 is not accepted")
        return {"x": x, "together": [len(x)] * len(x)}
"""

SCALED = """\
import time
import headrace

class Scaled(headrace.Model):
    '''A parameter of the request decides the answer.'''

    def predict(self, x: headrace.Float64, scale: float = 1.0) -> {"y": headrace.Float64, "together": headrace.Int64}:
        time.sleep(0.8)  # long enough for all callers of a busy machine
        return {"y": x * scale, "together": [len(x)] * len(x)}
"""

CONFIG = """\
endpoints:
  crowd: {{model: {folder}/crowd.py}}
  lonely: {{model: {folder}/crowd.py, batching: exact}}
  scaled: {{model: {folder}/scaled.py}}
  variable: {{model: {folder}/variable.onnx}}
  cancer: {{model: {cancer}}}
trust: [{folder}/crowd.py, {folder}/scaled.py]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("forming")
    (folder / "crowd.py").write_text(textwrap.dedent(CROWD))
    (folder / "scaled.py").write_text(textwrap.dedent(SCALED))
    variable(folder / "variable.onnx")
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(folder=folder, cancer=models.build("onnx")))
    with served("--config", config, directory=folder) as running:
        yield running
        no_bugs(running.log())


def variable(path: Path) -> None:
    """X FP32[N,M] -> DOUBLE FP32[N,M], SUM FP32[N,1]: rows of any width."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Add", ["X", "X"], ["DOUBLE"]),
        helper.make_node("ReduceSum", ["X", "axes"], ["SUM"], keepdims=1),
    ]
    kind = TensorProto.FLOAT
    outputs: list[tuple[str, int, list[Any]]] = [("DOUBLE", kind, ["N", "M"]), ("SUM", kind, ["N", 1])]
    models.write_graph(path, nodes, [("X", kind, ["N", "M"])], outputs, {"axes": np.array([1], np.int64)})


@pytest.fixture(scope="module")
def callers(server: Served) -> Iterator[Callers]:
    made = Callers(server.address)
    yield made
    made.close()


def behind(callers: Callers, model: str, calls: list[Any]) -> list[Arrays | Failed]:
    """Answers of calls that were all sent while the model was busy with a call before them."""
    specs = callers.specs(model)

    async def first(inputs: Arrays) -> Arrays:
        return await callers.ask("grpc-raw", model, specs, inputs)

    async def later(call: Any) -> Any:
        await asyncio.sleep(0.1)
        return await call

    plug: Arrays = {"x": np.zeros(1, np.int64 if model != "scaled" else np.float64)}
    return callers.together([first(plug), *map(later, calls)])[1:]


def test_one_batch_holds_requests_of_every_protocol(callers: Callers) -> None:
    specs = callers.specs("crowd")
    calls, wanted = [], []
    for at, form in enumerate(FORMS * 2):
        rows = 1 + at % 4
        wanted.append(np.arange(rows) + 100 * (at + 1))
        calls.append(callers.ask(form, "crowd", specs, {"x": wanted[-1]}))
    answers = behind(callers, "crowd", calls)
    total = sum(map(len, wanted))
    for answer, x in zip(answers, wanted, strict=True):
        assert not isinstance(answer, Failed), answer
        assert answer["x"].tolist() == x.tolist()
        assert answer["together"].tolist() == [total] * len(x)


def test_a_lone_request_does_not_wait(callers: Callers) -> None:
    answer = callers.together([callers.ask("oip-json", "crowd", callers.specs("crowd"), {"x": np.array([5])})])[0]
    assert not isinstance(answer, Failed)
    assert answer["together"].tolist() == [1]


def test_the_culprit_of_a_batch_fails_alone(callers: Callers) -> None:
    specs = callers.specs("crowd")
    values = [[1, 2], [13], [3], [4, 13], [5]]
    calls = [callers.ask(form, "crowd", specs, {"x": np.array(x)}) for form, x in zip(FORMS, values, strict=False)]
    for x, answer in zip(values, behind(callers, "crowd", calls), strict=True):
        if 13 in x:
            assert isinstance(answer, Failed)
            assert "13 is not accepted" in str(answer)
        else:
            assert not isinstance(answer, Failed), answer
            assert answer["x"].tolist() == x
            # Run again one by one, so that each saw only itself.
            assert answer["together"].tolist() == [len(x)] * len(x)


def test_exact_computes_each_request_alone(callers: Callers) -> None:
    specs = callers.specs("lonely")
    calls = [callers.ask(form, "lonely", specs, {"x": np.arange(3)}) for form in FORMS[:4]]
    for answer in behind(callers, "lonely", calls):
        assert not isinstance(answer, Failed), answer
        assert answer["together"].tolist() == [3, 3, 3]


def test_parameters_keep_requests_apart(callers: Callers) -> None:
    specs = callers.specs("scaled")
    scales = [0.5, 2.0, -1.0]
    wanted = [(scale, np.arange(1 + at % 3, dtype=float) + at) for at, scale in enumerate(scales * 5)]
    calls = [
        callers.ask(FORMS[at % 4], "scaled", specs, {"x": x}, {"scale": scale}) for at, (scale, x) in enumerate(wanted)
    ]
    answers = behind(callers, "scaled", calls)
    for (scale, x), answer in zip(wanted, answers, strict=True):
        assert not isinstance(answer, Failed), answer
        assert answer["y"].tolist() == (x * scale).tolist()
        together = sum(len(other) for other_scale, other in wanted if other_scale == scale)
        assert answer["together"].tolist() == [together] * len(x)


def test_parameters_that_the_model_does_not_read_do_not(callers: Callers) -> None:
    specs = callers.specs("crowd")
    calls = [callers.ask("oip-json", "crowd", specs, {"x": np.array([at])}, {"trace": at}) for at in range(6)]
    for answer in behind(callers, "crowd", calls):
        assert not isinstance(answer, Failed), answer
        assert answer["together"].tolist() == [6]


@settings(max_examples=20, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(FORMS), st.integers(0, 150), st.integers(1, 9), st.integers(0, 1 << 30)),
        min_size=4,
        max_size=20,
    )
)
def test_rows_of_any_width(callers: Callers, requests: list[tuple[str, int, int, int]]) -> None:
    specs = callers.specs("variable")
    given_: list[tuple[str, Arrays]] = []
    for form, rows, width, seed in requests:
        if not rows and form.startswith("v1"):
            continue
        given_.append((form, {"X": np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)}))
    answers = callers.together([callers.ask(form, "variable", specs, inputs) for form, inputs in given_])
    for (form, inputs), answer in zip(given_, answers, strict=True):
        assert not isinstance(answer, Failed), (form, answer)
        x = inputs["X"]
        assert answer["DOUBLE"].tolist() == (x + x).tolist()
        np.testing.assert_allclose(answer["SUM"], x.sum(1, keepdims=True), rtol=1e-5, atol=1e-6)


def test_batches_form_under_load(server: Served, callers: Callers) -> None:
    """The default configuration and a fast model: batches grow because callers come faster than one by one."""
    specs = callers.specs("cancer")
    inputs = [{"X": models.inputs("onnx", 1, seed)["X"]} for seed in range(400)]
    answers = callers.together(
        [callers.ask(FORMS[at % 6], "cancer", specs, given_) for at, given_ in enumerate(inputs)]
    )
    assert not [answer for answer in answers if isinstance(answer, Failed)]

    def mean() -> float | None:
        found = counts(server, "cancer")
        if found.get("headrace_requests_total", 0) < len(inputs):
            return None
        return found["headrace_batch_rows_sum"] / found["headrace_batch_rows_count"]

    found = eventually(mean)
    assert found is not None
    assert found > 1
