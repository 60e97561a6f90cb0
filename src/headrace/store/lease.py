"""Who may act on a shared database: a lease with an expiry, and a token that only grows.

The expiry decides when another may take over; it depends on clocks. What must not go wrong does not: every write of
a holder looks its token up in the same transaction, so that one that was paused beyond its lease cannot write over
its successor (Kleppmann, "How to do distributed locking", 2016).
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from headrace.core import errors
from headrace.store.database import Database, insert
from headrace.store.tables import LEASES

Clock = Callable[[], float]
"""Seconds since 1970 (UTC)."""


class Lease:
    """A held lease. ``database`` writes only while it is held; ``token`` grows with every new holder."""

    def __init__(self, database: Database, name: str, holder: str, token: int, ttl_s: float, clock: Clock) -> None:
        self._plain = database
        self.name = name
        self.holder = holder
        self.token = token
        self._ttl_s = ttl_s
        self._clock = clock
        self.database = database.fenced(self._check)

    def renew(self) -> None:
        """Extend it by its full time. Raises LeaseLost when another has taken over."""
        with self._plain.writing() as connection:
            self._update(connection, self._clock() + self._ttl_s)

    def release(self) -> None:
        """Let the next one in at once. The row stays, so that its token goes on growing."""
        with self._plain.writing() as connection:
            self._update(connection, 0.0)

    def _update(self, connection: sa.Connection, expires_at: float) -> None:
        mine = sa.update(LEASES).where(LEASES.c.name == self.name, LEASES.c.token == self.token)
        if connection.execute(mine.values(expires_at=expires_at)).rowcount != 1:
            raise self._lost()

    def _check(self, connection: sa.Connection) -> None:
        # The shared lock holds a successor back until this write is done.
        query = sa.select(LEASES.c.token).where(LEASES.c.name == self.name).with_for_update(read=True)
        if connection.scalar(query) != self.token:
            raise self._lost()

    def _lost(self) -> errors.LeaseLost:
        return errors.LeaseLost(f"{self.holder} lost the lease {self.name!r} (token {self.token}) to another process")


def holder_of(database: Database, name: str, now: float) -> str | None:
    """Who holds a lease at ``now``, in seconds since 1970; None when nobody does."""
    with database.reading() as connection:
        query = sa.select(LEASES.c.holder).where(LEASES.c.name == name, LEASES.c.expires_at > now)
        holder: str | None = connection.scalar(query)
    return holder


def acquire(database: Database, name: str, holder: str, *, ttl_s: float, clock: Clock) -> Lease:
    """Take the lease when nobody holds it or its holder's time is over. Raises StateInUse that names the holder."""
    with database.writing() as connection:
        new = insert(connection, LEASES).values(name=name, holder=holder, token=0, expires_at=0.0)
        connection.execute(new.on_conflict_do_nothing())
        row = connection.execute(sa.select(LEASES).where(LEASES.c.name == name).with_for_update()).one()
        now = clock()
        if row.expires_at > now:
            raise errors.StateInUse(
                f"{row.holder} controls this database for another {row.expires_at - now:.0f} s at least;"
                " stop it, or use another --database"
            )
        taken = sa.update(LEASES).where(LEASES.c.name == name).returning(LEASES.c.token)
        values = {"holder": holder, "token": LEASES.c.token + 1, "expires_at": now + ttl_s}
        token = int(connection.execute(taken.values(**values)).scalar_one())
    return Lease(database, name, holder, token, ttl_s, clock)
