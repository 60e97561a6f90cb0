"""Answers to requests with an idempotency key, kept for a day."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from headrace.core.answers import KEPT_S, Answer
from headrace.store.database import insert
from headrace.store.tables import ANSWERS


class Answers:
    """The aggregate within one transaction: an answer is kept exactly when the change it tells of is."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def keep(self, answer: Answer) -> None:
        """Keep an answer; those whose time is over at that moment go. Of two to one key the first stays: a change whose
        commit was doubtful is told again."""
        self._connection.execute(sa.delete(ANSWERS).where(ANSWERS.c.at < answer.at - KEPT_S))
        row = msgspec.structs.asdict(answer) | {"headers": msgspec.json.encode(answer.headers).decode()}
        self._connection.execute(insert(self._connection, ANSWERS).values(row).on_conflict_do_nothing())

    def of(self, key: str, now: float) -> Answer | None:
        """The answer to a key, unless its time is over; ``now`` in seconds since 1970."""
        query = sa.select(ANSWERS).where(ANSWERS.c.key == key, ANSWERS.c.at >= now - KEPT_S)
        row = self._connection.execute(query).mappings().one_or_none()
        if row is None:
            return None
        return Answer(**{**row, "headers": msgspec.json.decode(row["headers"], type=dict[str, str])})
