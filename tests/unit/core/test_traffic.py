"""Sticky keys move as little as can be, weights of the unready fall to the others, and values are found in bodies."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.requests import InferenceRequest
from headrace.core.tensors import DType, Tensor
from headrace.core.traffic import Rule, Source, SourceKind, StickyChooser, TrafficPolicy, body_value, shares

KEYS = [f"user-{n}".encode() for n in range(4000)]
# Six standard deviations of a share counted over the keys: a right chooser fails once in 10^8 examples.
TOLERANCE = 6 * math.sqrt(0.25 / len(KEYS))

weight = st.floats(0.01, 100.0)
weights = st.dictionaries(st.sampled_from("abcdef"), weight, min_size=1)


def assigned(weights: dict[str, float], endpoint: str = "m") -> list[str]:
    chooser = StickyChooser(endpoint, weights)
    return [chooser.choose(key) for key in KEYS]


def moved(before: dict[str, float], after: dict[str, float]) -> float:
    return sum(a != b for a, b in zip(assigned(before), assigned(after), strict=True)) / len(KEYS)


def normal(weights: dict[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def distance(before: dict[str, float], after: dict[str, float]) -> float:
    """Total variation."""
    p, q = normal(before), normal(after)
    return sum(abs(p.get(name, 0.0) - q.get(name, 0.0)) for name in p.keys() | q.keys()) / 2


@settings(deadline=None, max_examples=15)
@given(weights)
def test_sticky_keys_are_spread_by_the_weights(weights: dict[str, float]) -> None:
    found = Counter(assigned(weights))
    for name, share in normal(weights).items():
        assert found[name] / len(KEYS) == pytest.approx(share, abs=TOLERANCE)


@settings(deadline=None, max_examples=25)
@given(weights, st.sampled_from("abcdef"), weight | st.just(0.0))
def test_when_one_weight_changes_exactly_the_share_that_must_move_moves(
    before: dict[str, float], name: str, weight: float
) -> None:
    """Canary steps, deployments that come, go, fail and recover: all are one weight that changes."""
    after = {other: w for other, w in {**before, name: weight}.items() if w > 0}
    if not after:
        return
    assert moved(before, after) == pytest.approx(distance(before, after), abs=TOLERANCE)
    # And the ones that move go to or leave the one that changed.
    for old, new in zip(assigned(before), assigned(after), strict=True):
        assert old == new or name in (old, new)


@settings(deadline=None, max_examples=25)
@given(st.floats(0.5, 99.5), st.floats(0.5, 99.5))
def test_between_two_deployments_every_change_is_minimal(one: float, other: float) -> None:
    before, after = {"champion": one, "challenger": 100 - one}, {"champion": other, "challenger": 100 - other}
    assert moved(before, after) == pytest.approx(abs(one - other) / 100, abs=TOLERANCE)


@settings(deadline=None, max_examples=25)
@given(weights, weights)
def test_no_change_moves_more_than_the_bound(before: dict[str, float], after: dict[str, float]) -> None:
    """The share that stays is Moulton and Jiang's similarity; the share that moves is below 2d / (1 + d)."""
    p, q = normal(before), normal(after)
    names = p.keys() | q.keys()
    stays = sum(1 / sum(max(p.get(j, 0.0) / p[i], q.get(j, 0.0) / q[i]) for j in names) for i in p.keys() & q.keys())
    d = distance(before, after)
    assert 1 - stays <= 2 * d / (1 + d) + 1e-9
    assert moved(before, after) == pytest.approx(1 - stays, abs=TOLERANCE)


def test_assignment_is_the_same_in_every_process_and_release() -> None:
    """These are pinned: another hash would move every user at an upgrade."""
    chooser = StickyChooser("fraud", {"champion": 50.0, "challenger": 50.0})
    assert [chooser.choose(f"u{n}".encode()) for n in range(8)] == [
        "champion",
        "champion",
        "challenger",
        "challenger",
        "challenger",
        "challenger",
        "champion",
        "challenger",
    ]


def test_scale_and_order_of_weights_do_not_matter_and_endpoints_are_independent() -> None:
    assert assigned({"a": 95.0, "b": 5.0}) == assigned({"b": 0.05, "a": 0.95})
    one, other = assigned({"a": 1.0, "b": 1.0}, "m"), assigned({"a": 1.0, "b": 1.0}, "n")
    same = sum(a == b for a, b in zip(one, other, strict=True)) / len(KEYS)
    assert same == pytest.approx(0.5, abs=TOLERANCE)


def test_nobody_to_choose_is_nobody() -> None:
    assert StickyChooser("m", {}).choose(b"key") == ""


def test_what_is_remembered_of_keys_is_bounded_and_changes_nothing() -> None:
    weights = {"champion": 3.0, "challenger": 1.0}
    chooser = StickyChooser("fraud", weights)
    keys = [b"%d" % number for number in range(5000)] + [b"%d" % number * 100 for number in range(5000)]
    first = [chooser.choose(key) for key in keys]
    assert first == [chooser.choose(key) for key in keys] == [StickyChooser("fraud", weights).choose(k) for k in keys]
    assert len(chooser._chosen) <= 4096
    assert max(map(len, chooser._chosen)) <= 128


@pytest.mark.parametrize(
    ("weights", "ready", "expected"),
    [
        ({"a": 95.0, "b": 5.0}, {"a", "b"}, {"a": 0.95, "b": 0.05}),
        ({"a": 95.0, "b": 5.0}, {"b"}, {"b": 1.0}),
        ({"a": 60.0, "b": 20.0, "c": 20.0}, {"b", "c"}, {"b": 0.5, "c": 0.5}),
        ({"a": 95.0, "b": 5.0}, set(), {"a": 0.95, "b": 0.05}),
        ({"a": 1.0, "b": 0.0}, {"b"}, {"a": 1.0}),
        ({"a": 1.0, "b": 0.0}, {"a", "b"}, {"a": 1.0}),
    ],
)
def test_weights_of_the_unready_fall_to_the_others(
    weights: dict[str, float], ready: set[str], expected: dict[str, float]
) -> None:
    assert shares(weights, ready) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plan", "gold"),
        ("level", "3"),
        ("beta", "true"),
        ("country", "DE"),
        ("id", "12345678901"),
        ("empty", None),
        ("nowhere", None),
    ],
)
def test_values_of_bodies(name: str, expected: str | None) -> None:
    country = np.array([b"DE", b"AT"], dtype=object)
    request = InferenceRequest(
        [
            Tensor("country", DType.BYTES, country),
            Tensor("id", DType.INT64, np.array([[12345678901], [2]])),
            Tensor("empty", DType.INT64, np.array([], np.int64)),
        ],
        parameters={"plan": "gold", "level": 3, "beta": True},
    )
    assert body_value(request, name) == expected


def test_rules_fit_listed_values_or_any() -> None:
    source = Source(SourceKind.HEADER, "x-plan")
    listed, present = Rule(source, ("gold", "silver"), "b"), Rule(source, (), "b")
    assert [listed.fits(value) for value in ("gold", "bronze", "", None)] == [True, False, False, False]
    assert [present.fits(value) for value in ("gold", "", None)] == [True, True, False]


def test_policies_know_whether_they_read_bodies() -> None:
    header, body = Source(SourceKind.HEADER, "x"), Source(SourceKind.BODY, "x")
    assert not TrafficPolicy(sticky=header, rules=(Rule(header, (), "b"),)).reads_body
    assert TrafficPolicy(sticky=body).reads_body
    assert TrafficPolicy(sticky=header, rules=(Rule(body, (), "b"),)).reads_body
    assert TrafficPolicy().plain
    assert not TrafficPolicy(overrides=("X-Headrace-Deployment",)).plain
    assert (str(header), str(body)) == ("header:x", "body:x")
