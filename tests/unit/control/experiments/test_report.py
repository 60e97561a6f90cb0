"""The report: numbers of every arm, and what people must know about them."""

from __future__ import annotations

from headrace.control.experiments.report import report
from headrace.core.experiments import BanditSettings, Experiment, HourTally

EXPERIMENT = Experiment("x1", "fraud", ("champion", "challenger"), started=0.0, who="ada")


def hour(arm: str, number: int, wins: int, count: int, requests: int, expected: float, **more: int) -> HourTally:
    share = wins / count
    return HourTally(
        count, share, count * share * (1 - share), 0, arm=arm, hour=number, requests=requests, expected=expected, **more
    )


def test_hours_are_added_up_and_compared_with_the_control() -> None:
    hours = [
        hour("champion", 1, 50, 500, 1000, 1000.0),
        hour("champion", 2, 50, 500, 1000, 990.0),
        hour("challenger", 1, 160, 1000, 1000, 1010.0),
    ]
    found = report(EXPERIMENT, hours, {"champion": 0.5, "challenger": 0.5})
    control, arm = found.arms
    assert (control.outcomes, control.mean, control.lift, control.sequential) == (1000, 0.1, None, None)
    assert (arm.share, arm.requests, arm.mean) == (0.5, 1000, 0.16)
    assert arm.lift is not None
    assert arm.lift.absolute.low > 0
    assert arm.probability_best > 0.99
    assert found.needed_per_arm is not None
    assert not found.notes


def test_what_makes_arms_incomparable_is_said_first() -> None:
    hours = [
        hour("champion", 1, 5, 50, 1200, 1000.0, repeated=2),
        hour("challenger", 1, 20, 200, 800, 1000.0, pinned=3),
    ]
    found = report(
        Experiment("x1", "fraud", EXPERIMENT.arms, 0.0, "ada", bandit=BanditSettings()), hours, {}, ["disk full"]
    )
    assert found.sample_ratio.mismatch
    assert [note.split()[0] for note in found.notes] == ["sample", "fewer", "shares", "2", "3", "disk"]
    assert "challenger 800 of 1000 expected" in found.notes[0]
    assert "champion" in found.notes[1]
    assert "challenger" not in found.notes[1]


def test_an_experiment_without_outcomes() -> None:
    found = report(EXPERIMENT, [], {})
    assert [arm.outcomes for arm in found.arms] == [0, 0]
    assert found.needed_per_arm is None
