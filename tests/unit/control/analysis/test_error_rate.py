from __future__ import annotations

import numpy as np
import pytest

from headrace.control.analysis.counted_events import Dispersion
from headrace.control.analysis.error_rate import ErrorRate
from headrace.control.analysis.settings import ErrorRateSettings
from headrace.control.analysis.verdict import Finding
from headrace.core.tallies import Outcome
from tests.observations import observe, tally


def check(counted: Outcome = Outcome.ERROR, **fields: float) -> ErrorRate:
    made = ErrorRate("errors", counted, ErrorRateSettings(**fields), alarm=1000.0, clear=20.0)
    made.begin_step()
    return made


def feed(made: ErrorRate, looks: int, canary: tuple[int, int], stable: tuple[int, int] = (1996, 4)) -> ErrorRate:
    """(successes, errors) of every look."""
    for _ in range(looks):
        made.observe(observe(tally(*canary), tally(*stable)))
    return made


def test_a_healthy_canary_passes() -> None:
    result = feed(check(), 60, (100, 0)).result()
    assert result.finding is Finding.PASS
    assert "0 of 6000 requests against 240 of 120000 at stable" in result.reason


def test_few_requests_decide_nothing() -> None:
    result = feed(check(), 60, (1, 0)).result()
    assert result.finding is Finding.INCONCLUSIVE
    assert "a rise of 1.00% is not ruled out yet" in result.reason


def test_more_errors_fail_and_stay_failed() -> None:
    made = feed(check(), 60, (96, 4))
    assert made.result().finding is Finding.FAIL
    assert "evidence" in made.result().reason
    reason = made.result().reason
    made.begin_step()
    assert feed(made, 60, (100, 0)).result().finding is Finding.FAIL
    assert made.result().reason == reason


def test_no_single_interval_decides_but_five_terrible_ones_do() -> None:
    made = feed(check(), 20, (100, 0))
    assert feed(made, 1, (0, 100)).result().finding is not Finding.FAIL
    assert feed(made, 4, (0, 100)).result().finding is Finding.FAIL


def test_a_shared_outage_does_not_fail_the_canary() -> None:
    made = feed(check(), 20, (100, 0))
    feed(made, 10, (70, 30), (1400, 600))
    assert made.result().finding is not Finding.FAIL


def test_a_rise_within_the_margin_is_no_harm() -> None:
    """0.2 % of stable's requests fail, 0.3 % of the canary's."""
    made = feed(check(), 300, (997, 3), (998, 2))
    assert made.result().finding is Finding.PASS


def test_the_margin_grows_with_stables_own_rate() -> None:
    made = feed(check(), 100, (890, 110), (900, 100))
    assert made.result().finding is Finding.PASS
    made = feed(check(), 100, (800, 200), (900, 100))
    assert made.result().finding is Finding.FAIL


def test_what_was_passed_must_be_passed_again_in_the_next_step() -> None:
    made = feed(check(), 60, (100, 0))
    made.begin_step()
    assert made.result().finding is Finding.INCONCLUSIVE


def test_rejections_are_counted_among_what_was_rejected_too() -> None:
    made = check(Outcome.REJECTED)
    for _ in range(60):
        made.observe(observe(tally(90, rejected=10), tally(1990, rejected=10)))
    assert made.result().finding is Finding.FAIL
    assert "of 6000 requests" not in made.result().reason
    assert made.seen[2:] == (600, 6000)


def test_errors_of_the_callers_do_not_count_as_errors() -> None:
    made = check()
    for _ in range(60):
        made.observe(observe(tally(100, rejected=50, refused=50), tally(2000)))
    assert made.result().finding is Finding.PASS


@pytest.mark.parametrize(("errors", "finding"), [(0, Finding.PASS), (10, Finding.PASS), (100, Finding.FAIL)])
def test_alone_it_is_held_against_the_last_known_rate(errors: int, finding: Finding) -> None:
    """With all traffic on the canary harm begins at the tolerance: 1 % above the 0.2 % that stable had."""
    made = feed(check(), 20, (100, 0))
    made.begin_step()
    for _ in range(30):
        made.observe(observe(tally(2000 - errors, errors), tally()))
    assert made.result().finding is finding
    assert "stable's last rate" in made.result().reason


def test_alone_without_a_known_rate_nothing_is_decided() -> None:
    made = check()
    for _ in range(30):
        made.observe(observe(tally(1000, 1000), tally()))
    assert made.result().finding is Finding.INCONCLUSIVE


def test_clumps_of_errors_need_more_evidence() -> None:
    """The same number of errors proves less when stable's come eight at a time."""
    single, clumped = check(), check()
    for look in range(40):
        single.observe(observe(tally(99, 1), tally(1996, 4)))
        clumped.observe(observe(tally(99, 1), tally(1968, 32) if look % 8 == 0 else tally(2000, 0)))
    assert clumped.clumps[0].clump > 5 * single.clumps[0].clump
    assert clumped.harm.value < single.harm.value


def test_dispersion_of_independent_events_is_one() -> None:
    rng = np.random.default_rng(3)
    measured = Dispersion()
    for n in rng.integers(500, 2000, 300).tolist():
        measured.observe(int(rng.binomial(n, 0.01)), n)
    assert measured.clump == pytest.approx(1.0, abs=0.35)


def test_dispersion_is_the_size_of_clumps() -> None:
    rng = np.random.default_rng(4)
    measured = Dispersion()
    for _ in range(300):
        measured.observe(6 * int(rng.poisson(2)), 2000)
    assert measured.clump == pytest.approx(5.5, abs=1.5)


def test_one_outage_does_not_blind_the_check() -> None:
    measured = Dispersion()
    for look in range(60):
        measured.observe(2000 if look == 30 else 4, 2000)
    assert measured.clump < 2
