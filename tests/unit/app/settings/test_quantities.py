"""Durations and sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.app.settings.quantities import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30.0),
        ("30s", 30.0),
        ("500ms", 0.5),
        ("2m", 120.0),
        ("1.5h", 5400.0),
        (" 2 s ", 2.0),
        ("0", 0.0),
        (".5", 0.5),
        ("250us", 0.00025),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-1", "1 week", "1s1", "1,5", "1e3x", "nan", "inf", "1.2.3"])
def test_wrong_durations(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


def test_bare_numbers_take_the_default_unit() -> None:
    assert parse_duration("2", default_unit="ms") == 0.002
    assert parse_duration("2s", default_unit="ms") == 2.0


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1048576", 1 << 20),
        ("64MiB", 64 << 20),
        ("64mib", 64 << 20),
        ("1GB", 10**9),
        ("1.5GiB", 3 << 29),
        ("2Gi", 2 << 30),
        ("500M", 500 * 10**6),
        ("8 kB", 8000),
        ("10B", 10),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1.5", "0.3B", "1XB", "1 MiB 2", "1e400"])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


@given(st.integers(0, 10_000))
def test_durations_survive_a_round_trip(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds)


@given(st.integers(1, 1023), st.sampled_from([1, 1 << 10, 1 << 20, 1 << 30, 1 << 40]))
def test_whole_sizes_survive_a_round_trip(count: int, unit: int) -> None:
    assert parse_size(format_size(count * unit)) == count * unit
