"""Answers to idempotency keys that no state keeps: of a server without one, and of what only this process knows."""

from __future__ import annotations

import time
from collections.abc import Callable

from headrace.core.answers import KEPT_S, Answer

MOST = 1000
"""Answers that are remembered; the oldest go first."""
MOST_CHARACTERS = 16 << 20
"""Of all bodies together: the answer to a large file is large."""


class AnswerMemory:
    """Bounded, and gone with the process, as is what it tells of. ``clock``: seconds since 1970 (UTC)."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._answers: dict[str, Answer] = {}
        self._characters = 0

    def keep(self, answer: Answer) -> None:
        """The newest one is always kept."""
        self._forget(answer.key)
        self._answers[answer.key] = answer
        self._characters += len(answer.body)
        while len(self._answers) > 1 and (len(self._answers) > MOST or self._characters > MOST_CHARACTERS):
            self._forget(next(iter(self._answers)))

    def of(self, key: str) -> Answer | None:
        """The answer to a key, unless its time is over."""
        answer = self._answers.get(key)
        return None if answer is None or answer.at < self._clock() - KEPT_S else answer

    def _forget(self, key: str) -> None:
        answer = self._answers.pop(key, None)
        if answer is not None:
            self._characters -= len(answer.body)
