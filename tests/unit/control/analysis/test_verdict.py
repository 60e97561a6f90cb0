from __future__ import annotations

import pytest

from headrace.control.analysis.verdict import CheckResult, Finding, combine

PASS, FAIL, OPEN = Finding.PASS, Finding.FAIL, Finding.INCONCLUSIVE


def result(finding: Finding, gate: bool = True, needed: bool = True, check: str = "errors") -> CheckResult:
    return CheckResult(check, finding, f"because of {check}", gate, needed)


@pytest.mark.parametrize(
    ("checks", "finding"),
    [
        ((), OPEN),
        ((result(PASS),), PASS),
        ((result(PASS), result(OPEN)), OPEN),
        ((result(PASS), result(FAIL), result(OPEN)), FAIL),
        ((result(PASS), result(OPEN, needed=False)), PASS),
        ((result(PASS), result(FAIL, needed=False)), FAIL),
        ((result(PASS), result(FAIL, gate=False)), PASS),
        ((result(FAIL, gate=False),), OPEN),
        ((result(OPEN, needed=False),), OPEN),
    ],
)
def test_combine(checks: tuple[CheckResult, ...], finding: Finding) -> None:
    assert combine(checks).finding is finding


def test_the_reason_names_the_checks_that_decide() -> None:
    found = combine((result(PASS), result(FAIL, check="latency"), result(FAIL, check="refusals")))
    assert found.reason == "latency: because of latency; refusals: because of refusals"
    assert combine((result(PASS, check="a"), result(OPEN, check="b"))).reason == "b: because of b"
    assert combine((result(PASS, check="a"),)).reason == "1 checks passed: a"


def test_warnings_are_what_failed_and_is_no_gate() -> None:
    warned = result(FAIL, gate=False, check="predictions")
    assert combine((result(PASS), warned, result(OPEN, gate=False))).warnings == (warned,)
