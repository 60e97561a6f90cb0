from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.control import golden
from headrace.control.analysis.verdict import Finding
from headrace.control.golden import GoldenAnswer
from headrace.core import errors
from headrace.core.comparison import Tolerance
from headrace.core.tensors import DType, Tensor


def tensor(value: float) -> Tensor:
    return Tensor("y", DType.FP32, np.array([value], np.float32))


def answer(got: float = 1.0, error: errors.HeadraceError | None = None, request: str = "line 1") -> GoldenAnswer:
    responses = () if error is not None else ((tensor(got),),)
    return GoldenAnswer(request, ((tensor(1.0),),), responses, error)


def test_report_of_right_answers() -> None:
    found = golden.report([answer(), answer(request="line 2")])
    assert found == golden.GoldenReport(Finding.PASS, "2 answered as recorded")
    assert golden.report([]).finding is Finding.PASS


def test_report_of_wrong_answers_and_of_the_models_errors() -> None:
    found = golden.report(
        [answer(), answer(2.0, request="a: b"), answer(error=errors.ModelRaised("no"), request="line 3")]
    )
    assert found.finding is Finding.FAIL
    assert found.reason.startswith("2 of 3 differ: a: b: output 'y' differs in 1 of 1 values")
    assert found.differences[1] == "line 3: failed with model_raised: no"


@pytest.mark.parametrize("error", [errors.NotReady(), errors.Overloaded(), errors.ReplicaDied(), errors.Cancelled()])
def test_requests_that_could_not_be_asked_are_no_failure(error: errors.HeadraceError) -> None:
    found = golden.report([answer(), answer(error=error, request="line 2")])
    assert found.finding is Finding.INCONCLUSIVE
    assert found.reason.startswith("1 of 2 could not be asked: line 2:")


def test_a_wrong_answer_counts_more_than_one_that_could_not_be_had() -> None:
    assert golden.report([answer(error=errors.NotReady()), answer(2.0)]).finding is Finding.FAIL


def test_each_request_has_its_own_tolerances() -> None:
    wide = GoldenAnswer("line 2", ((tensor(1.0),),), ((tensor(1.2),),), tolerances={"y": Tolerance(atol=0.5)})
    assert golden.report([answer(), wide]).finding is Finding.PASS
    assert golden.report([answer(1.2), wide]).differences == (
        "line 1: output 'y' differs in 1 of 1 values, first at [0]: 1.2, expected 1.0",
    )


def test_only_the_first_differences_are_spelled_out() -> None:
    found = golden.report([answer(2.0, request=f"line {i}") for i in range(50)])
    assert len(found.differences) == 50
    assert found.reason.count("line ") == 5


def stream(expected: list[float], got: list[float], **tolerances: Tolerance) -> golden.GoldenReport:
    """The report of one stream of responses with one number each."""
    wanted, came = ([(tensor(value),) for value in values] for values in (expected, got))
    return golden.report([GoldenAnswer("line 1", tuple(wanted), tuple(came), None, tolerances, streams=True)])


@pytest.mark.parametrize(
    ("got", "says"),
    [
        ([1.0, 2.0, 4.0], ["response 3: output 'y' differs in 1 of 1 values, first at [0]: 4.0, expected 3.0"]),
        (
            [0.0, 2.0, 4.0],
            [
                "response 1: output 'y' differs in 1 of 1 values, first at [0]: 0.0, expected 1.0",
                "2 responses differ, of which that is the first",
            ],
        ),
        ([1.0, 2.0], ["the stream ended after 2 of 3 responses"]),
        ([], ["the stream ended after 0 of 3 responses"]),
        ([1.0, 2.0, 3.0, 4.0], ["the stream goes on after the 3 responses that were recorded"]),
    ],
)
def test_streams_are_compared_response_by_response(got: list[float], says: list[str]) -> None:
    found = stream([1.0, 2.0, 3.0], got)
    assert found.finding is Finding.FAIL
    assert list(found.differences) == [f"line 1: {what}" for what in says]
    assert found.reason.startswith("1 of 1 differ")


def test_a_tolerance_holds_in_every_response() -> None:
    assert stream([1.0, 2.0], [1.1, 2.1], y=Tolerance(atol=0.2)).finding is Finding.PASS
    assert stream([1.0, 2.0], [1.1, 2.3], y=Tolerance(atol=0.2)).finding is Finding.FAIL


_values = st.lists(st.sampled_from([0.0, 1.0, 2.0]), max_size=5)


@given(_values, _values)
def test_a_stream_passes_exactly_when_it_is_the_recorded_one(expected: list[float], got: list[float]) -> None:
    assert (stream(expected, got).finding is Finding.PASS) == (expected == got)
