"""Answers that only a process remembers: bounded, for their time."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from headrace.app.state import answer_memory
from headrace.app.state.answer_memory import AnswerMemory
from headrace.core.answers import KEPT_S, Answer
from tests.fakes import FakeClock


def answer(key: str, body: str = "{}", at: float = 1000.0) -> Answer:
    return Answer(key, "print", 200, {}, body, at)


def test_an_answer_is_remembered_for_its_time() -> None:
    clock = FakeClock()
    memory = AnswerMemory(clock)
    memory.keep(answer("a"))
    assert memory.of("a") == answer("a")
    assert memory.of("b") is None
    clock.now += KEPT_S + 1
    assert memory.of("a") is None


@given(st.lists(st.integers(0, 12), min_size=1, max_size=40))
def test_the_newest_are_kept_within_the_bounds(sizes: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answer_memory, "MOST", 3)
        patch.setattr(answer_memory, "MOST_CHARACTERS", 20)
        memory = AnswerMemory(FakeClock())
        for number, size in enumerate(sizes):
            memory.keep(answer(str(number), "x" * size))
        remembered = [memory.of(str(number)) is not None for number in range(len(sizes))]
        fitting = [sum(sizes[number:]) <= 20 and number >= len(sizes) - 3 for number in range(len(sizes))]
        assert remembered == fitting
