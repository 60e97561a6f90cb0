from __future__ import annotations

import numpy as np
import pytest

from headrace.control.analysis.evidence import all_in, capital


def test_bets_that_lose_cost_no_more_than_the_stake() -> None:
    money = capital(2)
    money.renew()
    money.bet([0.0, 0.0])
    assert 0.48 < money.value < 0.5
    assert money.value == money.reserve


def test_fair_bets_keep_the_expectation() -> None:
    """Over both equally likely results of every bet the capital stays 1 on average, whatever is staked when."""
    for rounds in range(1, 8):
        values = []
        for path in range(2**rounds):
            money = capital(2)
            for step in range(rounds):
                if step in (0, 3):
                    money.renew()
                won = path >> step & 1
                money.bet([1.5 if won else 0.5, 1.9 if won else 0.1])
            values.append(money.value)
        assert sum(values) / len(values) == pytest.approx(1.0)


def test_all_in_has_no_reserve() -> None:
    money = all_in(2)
    money.bet([2.0, 4.0])
    assert money.value == 3.0
    money.bet([0.0, 0.0])
    assert money.value == 0.0


def test_harm_that_begins_late_is_still_seen() -> None:
    money = capital(1)
    money.renew()
    for _ in range(200):
        money.bet([0.5])
    assert money.value < 0.5
    for _ in range(30):
        money.bet([1.9])
    assert money.value > 1000


def test_capital_never_becomes_infinite() -> None:
    money = all_in(1)
    for _ in range(10_000):
        money.bet([2.0])
    assert np.isfinite(money.value)
    assert money.value > 1e200


def test_the_number_of_alternatives_is_fixed() -> None:
    with pytest.raises(ValueError):
        capital(2).bet([1.0])


def test_ville_holds_with_optional_stopping() -> None:
    """Fair coins: at most one in twenty ever reaches 20, over 200 looks each."""
    rng = np.random.default_rng(7)
    reached = 0
    for row in rng.random((400, 200)) < 0.5:
        money = capital(3)
        money.renew()
        best = 0.0
        for won in row.tolist():
            money.bet([1.3, 1.6, 1.9] if won else [0.7, 0.4, 0.1])
            best = max(best, money.value)
        reached += best >= 20
    assert reached <= 0.05 * 400 + 3 * (0.05 * 0.95 * 400) ** 0.5
