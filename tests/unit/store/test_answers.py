"""Answers that are kept for requests that come again."""

from __future__ import annotations

from headrace.core.answers import KEPT_S, Answer
from headrace.store.state import State

FIRST = Answer("key", "print", 201, {"ETag": '"a"'}, "{}", 100.0)


def test_an_answer_is_kept_for_its_time(state: State) -> None:
    with state.writing() as transaction:
        transaction.answers.keep(FIRST)
    with state.reading() as transaction:
        assert transaction.answers.of("key", 100.0 + KEPT_S) == FIRST
        assert transaction.answers.of("key", 101.0 + KEPT_S) is None
        assert transaction.answers.of("other", 100.0) is None


def test_old_answers_go_when_a_new_one_comes(state: State) -> None:
    later = Answer("key", "other", 200, {}, "[]", 101.0 + KEPT_S)
    with state.writing() as transaction:
        transaction.answers.keep(FIRST)
        transaction.answers.keep(later)
    with state.reading() as transaction:
        assert transaction.answers.of("key", later.at) == later


def test_a_key_has_one_answer(state: State) -> None:
    with state.writing() as transaction:
        transaction.answers.keep(FIRST)
    with state.writing() as transaction:
        transaction.answers.keep(Answer("key", "other", 200, {}, "[]", 101.0))
    with state.reading() as transaction:
        assert transaction.answers.of("key", 101.0) == FIRST
