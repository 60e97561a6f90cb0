from __future__ import annotations

import pytest

from headrace.control.analysis.signs import SignTest


def started() -> SignTest:
    signs = SignTest()
    signs.begin_step()
    return signs


def test_worse_in_every_block_is_proof_after_eighteen() -> None:
    signs = started()
    for _ in range(15):
        signs.observe(worse=True, fine=False)
    assert signs.harm.value < 1000
    for _ in range(3):
        signs.observe(worse=True, fine=False)
    assert signs.harm.value > 1000
    assert signs.harmless.value < 1e-2


def test_worse_in_half_of_the_blocks_proves_nothing() -> None:
    signs = started()
    for block in range(200):
        signs.observe(worse=block % 2 == 0, fine=True)
    assert signs.harm.value < 1
    assert signs.worse == 100
    assert signs.blocks == 200


def test_signs_that_come_in_runs_are_no_evidence() -> None:
    """The expectation over every history of a chain that stays worse with probability 0.6 is 1."""
    total, rounds = 0.0, 10
    for path in range(2**rounds):
        signs, chance, before = started(), 1.0, False
        for block in range(rounds):
            worse = bool(path >> block & 1)
            likely = 0.6 if before else 0.5
            chance *= likely if worse else 1 - likely
            signs.observe(worse=worse, fine=True)
            before = worse
        total += chance * signs.harm.value
    assert total == pytest.approx(1.0)


def test_a_step_counts_anew_and_keeps_the_evidence_of_harm() -> None:
    signs = started()
    for _ in range(10):
        signs.observe(worse=True, fine=True)
    harm = signs.harm.value
    signs.begin_step()
    assert (signs.blocks, signs.worse, signs.fine) == (0, 0, 0)
    # Not to the last digit: sums are rounded in another order since Python 3.12.
    assert signs.harm.value == pytest.approx(harm)
    assert signs.harmless.value == 1
