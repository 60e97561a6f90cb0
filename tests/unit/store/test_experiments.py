"""Experiments and their tallies."""

from __future__ import annotations

import msgspec

from headrace.core.experiments import BanditSettings, Experiment, HourTally
from headrace.store.state import State


def test_experiments_are_kept_in_the_order_of_their_starts(state: State) -> None:
    second = Experiment("a", "fraud", ("x", "y"), 2.0, "ada", bandit=BanditSettings(floor=0.1))
    first = Experiment("b", "org/churn", ("x", "y"), 1.0, "bob", "clicks")
    for experiment in (second, first):
        with state.writing() as transaction:
            transaction.experiments.put(experiment)
    ended = msgspec.structs.replace(first, ended=3.0, why="stopped by bob")
    with state.writing() as transaction:
        transaction.experiments.put(ended)
    with state.reading() as transaction:
        assert transaction.experiments.all() == [ended, second]


def test_tallies_are_replaced_by_arm_and_hour(state: State) -> None:
    before = [HourTally(2, 0.5, 0.5, 0, arm=arm, hour=7, requests=9, expected=8.5) for arm in ("x", "y")]
    after = HourTally(3, 0.25, 0.5, 1, arm="y", hour=7, requests=11, expected=10.5, repeated=2, fallbacks=1)
    with state.writing() as transaction:
        transaction.experiments.put_tallies("a", before)
        transaction.experiments.put_tallies("b", before[:1])
        transaction.experiments.put_tallies("a", [after])
    with state.reading() as transaction:
        assert transaction.experiments.tallies("a") == [before[0], after]
        assert transaction.experiments.tallies("c") == []
