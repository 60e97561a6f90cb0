from __future__ import annotations

import numpy as np

from headrace.control.analysis.predictions import OTHER, PredictionShift, Shift
from headrace.control.analysis.settings import PredictionSettings
from headrace.control.analysis.verdict import Finding
from headrace.core.tallies import Tally
from tests.observations import observe


def check(gate: bool = False) -> PredictionShift:
    made = PredictionShift(PredictionSettings(gate=gate), alarm=1000.0)
    made.begin_step()
    return made


def predicted(**counts: int) -> Tally:
    return Tally(predictions={"label": counts})


def feed(made: PredictionShift, looks: int, canary: Tally, baseline: Tally) -> PredictionShift:
    for _ in range(looks):
        made.observe(observe(canary, Tally(), baseline))
    return made


def test_the_same_distribution_passes() -> None:
    result = feed(check(), 30, predicted(cat=60, dog=40), predicted(cat=60, dog=40)).result()
    assert result.finding is Finding.PASS
    assert not result.gate
    assert "3000 predictions a side" in result.reason


def test_another_distribution_fails() -> None:
    result = feed(check(gate=True), 30, predicted(cat=20, dog=80), predicted(cat=60, dog=40)).result()
    assert result.finding is Finding.FAIL
    assert result.gate
    assert "output 'label' has stability index" in result.reason


def test_a_proven_but_small_shift_is_borne() -> None:
    made = feed(check(), 400, predicted(cat=55, dog=45), predicted(cat=60, dog=40))
    assert made.outputs["label"].harm.value > 1000
    assert made.result().finding is Finding.PASS


def test_a_class_that_only_the_canary_predicts_is_seen() -> None:
    assert feed(check(), 30, predicted(cat=50, ufo=50), predicted(cat=60, dog=40)).result().finding is Finding.FAIL


def test_few_predictions_decide_nothing() -> None:
    result = feed(check(), 4, predicted(cat=0, dog=100), predicted(cat=100, dog=0)).result()
    assert result.finding is Finding.INCONCLUSIVE
    assert check().result().reason == "no predictions were counted"


def test_the_output_that_shifted_speaks() -> None:
    made = check()
    for _ in range(30):
        same = {"a": 50, "b": 50}
        made.observe(
            observe(
                Tally(predictions={"same": same, "moved": {"a": 90, "b": 10}}),
                Tally(),
                Tally(predictions={"same": same, "moved": {"a": 10, "b": 90}}),
            )
        )
    assert "output 'moved'" in made.result().reason


def test_many_classes_are_folded() -> None:
    shift = Shift()
    many = {f"c{i}": 1 for i in range(500)}
    shift.observe(many, many)
    shift.observe(many, many)
    assert len(shift.canary) <= 64
    assert shift.canary[OTHER] > 800
    assert sum(shift.canary.values()) == sum(shift.baseline.values()) == 1000


def test_equal_distributions_seldom_give_evidence() -> None:
    rng = np.random.default_rng(5)
    proofs = 0
    for _ in range(200):
        shift = Shift()
        shift.harm.renew()
        best = 0.0
        for _ in range(40):
            sides = rng.multinomial(50, [0.5, 0.3, 0.15, 0.05], size=2).tolist()
            canary, baseline = (dict(zip("abcd", side, strict=True)) for side in sides)
            shift.observe(canary, baseline)
            best = max(best, shift.harm.value)
        proofs += best >= 20
    assert proofs <= 0.05 * 200


def test_a_step_counts_anew() -> None:
    made = feed(check(), 30, predicted(cat=60, dog=40), predicted(cat=60, dog=40))
    made.begin_step()
    assert made.result().finding is Finding.INCONCLUSIVE
