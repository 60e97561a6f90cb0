"""Golden requests of models that stream, asked of real workers: what is compared, and what bounds a stream."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from headrace.control.analysis.verdict import Finding
from headrace.control.golden import GoldenReport
from headrace.core.comparison import Tolerance
from headrace.core.models import Artifact
from headrace.core.tensors import DType, Tensor
from headrace.pipeline.deployment import STREAM_CREDIT
from headrace.protocols.golden_lines import GoldenRequest
from tests.unit.app.rollouts.test_golden_requests import (
    HANGS,
    Others,
    asked,
    asked_with_another,
    floats,
    golden_file,
    replica,
    request,
)
from tests.workers import echo, python_model


def copies(value: float, count: int) -> GoldenRequest:
    """A request to an echo model that answers with so many copies."""
    tensor = floats(value)
    return GoldenRequest((tensor,), responses=((tensor,),) * count)


def counting(folder: Path, step: str = "x[0] + number", until: str = "10_000_000", *, concurrency: int = 1) -> Artifact:
    """Streams ``y``: ``step`` for each number; leaves a file ``closed`` when its stream was closed."""
    return python_model(
        folder,
        f"concurrency = {concurrency}\n"
        "def predict(self, x: headrace.Float32) -> {'y': headrace.Float32}:\n"
        "    try:\n"
        f"        for number in range({until}):\n"
        f"            yield {step}\n"
        "    finally:\n"
        f"        open({str(folder / 'closed')!r}, 'a').write('.')",
    )


def counted(given: float, *answers: float, name: str = "") -> GoldenRequest:
    responses = tuple((floats(value, name="y"),) for value in answers)
    return GoldenRequest((floats(given),), name=name, responses=responses)


@pytest.mark.parametrize("count", [1, 3, 4 * STREAM_CREDIT])
def test_streams_as_recorded(tmp_path: Path, count: int) -> None:
    found = asked(tmp_path, echo(tmp_path, chunks=count), *(copies(n, count) for n in range(20)))
    assert found == GoldenReport(Finding.PASS, "20 answered as recorded")


def test_a_stream_without_a_response(tmp_path: Path) -> None:
    silent = counting(tmp_path, until="0")
    assert asked(tmp_path, silent, counted(1)).finding is Finding.PASS


def test_every_response_is_compared_within_its_tolerance(tmp_path: Path) -> None:
    near = counted(1.0, 1.05, 2.05, 3.05)
    near = GoldenRequest(near.inputs, responses=near.responses, tolerances={"y": Tolerance(atol=0.1)})
    model = counting(tmp_path, until="3")
    found = asked(tmp_path, model, near, counted(1, 1, 2, 4), counted(2, 2, 3), counted(3, 3, 4, 5, 6))
    assert found.finding is Finding.FAIL
    assert found.differences == (
        "line 2: response 3: output 'y' differs in 1 of 1 values, first at [0]: 3.0, expected 4.0",
        "line 3: the stream goes on after the 2 responses that were recorded",
        "line 4: the stream ended after 3 of 4 responses",
    )


def test_a_stream_without_an_end_is_cancelled_after_one_response_too_many(tmp_path: Path) -> None:
    """And gives its only slot back: the next request is answered."""
    model = counting(tmp_path, until="10_000_000 if x[0] == 7 else 2")
    found = asked(tmp_path, model, counted(7, 7, 8), counted(1, 1, 2))
    assert found.differences == ("line 1: the stream goes on after the 2 responses that were recorded",)
    assert (tmp_path / "closed").read_text() == ".."


@pytest.mark.parametrize(
    ("streams", "says"),
    [
        (True, "the version answers with a stream, and one answer was recorded"),
        (False, "the version gives one answer, and a stream was recorded"),
    ],
)
def test_one_answer_is_no_stream_and_the_other_way_round(tmp_path: Path, streams: bool, says: str) -> None:
    model = echo(tmp_path, **({"chunks": 1} if streams else {}))
    found = asked(tmp_path, model, request(1) if streams else copies(1, 1))
    assert found.finding is Finding.FAIL
    assert found.differences == (f"line 1: failed with unsupported: {says}",)


def test_a_stream_that_raises_fails(tmp_path: Path) -> None:
    found = asked(tmp_path, counting(tmp_path, "x[0] * [1, 1][number]", "3"), counted(2, 2, 2, 2))
    assert found.finding is Finding.FAIL
    assert "line 1: failed with model_raised: " in found.reason


def test_what_the_model_does_not_take_fails(tmp_path: Path) -> None:
    wrong = GoldenRequest((Tensor("x", DType.INT64, np.array([1])),), responses=((floats(1.0, name="y"),),))
    found = asked(tmp_path, counting(tmp_path), wrong)
    assert "input 'x': expected datatype FP32, got INT64" in found.differences[0]


# --- deaths and hangs ---------------------------------------------------------------------------------------------


def hanging(folder: Path) -> Artifact:
    return counting(folder, "x[0] if x[0] != 7 or number < 2 else time.sleep(3600)", "3")


def test_a_stream_that_hangs_in_its_middle_fails_and_nothing_more_is_asked(tmp_path: Path) -> None:
    found = asked(
        tmp_path, hanging(tmp_path), counted(1, 1, 1, 1), counted(7, 7, 7, 7), counted(2, 2, 2, 2), timeout_s=2.0
    )
    assert found.finding is Finding.FAIL
    assert (
        found.reason
        == "1 of 3 differ: line 2: failed with deadline_exceeded: no response within 2 s; 1 could not be asked"
    )


def test_the_time_for_all_is_bounded_and_no_fault_of_the_version(tmp_path: Path) -> None:
    found = asked(tmp_path, hanging(tmp_path), counted(7, 7, 7, 7), counted(1, 1), timeout_s=HANGS, total_s=2.0)
    assert found.finding is Finding.INCONCLUSIVE
    assert found.reason.endswith("no answer within the 2 s for all golden requests")


def test_a_stream_that_two_replicas_die_of_fails(tmp_path: Path) -> None:
    """Streams run beside each other at the first death; only the culprit can be there at the second."""
    deadly = echo(tmp_path, chunks=20, delay_ms=20, exit_on=7)
    found = asked_with_another(tmp_path, deadly, deadly, *(copies(n, 20) for n in (1, 2, 3, 7)))
    assert found.finding is Finding.FAIL
    assert found.differences == ("line 4: failed with poison_request: 2 replicas died while they computed it",)


def test_a_death_by_chance_passes_at_the_next_replica(tmp_path: Path) -> None:
    deadly, healthy = echo(tmp_path, chunks=3, exit_on=7), echo(tmp_path, chunks=3)
    found = asked_with_another(tmp_path, deadly, healthy, copies(1, 3), copies(7, 3), copies(2, 3))
    assert found == GoldenReport(Finding.PASS, "3 answered as recorded")


def test_what_is_not_idempotent_is_not_run_again(tmp_path: Path) -> None:
    async def run() -> GoldenReport:
        deadly, healthy = echo(tmp_path, chunks=3, exit_on=7), echo(tmp_path, chunks=3)
        async with replica(tmp_path, deadly) as one, replica(tmp_path, healthy, 2) as two:
            return await one.ask(golden_file(tmp_path, copies(7, 3)), Others(two), idempotent=False)

    found = asyncio.run(run())
    assert found.finding is Finding.INCONCLUSIVE
    assert "the replica died while it computed this; the model is not idempotent, no re-run" in found.reason
