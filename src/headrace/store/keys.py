"""API keys in the database: their digests, and the version of the whole set.

Nothing here can be turned into a key: digests are HMACs under a secret that is not in the database. What a dead key
was stays, so that its id is not given again and the history can be read.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import sqlalchemy as sa

from headrace.core.keys import KeyRecord, Scope
from headrace.store.database import insert
from headrace.store.tables import API_KEYS, KEY_SET

_ROW = 1


class Keys:
    """The aggregate within one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def version(self) -> int:
        """Grows with every change; 0 as long as there was none."""
        return self._connection.scalar(sa.select(KEY_SET.c.version).where(KEY_SET.c.id == _ROW)) or 0

    def begin_change(self, secret_check: str) -> str:
        """Make the next version, and keep other writers out until the transaction ends. Returns the check that the
        first change brought: that of the secret all digests are made with."""
        new = insert(self._connection, KEY_SET).values(id=_ROW, version=0, secret_check=secret_check)
        self._connection.execute(new.on_conflict_do_nothing())
        next_one = sa.update(KEY_SET).where(KEY_SET.c.id == _ROW).values(version=KEY_SET.c.version + 1)
        return str(self._connection.scalar(next_one.returning(KEY_SET.c.secret_check)))

    def secret_check(self) -> str | None:
        """None as long as there was no key."""
        return self._connection.scalar(sa.select(KEY_SET.c.secret_check).where(KEY_SET.c.id == _ROW))

    def lock(self) -> None:
        """Keep other writers out until the transaction ends, once there was a key."""
        self._connection.execute(sa.select(KEY_SET.c.id).where(KEY_SET.c.id == _ROW).with_for_update())

    def all(self) -> list[KeyRecord]:
        """Every key that ever was, oldest first."""
        query = sa.select(API_KEYS).order_by(API_KEYS.c.created, API_KEYS.c.id)
        return [_record(row) for row in self._connection.execute(query).mappings()]

    def page(self, limit: int, after: str | None = None) -> list[KeyRecord]:
        """The same in pages: those that follow the key with the id ``after``; none when there is no such key."""
        columns = API_KEYS.c.created, API_KEYS.c.id
        query = sa.select(API_KEYS).order_by(*columns).limit(limit)
        if after is not None:
            last = sa.select(API_KEYS.c.created).where(API_KEYS.c.id == after).scalar_subquery()
            query = query.where(sa.tuple_(*columns) > sa.tuple_(last, sa.literal(after)))
        return [_record(row) for row in self._connection.execute(query).mappings()]

    def add(self, record: KeyRecord) -> None:
        row = msgspec.structs.asdict(record)
        row["digest"] = record.digest.hex()
        for column in ("scopes", "endpoints"):
            row[column] = msgspec.json.encode(row[column]).decode()
        self._connection.execute(sa.insert(API_KEYS), row)

    def end(self, key_id: str, *, expires: float | None, revoked: float | None) -> None:
        """Set when a key ends; nothing else of it ever changes."""
        change = sa.update(API_KEYS).where(API_KEYS.c.id == key_id)
        self._connection.execute(change.values(expires=expires, revoked=revoked))


_scopes: Callable[[str], tuple[Scope, ...]] = msgspec.json.Decoder(tuple[Scope, ...]).decode
_endpoints: Callable[[str], tuple[str, ...]] = msgspec.json.Decoder(tuple[str, ...]).decode


def _record(row: sa.RowMapping) -> KeyRecord:
    return KeyRecord(
        id=row["id"],
        name=row["name"],
        scopes=_scopes(row["scopes"]),
        endpoints=_endpoints(row["endpoints"]),
        digest=bytes.fromhex(row["digest"]),
        created=row["created"],
        who=row["who"],
        expires=row["expires"],
        revoked=row["revoked"],
    )
