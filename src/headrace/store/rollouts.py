"""Rollouts: one row each, replaced as a whole; those that ended are kept for their story.

What a rollout is belongs to a plane above: here it is a value with four fields that queries need, and reading takes the
type to read it as."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import msgspec
import sqlalchemy as sa

from headrace.core import errors
from headrace.store.database import insert
from headrace.store.tables import ROLLOUTS

R = TypeVar("R")


class Kept(Protocol):
    """A rollout as this file needs it: a value that ``msgspec`` encodes as JSON and decodes again."""

    @property
    def id(self) -> str: ...
    @property
    def endpoint(self) -> str: ...
    @property
    def started_at(self) -> float: ...
    @property
    def ended(self) -> bool: ...


class Rollouts:
    """The aggregate within one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def put(self, rollout: Kept) -> None:
        """Keep a rollout, in the place of the one with its id.

        Raises Conflict when another rollout of its endpoint is under way; the transaction is lost then."""
        self._check_alone(rollout)
        values: dict[str, Any] = {
            "endpoint": rollout.endpoint,
            "started_at": rollout.started_at,
            "ended": rollout.ended,
            "rollout": msgspec.json.encode(rollout).decode(),
        }
        new = insert(self._connection, ROLLOUTS).values(id=rollout.id, **values)
        try:
            self._connection.execute(new.on_conflict_do_update(index_elements=["id"], set_=values))
        except sa.exc.IntegrityError as error:  # another one was started between the look and the writing
            raise _under_way(rollout.endpoint, None) from error

    def _check_alone(self, rollout: Kept) -> None:
        if rollout.ended:
            return
        others = sa.select(ROLLOUTS.c.id).where(
            ROLLOUTS.c.endpoint == rollout.endpoint, ROLLOUTS.c.ended.is_(sa.false()), ROLLOUTS.c.id != rollout.id
        )
        other = self._connection.execute(others).scalar()
        if other is not None:
            raise _under_way(rollout.endpoint, other)

    def get(self, id: str, kind: type[R]) -> R | None:
        row = self._connection.execute(sa.select(ROLLOUTS.c.rollout).where(ROLLOUTS.c.id == id)).scalar()
        return None if row is None else msgspec.json.decode(row, type=kind)

    def active(self, kind: type[R]) -> list[R]:
        """Those that have not ended, by endpoint: at most one of each."""
        query = sa.select(ROLLOUTS.c.rollout).where(ROLLOUTS.c.ended.is_(sa.false())).order_by(ROLLOUTS.c.endpoint)
        return self._read(query, kind)

    def of(self, endpoint: str, limit: int, kind: type[R]) -> list[R]:
        """The latest of an endpoint, newest first."""
        return self._read(_newest(limit).where(ROLLOUTS.c.endpoint == endpoint), kind)

    def all(self, limit: int, kind: type[R]) -> list[R]:
        """The latest of all endpoints, newest first."""
        return self._read(_newest(limit), kind)

    def _read(self, query: sa.Select[Any], kind: type[R]) -> list[R]:
        return [msgspec.json.decode(row, type=kind) for row in self._connection.execute(query).scalars()]


def _newest(limit: int) -> sa.Select[Any]:
    return sa.select(ROLLOUTS.c.rollout).order_by(ROLLOUTS.c.started_at.desc(), ROLLOUTS.c.id.desc()).limit(limit)


def _under_way(endpoint: str, id: str | None) -> errors.Conflict:
    which = "a rollout" if id is None else f"rollout {id}"
    return errors.Conflict(
        f"endpoint {endpoint!r}: {which} is under way already; wait for its end, or promote or abort it"
    )
