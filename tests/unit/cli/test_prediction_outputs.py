"""Predictions as JSON, JSON lines and tables."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest

from headrace.cli.prediction_outputs import ROWS_SHOWN, make_writer
from headrace.client.wire import Prediction


def prediction(**outputs: Any) -> Prediction:
    return Prediction("m", "2", {name: np.asarray(values) for name, values in outputs.items()})


TWO = prediction(label=np.array(["a", "b"], object), p=np.array([[0.1, 0.9], [0.5, 0.5]], np.float32))
ONE = prediction(label=np.array(["c"], object), p=np.array([[1, 0]], np.float32))


def written(form: str, *answers: Prediction, batchable: bool = True) -> str:
    out = io.StringIO()
    writer = make_writer(form, out)
    for answer in answers:
        writer.add(answer, batchable)
    writer.finish()
    return out.getvalue()


def test_json_joins_the_rows_of_all_requests() -> None:
    assert json.loads(written("json", TWO, ONE)) == {
        "model": "m",
        "version": "2",
        "outputs": {"label": ["a", "b", "c"], "p": [[0.1, 0.9], [0.5, 0.5], [1.0, 0.0]]},
    }


def test_json_lines_are_rows() -> None:
    lines = [json.loads(line) for line in written("jsonl", TWO, ONE).splitlines()]
    assert lines == [
        {"label": "a", "p": [0.1, 0.9]},
        {"label": "b", "p": [0.5, 0.5]},
        {"label": "c", "p": [1.0, 0.0]},
    ]


def test_outputs_that_are_no_rows_are_one_line() -> None:
    fixed = prediction(x=[1, 2, 3])
    assert written("jsonl", fixed, batchable=False) == '{"x":[1,2,3]}\n'
    assert written("jsonl", prediction(x=[1, 2], n=3)) == '{"x":[1,2],"n":3}\n'


def test_what_json_cannot_hold() -> None:
    odd = prediction(x=[float("nan"), float("inf")], b=np.array([b"\xff", b"a"], object))
    assert json.loads(written("json", odd))["outputs"] == {"x": [None, None], "b": ["/w==", "YQ=="]}


def test_no_rows_print_nothing() -> None:
    assert written("json") == ""
    assert written("jsonl", prediction(x=np.empty(0))) == ""


def test_tables_have_a_column_per_output() -> None:
    lines = [line.split() for line in written("table", TWO).splitlines() if line.strip()]
    assert lines[0] == ["label", "p"]
    assert ["a", "[0.1,", "0.9]"] in lines


@pytest.mark.parametrize(
    ("value", "shown"), [(1.23456789, "1.23457"), (7, "7"), ("[red]x[/]", "[red]x[/]"), (True, "True")]
)
def test_cells(value: Any, shown: str) -> None:
    assert shown in written("table", prediction(x=np.array([value], object if isinstance(value, str) else None)))


def test_long_cells_and_long_tables_are_cut() -> None:
    text = written("table", prediction(x=np.array(["z" * 500], object)))
    assert text.count("z") == 59
    many = prediction(x=np.arange(ROWS_SHOWN + 7))
    text = written("table", many)
    assert "… and 7 more rows; --output jsonl prints all" in text
    assert f" {ROWS_SHOWN - 1} " in text
    assert f" {ROWS_SHOWN} " not in text
