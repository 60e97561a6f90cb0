from __future__ import annotations

from headrace.control.analysis.signs import SignTest


def started() -> SignTest:
    signs = SignTest()
    signs.begin_step()
    return signs


def test_worse_in_every_block_is_proof_after_fourteen() -> None:
    signs = started()
    for _ in range(12):
        signs.observe(worse=True, fine=False)
    assert signs.harm.value < 1000
    for _ in range(2):
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


def test_a_step_counts_anew_and_keeps_the_evidence_of_harm() -> None:
    signs = started()
    for _ in range(10):
        signs.observe(worse=True, fine=True)
    harm = signs.harm.value
    signs.begin_step()
    assert (signs.blocks, signs.worse, signs.fine) == (0, 0, 0)
    assert signs.harm.value == harm
    assert signs.harmless.value == 1
