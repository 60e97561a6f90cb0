"""The latency model finds ``a + b·n`` under noise, and no input makes it negative or infinite."""

from __future__ import annotations

import math
import random

import hypothesis.strategies as st
import pytest
from hypothesis import given

from headrace.pipeline.latency import LatencyModel


def trained(
    a: float, b: float, *, noise: float, sizes: tuple[int, ...] = (1, 4, 16, 64), count: int = 300
) -> LatencyModel:
    draw = random.Random(1)
    model = LatencyModel()
    for _ in range(count):
        rows = draw.choice(sizes)
        model.observe(rows, (a + b * rows) * draw.uniform(1 - noise, 1 + noise))
    return model


@pytest.mark.parametrize(("a", "b"), [(0.001, 0.0001), (0.02, 0.0), (0.0001, 0.002), (1.0, 0.5)])
def test_fits_under_noise(a: float, b: float) -> None:
    model = trained(a, b, noise=0.2)
    for rows in (1, 16, 64):
        assert model.predict(rows) == pytest.approx(a + b * rows, rel=0.25)
    assert model.capacity(64) == pytest.approx(64 / (a + 64 * b), rel=0.25)


def test_one_stall_hardly_moves_it() -> None:
    model = trained(0.001, 0.0001, noise=0.1)
    before = model.predict(16)
    model.observe(16, 60.0)
    assert model.predict(16) < before * 1.3


def test_follows_a_model_that_became_slower() -> None:
    model = trained(0.001, 0.0, noise=0.1)
    for _ in range(200):
        model.observe(1, 0.050)
    assert model.predict(1) == pytest.approx(0.050, rel=0.1)


def test_one_size_only_tells_the_time_of_that_size() -> None:
    model = trained(0.001, 0.0001, noise=0.05, sizes=(8,))
    assert model.predict(8) == pytest.approx(0.0018, rel=0.1)


def test_slope_survives_a_time_with_one_size_only() -> None:
    model = trained(0.001, 0.0001, noise=0.0)
    for _ in range(1000):
        model.observe(1, 0.0011)
    assert model.predict(64) == pytest.approx(0.001 + 0.0064, rel=0.2)


def test_doubt_keeps_the_fit_but_makes_it_easy_to_change() -> None:
    sure, doubting = trained(0.5, 0.0, noise=0.0), trained(0.5, 0.0, noise=0.0)
    doubting.doubt()
    assert doubting.predict(1) == pytest.approx(0.5)
    for model in (sure, doubting):
        for _ in range(4):
            model.observe(1, 0.001)
    assert doubting.predict(1) < 0.2 < sure.predict(1)


def test_knows_nothing_at_first() -> None:
    model = LatencyModel()
    assert not model.known
    assert (model.predict(10), model.capacity(10)) == (0.0, 0.0)
    for _ in range(3):
        model.observe(1, 0.01)
    assert model.known


@given(st.lists(st.tuples(st.integers(0, 100_000), st.floats(0, 1e4)), max_size=80), st.integers(0, 1_000_000))
def test_never_negative_nor_infinite(samples: list[tuple[int, float]], rows: int) -> None:
    model = LatencyModel()
    for index, (count, seconds) in enumerate(samples):
        model.observe(count, seconds)
        if index % 7 == 6:
            model.doubt()
        assert model.a >= 0
        assert model.b >= 0
        assert math.isfinite(model.predict(rows))
        assert math.isfinite(model.capacity(rows))
