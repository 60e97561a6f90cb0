from __future__ import annotations

import pytest

from headrace.control.analysis.settings import ShadowSettings
from headrace.control.analysis.shadow import ShadowAgreement
from headrace.control.analysis.verdict import Finding
from tests.observations import shadowed


def check(**fields: float) -> ShadowAgreement:
    made = ShadowAgreement(ShadowSettings(**fields), alarm=1000.0, clear=20.0)
    made.begin_step()
    return made


@pytest.mark.parametrize(("agreed", "finding"), [(100, Finding.PASS), (90, Finding.FAIL), (0, Finding.FAIL)])
def test_agreement_of_a_hundred_pairs_a_look(agreed: int, finding: Finding) -> None:
    made = check()
    for _ in range(30):
        made.observe(shadowed(100, agreed))
    assert made.result().finding is finding
    assert "answers agree, 99.0% should" in made.result().reason
    assert made.seen == (30 * agreed, 3000)
    assert not made.result().gate


def test_exactly_what_is_allowed_is_no_failure() -> None:
    made = check()
    for _ in range(100):
        made.observe(shadowed(100, 99))
    assert made.result().finding is not Finding.FAIL


def test_no_mirrored_requests() -> None:
    made = check(agreement=0.5)
    made.observe(shadowed(0, 0))
    assert made.result().finding is Finding.INCONCLUSIVE
    assert made.result().reason == "no mirrored requests in this step"


def test_few_pairs_do_not_pass() -> None:
    made = check(agreement=0.5)
    for _ in range(40):
        made.observe(shadowed(10, 10))
    assert made.harmless.value > 20
    assert made.result().finding is Finding.INCONCLUSIVE
