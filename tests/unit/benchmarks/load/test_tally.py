import msgspec
import pytest

from benchmarks.load.plan import Arrivals, Check, LoadPlan, Outcome, RequestKind
from benchmarks.load.tally import MAX_TROUBLES, Tally

RIGHT = msgspec.json.encode({"outputs": [{"name": "y", "shape": [1], "data": [1.0]}]})
WRONG = RIGHT.replace(b"1.0", b"2.0")


def tally(check=Check.JSON):
    kinds = [RequestKind(name="a", requests=[b""], expected=[{"y": [1.0]}], check=check)]
    return Tally(LoadPlan(port=1, kinds=kinds, arrivals=Arrivals(1, 1)))


def test_latency_counts_from_the_scheduled_time():
    counted = tally()
    counted.answer(0, 0, scheduled=1.0, now=1.5, status=200, body=RIGHT)
    result = counted.result(1, 0.0)
    assert result.kinds["a"].latency["ok"].p50 == pytest.approx(0.5)
    assert result.count(Outcome.OK) == 1
    assert result.failed == 0
    assert result.checked == 1


def test_a_wrong_value_is_not_a_success():
    counted = tally()
    counted.answer(0, 0, 0.0, 0.1, 200, WRONG)
    result = counted.result(1, 0.0)
    assert result.kinds["a"].outcomes == {"wrong": 1}
    assert result.failed == 1
    assert "expected [1.0]" in result.troubles[0].detail


def test_refusals_are_counted_by_status_and_second():
    counted = tally()
    for now in (0.2, 0.9, 2.5):
        counted.answer(0, 0, now - 0.01, now, 503, b'{"error":"full"}')
    counted.answer(0, 0, 2.0, 2.1, 200, RIGHT)
    result = counted.result(4, 0.0)
    assert result.per_second == {"status 503": [2, 0, 1], "ok": [0, 0, 1]}
    assert result.kinds["a"].latency["status 503"].p99 == pytest.approx(0.01)
    assert result.failed == 3


def test_bodies_kept_for_later_are_judged_in_the_end():
    counted = tally(Check.JSON_LATER)
    counted.answer(0, 0, 0.0, 0.1, 200, RIGHT)
    counted.answer(0, 0, 0.0, 0.2, 200, WRONG)
    assert counted.checked == 0
    assert counted.result(2, 0.0).kinds["a"].outcomes == {"ok": 1, "wrong": 1}
    assert counted.checked == 2


def test_troubles_are_bounded_for_each_outcome_but_all_are_counted():
    counted = tally()
    for _ in range(MAX_TROUBLES + 50):
        counted.end(0, 0.0, 1.0, Outcome.REFUSED)
    counted.end(0, 0.0, 2.0, Outcome.CUT)
    result = counted.result(1, 0.0)
    assert [trouble.outcome for trouble in result.troubles] == ["refused"] * MAX_TROUBLES + ["cut"]
    assert result.failed == MAX_TROUBLES + 51
