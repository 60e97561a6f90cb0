"""Endpoints as they shall be: one row each, replaced as a whole."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from headrace.core import errors
from headrace.core.endpoint_records import EndpointRecord
from headrace.store.database import insert
from headrace.store.tables import ENDPOINTS

_decode = msgspec.json.Decoder(EndpointRecord).decode


class Endpoints:
    """The aggregate within one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def all(self) -> list[EndpointRecord]:
        """Every endpoint, by name."""
        rows = self._connection.execute(sa.select(ENDPOINTS.c.record).order_by(ENDPOINTS.c.name)).scalars()
        return [_decode(row) for row in rows]

    def get(self, name: str) -> EndpointRecord | None:
        row = self._connection.execute(sa.select(ENDPOINTS.c.record).where(ENDPOINTS.c.name == name)).scalar()
        return None if row is None else _decode(row)

    def put(self, record: EndpointRecord) -> None:
        """Keep a record whose generation is one above the one that is kept, or 1 of a new endpoint.

        Raises PreconditionFailed when another change came in between."""
        encoded = msgspec.json.encode(record).decode()
        if record.generation == 1:
            new = insert(self._connection, ENDPOINTS).values(name=record.name, generation=1, record=encoded)
            added = new.on_conflict_do_nothing().returning(ENDPOINTS.c.name)
            changed = len(self._connection.execute(added).all())
        else:
            mine = sa.update(ENDPOINTS).where(
                ENDPOINTS.c.name == record.name, ENDPOINTS.c.generation == record.generation - 1
            )
            values = {"generation": record.generation, "record": encoded}
            changed = self._connection.execute(mine.values(**values)).rowcount
        if changed != 1:
            raise _outdated(record.name)

    def delete(self, name: str, generation: int) -> None:
        """Raises PreconditionFailed when the endpoint has another generation."""
        mine = sa.delete(ENDPOINTS).where(ENDPOINTS.c.name == name, ENDPOINTS.c.generation == generation)
        if self._connection.execute(mine).rowcount != 1:
            raise _outdated(name)


def _outdated(name: str) -> errors.PreconditionFailed:
    return errors.PreconditionFailed(
        f"endpoint {name!r} was changed by somebody else meanwhile; look at it and try again"
    )
