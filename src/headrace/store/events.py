"""The log of changes: only added to."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from headrace.core.versions import Event
from headrace.store.tables import EVENTS


class Events:
    """The aggregate within one transaction: an event is kept exactly when the change it tells of is."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(self, event: Event) -> None:
        row = msgspec.structs.asdict(event)
        for side in ("before", "after"):
            row[side] = None if row[side] is None else msgspec.json.encode(row[side]).decode()
        self._connection.execute(sa.insert(EVENTS), row)

    def of(self, subject: str) -> list[Event]:
        """Everything that happened to a subject (``fraud``, ``fraud@7``), oldest first."""
        query = sa.select(EVENTS).where(EVENTS.c.subject == subject).order_by(EVENTS.c.id)
        return [_event(row) for row in self._connection.execute(query).mappings()]

    def latest(self, limit: int, subject: str | None = None) -> list[Event]:
        """The last changes, newest first; of everything, or of one subject."""
        query = sa.select(EVENTS).order_by(EVENTS.c.id.desc()).limit(limit)
        if subject is not None:
            query = query.where(EVENTS.c.subject == subject)
        return [_event(row) for row in self._connection.execute(query).mappings()]

    def page(self, limit: int, before: int | None = None, subject: str | None = None) -> list[tuple[int, Event]]:
        """Changes with their places in the log, newest first, of those before place ``before``."""
        query = sa.select(EVENTS).order_by(EVENTS.c.id.desc()).limit(limit)
        if subject is not None:
            query = query.where(EVENTS.c.subject == subject)
        if before is not None:
            query = query.where(EVENTS.c.id < before)
        return [(int(row["id"]), _event(row)) for row in self._connection.execute(query).mappings()]


def _event(row: sa.RowMapping) -> Event:
    values = {name: row[name] for name in Event.__struct_fields__}
    for side in ("before", "after"):
        values[side] = None if values[side] is None else msgspec.json.decode(values[side])
    return Event(**values)
