"""Whose code may run: digests that somebody vouched for."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from headrace.core.versions import TrustGrant
from headrace.store.database import insert
from headrace.store.tables import TRUST


class Trust:
    """The aggregate within one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def grant(self, grant: TrustGrant) -> None:
        """Record a grant. The first one for a digest stays: it says who let the code in."""
        new = insert(self._connection, TRUST).values(**msgspec.structs.asdict(grant))
        self._connection.execute(new.on_conflict_do_nothing())

    def revoke(self, digest: str) -> None:
        self._connection.execute(sa.delete(TRUST).where(TRUST.c.digest == digest))

    def of(self, digest: str) -> TrustGrant | None:
        row = self._connection.execute(sa.select(TRUST).where(TRUST.c.digest == digest)).one_or_none()
        return None if row is None else TrustGrant(digest=row.digest, who=row.who, at=row.at)
