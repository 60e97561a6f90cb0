"""Golden requests asked of real workers: right and wrong answers, deaths, hangs, and what cannot be asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.app.rollouts.golden_requests import NextReplica, Terms, ask
from headrace.control.analysis.verdict import Finding
from headrace.control.golden import GoldenReport
from headrace.core import tensors
from headrace.core.comparison import EXACT, Tolerance
from headrace.core.models import Artifact, LoadedModel
from headrace.core.replicas import ReplicaState
from headrace.core.requests import Parameter
from headrace.core.routes import ReplicaRoute
from headrace.core.tensors import DType, Tensor
from headrace.protocols import golden_lines
from headrace.protocols.golden_lines import GoldenRequest
from tests import workers
from tests.workers import TOKEN, RunningWorker, echo, python_model

HANGS = 3600.0
"""Seconds for a request at a replica that hangs: nobody waits for them in a test that passes."""


def floats(*values: float, name: str = "x") -> Tensor:
    return Tensor(name, DType.FP32, np.array(values, np.float32))


def request(
    given: float | Sequence[float], expected: float | Sequence[float] | None = None, **more: Any
) -> GoldenRequest:
    """A request to an echo model; ``expected`` None: the right answer."""
    inputs = floats(*np.atleast_1d(given))
    outputs = inputs if expected is None else floats(*np.atleast_1d(expected))
    return GoldenRequest((inputs,), (outputs,), **more)


def golden_file(folder: Path, *requests: GoldenRequest) -> Path:
    path = folder / "golden.jsonl"
    path.write_bytes(b"".join(map(golden_lines.write, requests)))
    return path


class Replica:
    """A worker with one replica, that is ready."""

    def __init__(self, worker: RunningWorker, loaded: LoadedModel, number: int) -> None:
        self.worker = worker
        self.loaded = loaded
        address, page = f"unix:{worker.socket_path}", str(worker.status_path)
        self.route = ReplicaRoute(f"m@2#{number}", address, 0, ReplicaState.READY, TOKEN, page)

    async def ask(self, path: Path, another: NextReplica | None = None, **terms: Any) -> GoldenReport:
        return await ask(
            self.route, self.loaded.signature, path, Terms(slots=self.loaded.slots, **terms), another=another
        )


@contextlib.asynccontextmanager
async def replica(folder: Path, artifact: Artifact, number: int = 1) -> AsyncIterator[Replica]:
    place = folder / f"worker-{number}"
    place.mkdir()
    async with workers.running(place, artifact) as worker:
        [ready] = await worker.ready()
        yield Replica(worker, ready.model, number)


def asked(folder: Path, artifact: Artifact, *requests: GoldenRequest, **terms: Any) -> GoldenReport:
    """Ask one replica of this model."""

    async def run() -> GoldenReport:
        async with replica(folder, artifact) as one:
            return await one.ask(golden_file(folder, *requests), **terms)

    return asyncio.run(run())


@pytest.fixture
def halves(tmp_path: Path) -> Artifact:
    """``y`` is half of ``x``; with ``exact=False`` a little more."""
    return python_model(
        tmp_path,
        "def predict(self, x: headrace.Float32, exact: bool = True) -> {'y': headrace.Float32}:\n"
        "    return {'y': x / 2 if exact else x / 2 + np.float32(0.01)}",
    )


def half(given: float, expected: float, *, exact: bool = True, **more: Any) -> GoldenRequest:
    parameters: dict[str, Parameter] = {"exact": exact}
    return GoldenRequest((floats(given),), (floats(expected, name="y"),), parameters, **more)


# --- answers ------------------------------------------------------------------------------------------------------


def test_answers_as_recorded(tmp_path: Path, halves: Artifact) -> None:
    found = asked(tmp_path, halves, half(1.0, 0.5), half(5.0, 2.5, name="five"))
    assert found == GoldenReport(Finding.PASS, "2 answered as recorded")


def test_another_answer_fails_and_is_told(tmp_path: Path, halves: Artifact) -> None:
    found = asked(tmp_path, halves, half(1.0, 0.5), half(4.0, 2.5, name="four"), half(8.0, 5.0))
    assert found.finding is Finding.FAIL
    assert found.differences == (
        "four: output 'y' differs in 1 of 1 values, first at [0]: 2.0, expected 2.5",
        "line 3: output 'y' differs in 1 of 1 values, first at [0]: 4.0, expected 5.0",
    )
    assert found.reason.startswith("2 of 3 differ: four: output 'y'")


def test_tolerances_are_of_a_request_and_an_output(tmp_path: Path, halves: Artifact) -> None:
    near = half(1.0, 0.5, exact=False, tolerances={"y": Tolerance(atol=0.02)})
    assert asked(tmp_path, halves, near, half(2.0, 1.0, tolerances={"y": EXACT})).finding is Finding.PASS


def test_without_a_tolerance_the_same_answer_fails(tmp_path: Path, halves: Artifact) -> None:
    found = asked(tmp_path, halves, half(1.0, 0.5, exact=False))
    assert found.differences == ("line 1: output 'y' differs in 1 of 1 values, first at [0]: 0.51, expected 0.5",)


def test_a_missing_output_and_one_of_another_datatype_or_shape(tmp_path: Path) -> None:
    x = floats(1.0, 2.0)
    found = asked(
        tmp_path,
        echo(tmp_path),
        GoldenRequest((x,), (floats(1.0, 2.0, name="z"),)),
        GoldenRequest((x,), (Tensor("x", DType.FP64, np.array([1.0, 2.0])),)),
        GoldenRequest((x,), (Tensor("x", DType.FP32, np.array([[1.0, 2.0]], np.float32)),)),
        GoldenRequest((x, floats(5.0, 6.0, name="more")), (x,)),
    )
    assert found.differences == (
        "line 1: output 'z' is missing",
        "line 2: output 'x' is FP32, expected FP64",
        "line 3: output 'x' has shape [2], expected [1, 2]",
    )


def test_every_datatype_goes_there_and_back(tmp_path: Path) -> None:
    values = [
        Tensor("half", DType.FP16, np.array([0.1, np.nan], np.float16)),
        Tensor("brain", DType.BF16, tensors.fp32_to_bf16(np.array([0.1, np.inf], np.float32))),
        Tensor("bytes", DType.BYTES, np.array([b"US", b"\x00\xff"], object)),
        Tensor("big", DType.UINT64, np.array([0, 2**64 - 1], np.uint64)),
        Tensor("flag", DType.BOOL, np.array([True, False])),
    ]
    found = asked(tmp_path, echo(tmp_path), GoldenRequest(tuple(values), tuple(values)))
    assert found.finding is Finding.PASS, found.reason


def test_what_the_model_does_not_take_fails_by_name_and_the_rest_is_asked(tmp_path: Path, halves: Artifact) -> None:
    renamed = GoldenRequest((floats(1.0, name="X"),), (floats(0.5, name="y"),))
    retyped = GoldenRequest((Tensor("x", DType.INT64, np.array([1])),), (floats(0.5, name="y"),))
    found = asked(tmp_path, halves, renamed, retyped, half(4.0, 9.0))
    assert found.finding is Finding.FAIL
    assert "line 1: failed with invalid_input: missing input 'x' and unexpected input 'X'" in found.differences[0]
    assert "line 2: failed with invalid_input: input 'x': expected datatype FP32, got INT64" in found.differences[1]
    assert found.differences[2].startswith("line 3: output 'y' differs")


def test_a_model_that_raises_fails(tmp_path: Path) -> None:
    found = asked(tmp_path, echo(tmp_path, fail_on=7), request(1), request(7), request(2))
    assert found.finding is Finding.FAIL
    assert found.reason.startswith("1 of 3 differ: line 2: failed with model_raised")


def test_five_hundred_requests(tmp_path: Path, halves: Artifact) -> None:
    requests = [half(float(n), n / 2, name=f"n{n}") for n in range(500)]
    requests[321] = half(321.0, 0.0, name="odd")
    found = asked(tmp_path, halves, *requests)
    assert found.differences == ("odd: output 'y' differs in 1 of 1 values, first at [0]: 160.5, expected 0.0",)


def test_rows_beyond_a_batch_are_computed_in_pieces(tmp_path: Path) -> None:
    """The model answers with how many rows it was given."""
    body = (
        "def predict(self, x: headrace.Float32) -> {'y': headrace.Float32}:\n"
        "    return {'y': np.full(len(x), len(x), np.float32)}"
    )
    large = GoldenRequest((floats(*range(7)),), (floats(3, 3, 3, 3, 3, 3, 1, name="y"),))
    found = asked(tmp_path, python_model(tmp_path, body), large, max_batch_size=3)
    assert found.finding is Finding.PASS, found.reason


def test_requests_to_a_concurrent_model_run_beside_each_other(tmp_path: Path) -> None:
    """Each waits for the other: one at a time neither would be answered."""
    body = (
        "concurrency = 2\n"
        "def load(self):\n"
        "    import threading\n"
        "    self.both = threading.Barrier(2)\n"
        "def predict(self, x: headrace.Float32) -> {'y': headrace.Float32}:\n"
        "    self.both.wait(20)\n"
        "    return {'y': x}"
    )
    wanted = [GoldenRequest((floats(n),), (floats(n, name="y"),)) for n in range(4)]
    found = asked(tmp_path, python_model(tmp_path, body), *wanted)
    assert found == GoldenReport(Finding.PASS, "4 answered as recorded")


# --- what cannot be asked -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no json\n", "golden.jsonl, line 1: not valid JSON"),
        (b"", "golden.jsonl holds no golden requests"),
        (None, "golden.jsonl: No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, says: str) -> None:
    async def run() -> GoldenReport:
        path = tmp_path / "golden.jsonl"
        if content is not None:
            path.write_bytes(content)
        async with replica(tmp_path, echo(tmp_path)) as one:
            return await one.ask(path)

    found = asyncio.run(run())
    assert found.finding is Finding.INCONCLUSIVE
    assert found.reason.startswith(says)


def test_a_replica_that_cannot_be_reached(tmp_path: Path) -> None:
    async def run() -> GoldenReport:
        async with replica(tmp_path, echo(tmp_path)) as one:
            one.worker.kill()
            await one.worker.exit_code()
            return await one.ask(golden_file(tmp_path, request(1)))

    found = asyncio.run(run())
    assert found.finding is Finding.INCONCLUSIVE
    assert found.reason.startswith("replica m@2#1 cannot be reached")


# --- deaths and hangs ---------------------------------------------------------------------------------------------


def test_a_replica_that_hangs_fails_and_nothing_more_is_asked(tmp_path: Path) -> None:
    requests = [request(1, name="fine"), request(7, name="stuck"), *(request(n) for n in range(10, 13))]
    found = asked(tmp_path, echo(tmp_path, hang_on=7), *requests, timeout_s=2.0)
    assert found.finding is Finding.FAIL
    assert found.differences == ("stuck: failed with deadline_exceeded: no answer within 2 s",)
    assert found.reason == f"1 of 5 differ: {found.differences[0]}; 3 could not be asked"


def test_the_time_for_all_is_bounded_and_no_fault_of_the_version(tmp_path: Path) -> None:
    found = asked(tmp_path, echo(tmp_path, hang_on=7), request(1), request(7), request(2), timeout_s=HANGS, total_s=2.0)
    assert found.finding is Finding.INCONCLUSIVE
    says = "line 2 and 1 more: no answer within the 2 s for all golden requests"
    assert found.reason == f"2 of 3 could not be asked: {says}"


def test_a_wrong_answer_is_told_even_when_the_time_is_over(tmp_path: Path) -> None:
    found = asked(tmp_path, echo(tmp_path, hang_on=7), request(1, 2), request(7), timeout_s=HANGS, total_s=2.0)
    assert found.finding is Finding.FAIL
    assert found.reason.endswith("expected 2.0; 1 could not be asked")


def test_a_death_with_no_other_replica_is_inconclusive(tmp_path: Path) -> None:
    found = asked(tmp_path, echo(tmp_path, segv_on=7), request(1), request(7), request(2))
    assert found.finding is Finding.INCONCLUSIVE
    says = "line 2 and 1 more: replica m@2#1 died, and there is no other to ask"
    assert found.reason == f"2 of 3 could not be asked: {says}"


class Others:
    """Replicas that take the place of dead ones, in order."""

    def __init__(self, *replicas: Replica) -> None:
        self.dead: list[str] = []
        self._left = list(replicas)

    async def __call__(self, dead: str) -> ReplicaRoute | None:
        self.dead.append(dead)
        return self._left.pop(0).route if self._left else None


def asked_with_another(folder: Path, first: Artifact, second: Artifact, *requests: GoldenRequest) -> GoldenReport:
    async def run() -> GoldenReport:
        async with replica(folder, first) as one, replica(folder, second, 2) as two:
            others = Others(two)
            found = await one.ask(golden_file(folder, *requests), others, timeout_s=HANGS)
            assert others.dead[0] == "m@2#1"
            return found

    return asyncio.run(run())


def test_a_request_that_two_replicas_die_of_fails(tmp_path: Path) -> None:
    deadly = echo(tmp_path, exit_on=7)
    found = asked_with_another(tmp_path, deadly, deadly, request(1), request(7), request(2))
    assert found.finding is Finding.FAIL
    assert found.differences == ("line 2: failed with poison_request: 2 replicas died while they computed it",)
    assert found.reason.endswith("; 1 could not be asked")


def test_a_death_by_chance_passes_at_the_next_replica(tmp_path: Path) -> None:
    found = asked_with_another(tmp_path, echo(tmp_path, exit_on=7), echo(tmp_path), request(1), request(7), request(2))
    assert found == GoldenReport(Finding.PASS, "3 answered as recorded")


def test_beside_a_deadly_request_the_others_are_not_blamed(tmp_path: Path) -> None:
    """Four run beside each other at the first death; only the culprit can be there at the second."""
    deadly = echo(tmp_path, concurrency=4, delay_ms=200, exit_on=7)
    found = asked_with_another(tmp_path, deadly, deadly, *(request(n) for n in (1, 7, 2, 3)))
    assert found.finding is Finding.FAIL
    assert found.differences == ("line 2: failed with poison_request: 2 replicas died while they computed it",)


def test_what_is_not_idempotent_is_not_run_again(tmp_path: Path) -> None:
    async def run() -> GoldenReport:
        async with replica(tmp_path, echo(tmp_path, exit_on=7)) as one, replica(tmp_path, echo(tmp_path), 2) as two:
            path = golden_file(tmp_path, request(1), request(7), request(2))
            return await one.ask(path, Others(two), idempotent=False)

    found = asyncio.run(run())
    assert found.finding is Finding.INCONCLUSIVE
    assert found.reason.startswith("1 of 3 could not be asked: line 2: the replica died while it computed this")


def test_waiting_for_another_replica_is_bounded(tmp_path: Path) -> None:
    async def never(dead: str) -> ReplicaRoute | None:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets the event")

    async def run() -> GoldenReport:
        async with replica(tmp_path, echo(tmp_path, exit_on=7)) as one:
            return await one.ask(golden_file(tmp_path, request(7)), never, total_s=3.0)

    found = asyncio.run(run())
    assert found.finding is Finding.INCONCLUSIVE
    assert found.reason.endswith("replica m@2#1 died, and no other was ready within 3 s")
