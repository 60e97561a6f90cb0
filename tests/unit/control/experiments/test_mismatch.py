"""The sample-ratio check: quiet when chance did it, loud when it did not."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.control.experiments.mismatch import sample_ratio
from headrace.core.experiments import ArmTotal, Tally


def arm(name: str, requests: int, expected: float) -> ArmTotal:
    return ArmTotal(name, Tally(), requests, expected, 0, 0, 0)


def test_the_p_value_is_that_of_chi_square() -> None:
    """821588 and 815482 of an even split, from Fabijan et al., section 2: p = 1.8e-6."""
    found = sample_ratio([arm("a", 821_588, 818_535), arm("b", 815_482, 818_535)])
    assert found.p_value == pytest.approx(1.8e-6, rel=0.05)
    assert found.mismatch


def test_chance_is_not_called_a_mismatch() -> None:
    random = np.random.default_rng(11)
    called = 0
    for _ in range(2000):
        first = random.binomial(5000, 0.9)
        called += sample_ratio([arm("a", first, 4500), arm("b", 5000 - first, 500)]).mismatch
    assert called <= 5


def test_too_few_say_nothing() -> None:
    assert sample_ratio([arm("a", 4, 4), arm("b", 0, 4)]).p_value == 1.0
    assert not sample_ratio([arm("a", 4, 4)]).mismatch
