from __future__ import annotations

import pytest

from headrace.control.analysis.refusals import Refusals
from headrace.control.analysis.settings import RefusalSettings
from headrace.control.analysis.verdict import Finding
from tests.observations import observe, tally


def check() -> Refusals:
    made = Refusals(RefusalSettings(), block_s=20.0, block_requests=20, alarm=1000.0, clear=20.0)
    made.begin_step()
    return made


@pytest.mark.parametrize(
    ("canary", "baseline", "finding"),
    [(0, 0, Finding.PASS), (5, 0, Finding.FAIL), (5, 5, Finding.PASS), (0, 50, Finding.PASS), (2, 0, Finding.FAIL)],
)
def test_shares_of_a_hundred_requests(canary: int, baseline: int, finding: Finding) -> None:
    made = check()
    for _ in range(40):
        made.observe(observe(tally(100 - canary, refused=canary), tally(), tally(100 - baseline, refused=baseline)))
    assert made.result().finding is finding


def test_one_burst_of_refusals_is_borne() -> None:
    made = check()
    for look in range(60):
        made.observe(observe(tally(0, refused=100) if look in (20, 21) else tally(100), tally(), tally(100)))
    assert made.result().finding is Finding.PASS
    assert "in 1 of 30 blocks" in made.result().reason


def test_too_few_requests_decide_nothing() -> None:
    made = check()
    for _ in range(60):
        made.observe(observe(tally(0, refused=0), tally(), tally(10)))
    assert made.result().finding is Finding.INCONCLUSIVE
    assert made.signs.blocks == 0
