"""From what gateways counted since they began to what one interval brought."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.control.trial_sums import TrialSums, since, total
from headrace.core.load import DeploymentLoad, LoadReport
from headrace.core.shadows import ShadowLoad
from headrace.core.tallies import Agreement, BatchTally, Outcome, Tally
from headrace.core.trials import TrialTally

counts = st.dictionaries(st.sampled_from(list(Outcome)), st.integers(0, 50))
latencies = st.dictionaries(st.integers(0, 300), st.integers(0, 50))
batches = st.dictionaries(st.integers(1, 64), st.builds(BatchTally, st.integers(1, 9), st.just(0.5)))
labels = st.dictionaries(st.sampled_from("ab"), st.dictionaries(st.sampled_from("xyz"), st.integers(0, 9)))
tallies = st.builds(Tally, counts, latencies, batches, labels)


def report(gateway: int, tally: Tally, *, began: float = 1.0, shadow: ShadowLoad | None = None) -> LoadReport:
    load = DeploymentLoad("m@2", 0, 0, 0, 0, 0, None, None, 1, "", shadow)
    return LoadReport(gateway, 1, False, (load,), (), began, (TrialTally("m", "m@2", tally, tally, tally),))


def clean(tally: Tally) -> Tally:
    """Without counts of zero, which say nothing."""
    return since(total([tally]), Tally())


@given(tallies, tallies)
def test_what_came_since_is_what_was_added(before: Tally, added: Tally) -> None:
    assert since(total([before, added]), before) == clean(added)


@given(st.lists(st.lists(tallies, min_size=2, max_size=2), min_size=1, max_size=4))
def test_intervals_of_several_gateways_add_up(rounds: list[list[Tally]]) -> None:
    sums = TrialSums("m", "m@2")
    assert sums.observe([report(0, Tally()), report(1, Tally())], 1.0, mirrored=False) is None
    seen = [Tally(), Tally()]
    for added in rounds:
        seen = [total([old, new]) for old, new in zip(seen, added, strict=True)]
        found = sums.observe([report(i, tally) for i, tally in enumerate(seen)], 1.0, mirrored=False)
        assert found is not None
        assert clean(found.canary) == clean(total(added))
        assert found.stable == found.canary == found.baseline


def test_a_gateway_that_was_started_again_counts_from_nothing() -> None:
    sums = TrialSums("m", "m@2")
    sums.observe([report(0, Tally({Outcome.OK: 100}))], 1.0, mirrored=False)
    found = sums.observe([report(0, Tally({Outcome.OK: 3}), began=2.0)], 1.0, mirrored=False)
    assert found is not None
    assert found.canary.outcomes == {Outcome.OK: 3}


def test_silent_gateways_are_an_error_of_the_look() -> None:
    sums = TrialSums("m", "m@2")
    assert sums.observe([], 1.0, mirrored=False) is None
    found = sums.observe([LoadReport(0, 1, False, ())], 1.0, mirrored=False)
    assert found is not None
    assert found.error == "no gateway has reported"
    other = TrialSums("m", "m@3")
    other.observe([], 1.0, mirrored=False)
    found = other.observe([report(0, Tally({Outcome.OK: 3}))], 1.0, mirrored=False)
    assert found is not None
    assert found.error


def test_mirrored_requests_stand_for_live_ones() -> None:
    sums = TrialSums("m", "m@2")
    counted = Tally({Outcome.OK: 1}, {}, {4: BatchTally(1, 0.5)})
    sums.observe([report(0, Tally(), shadow=ShadowLoad(agreed=5, disagreed=1, failed=2))], 1.0, mirrored=True)
    later = ShadowLoad(agreed=9, disagreed=2, failed=5)
    found = sums.observe([report(0, counted, shadow=later)], 1.0, mirrored=True)
    assert found is not None
    assert found.shadow == Agreement(5, 4)
    assert found.canary.outcomes == {Outcome.OK: 5, Outcome.ERROR: 3}
    assert found.canary.compute == {4: BatchTally(1, 0.5)}
