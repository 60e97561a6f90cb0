from __future__ import annotations

import pytest

from headrace.control.analysis.metrics import UserMetric
from headrace.control.analysis.settings import MetricSettings
from headrace.control.analysis.verdict import Finding
from tests.observations import measured, observe, tally


def check(success: str = "<= 0.5", failure: str = "", **fields: int) -> UserMetric:
    made = UserMetric(MetricSettings("churn", success, failure, **fields), error_limit=3)
    made.begin_step()
    return made


def feed(made: UserMetric, *values: float | None) -> UserMetric:
    for value in values:
        made.observe(measured("churn", value, "" if value is not None else "connection refused"))
    return made


@pytest.mark.parametrize(
    ("values", "finding"),
    [
        ((), Finding.INCONCLUSIVE),
        ((0.1, 0.1), Finding.INCONCLUSIVE),
        ((0.1, 0.1, 0.1), Finding.PASS),
        ((0.9, 0.9, 0.1, 0.1, 0.1), Finding.PASS),
        ((0.9, 0.9, 0.9), Finding.FAIL),
        ((0.1, 0.1, 0.1, 0.9, 0.9, 0.9), Finding.FAIL),
        ((None,) * 10, Finding.INCONCLUSIVE),
        ((0.1, 0.1, 0.1, None, None), Finding.PASS),
        ((0.1, 0.1, 0.1, None, None, None), Finding.INCONCLUSIVE),
        ((float("nan"),) * 5, Finding.INCONCLUSIVE),
    ],
)
def test_measurements(values: tuple[float | None, ...], finding: Finding) -> None:
    assert feed(check(), *values).result().finding is finding


def test_an_error_is_told() -> None:
    assert "3 times in a row: connection refused" in feed(check(), None, None, None).result().reason


def test_between_both_conditions_nothing_is_decided() -> None:
    made = feed(check("<= 0.2", "> 0.8"), *[0.5] * 20)
    assert made.result().finding is Finding.INCONCLUSIVE
    assert feed(made, 0.9, 0.9, 0.9).result().finding is Finding.FAIL
    assert "success: <= 0.2, failure: > 0.8" in made.result().reason


def test_a_failure_condition_alone() -> None:
    assert feed(check("", "> 0.8"), 0.1, 0.1, 0.1).result().finding is Finding.PASS


def test_other_metrics_and_looks_without_a_measurement_do_not_count() -> None:
    made = check()
    for _ in range(9):
        made.observe(measured("other", 0.1))
        made.observe(observe(tally(1), tally(1)))
    assert made.result().finding is Finding.INCONCLUSIVE
    assert (made.good, made.bad, made.errors) == (0, 0, 0)


def test_a_step_counts_anew_but_a_failure_stays() -> None:
    made = feed(check(), 0.9, 0.9)
    made.begin_step()
    assert feed(made, 0.9, 0.9).result().finding is Finding.INCONCLUSIVE
    feed(made, 0.9)
    made.begin_step()
    assert feed(made, 0.1, 0.1, 0.1).result().finding is Finding.FAIL
