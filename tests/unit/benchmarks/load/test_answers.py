import re

import msgspec
import pytest

from benchmarks.load.answers import mismatch


def answer(name="y", shape=(1, 2), data=(0.25, 0.75)):
    return msgspec.json.encode({"outputs": [{"name": name, "datatype": "FP32", "shape": shape, "data": data}]})


def check(body, expected):
    return mismatch(body, expected, rtol=1e-4, atol=1e-6)


def test_right_values_match_within_the_tolerance():
    assert check(answer(), {"y": [0.25, 0.75]}) is None
    assert check(answer(data=(0.250001, 0.75)), {"y": [0.25, 0.75]}) is None


def test_integer_outputs_match():
    assert check(answer(shape=(1,), data=(1,)), {"y": [1.0]}) is None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (answer(data=(0.26, 0.74)), r"got \[0.26, 0.74\]"),
        (answer(name="z"), "'y' is missing"),
        (answer(shape=(1, 1), data=(0.25,)), "1 values"),
        (answer(shape=(2, 2)), "2 values of shape"),
        (b'{"error":"no"}', "not an answer"),
        (b"<html>", "not an answer"),
    ],
)
def test_wrong_answers_are_told_apart(body, reason):
    found = check(body, {"y": [0.25, 0.75]})
    assert found is not None
    assert re.search(reason, found)


@pytest.mark.parametrize("wrong_at", [None, 0, 499])
def test_long_outputs_are_compared_whole(wrong_at):
    right = [float(i) for i in range(500)]
    got = list(right)
    if wrong_at is not None:
        got[wrong_at] += 1
    assert (check(answer(shape=(500,), data=got), {"y": right}) is None) == (wrong_at is None)
