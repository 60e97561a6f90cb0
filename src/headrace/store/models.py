"""Models in the database: versions with their files, aliases with their history."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import sqlalchemy as sa

from headrace.core import errors
from headrace.core.versions import AliasMove, Draft, Summary, Version
from headrace.store.database import insert
from headrace.store.tables import ALIAS_HISTORY, ALIASES, MODELS, VERSION_FILES, VERSIONS


class Models:
    """The aggregate within one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def names(self) -> list[str]:
        """Models that have a version, sorted."""
        query = sa.select(VERSIONS.c.model).distinct().order_by(VERSIONS.c.model)
        return list(self._connection.scalars(query))

    def listing(self, limit: int | None = None, after: str = "") -> list[Summary]:
        """Models that have a version, sorted by name, from the first one after ``after``; in two queries however many
        there are."""
        newest = sa.select(
            VERSIONS.c.model, sa.func.max(VERSIONS.c.version).label("version"), sa.func.count().label("n")
        )
        page = newest.where(VERSIONS.c.model > after).group_by(VERSIONS.c.model).order_by(VERSIONS.c.model)
        top = page.limit(limit).subquery()
        drafts = sa.select(VERSIONS, top.c.n).join(
            top, (top.c.model == VERSIONS.c.model) & (top.c.version == VERSIONS.c.version)
        )
        aliases: dict[str, dict[str, int]] = {}
        known = sa.select(ALIASES).where(ALIASES.c.model.in_(sa.select(top.c.model))).order_by(ALIASES.c.alias)
        for row in self._connection.execute(known):
            aliases.setdefault(row.model, {})[row.alias] = int(row.version)
        return [
            Summary(row.model, int(row.n), _version(row.version, row.draft), aliases.get(row.model, {}))
            for row in self._connection.execute(drafts.order_by(VERSIONS.c.model))
        ]

    def add(self, draft: Draft, number: int | None = None) -> Version:
        """Register a version under the next free number, or under ``number`` of an imported repository.

        A number is never given twice, not even after its version was deleted: Conflict."""
        version = Version(self._allocate(draft.model, number), draft)
        row = {"model": draft.model, "version": version.number}
        self._connection.execute(sa.insert(VERSIONS), row | {"draft": msgspec.json.encode(draft).decode()})
        self._connection.execute(
            sa.insert(VERSION_FILES), [row | msgspec.structs.asdict(stored) for stored in draft.files]
        )
        return version

    def _allocate(self, model: str, number: int | None) -> int:
        new = insert(self._connection, MODELS).values(name=model, last_version=0)
        self._connection.execute(new.on_conflict_do_nothing())
        # The update locks the row, so that two pushes cannot read the same number.
        last = MODELS.c.last_version
        bump = sa.update(MODELS).where(MODELS.c.name == model)
        if number is None:
            return int(self._connection.execute(bump.values(last_version=last + 1).returning(last)).scalar_one())
        latest = self._connection.execute(bump.values(last_version=last).returning(last)).scalar_one()
        if number <= latest:
            raise errors.Conflict(
                f"version {number} of {model!r} cannot be imported: numbers up to {latest} are used;"
                " push it without its number, or under another name"
            )
        self._connection.execute(bump.values(last_version=number))
        return number

    def get(self, model: str, number: int) -> Version | None:
        query = sa.select(VERSIONS.c.draft).where(VERSIONS.c.model == model, VERSIONS.c.version == number)
        draft = self._connection.scalar(query)
        return None if draft is None else _version(number, draft)

    def versions(self, model: str) -> list[Version]:
        """Every version of a model, oldest first."""
        query = sa.select(VERSIONS).where(VERSIONS.c.model == model).order_by(VERSIONS.c.version)
        return [_version(row.version, row.draft) for row in self._connection.execute(query)]

    def page(self, model: str, limit: int, before: int | None = None) -> list[Version]:
        """Versions of a model, newest first, of those with a number below ``before``."""
        query = sa.select(VERSIONS).where(VERSIONS.c.model == model).order_by(VERSIONS.c.version.desc()).limit(limit)
        if before is not None:
            query = query.where(VERSIONS.c.version < before)
        return [_version(row.version, row.draft) for row in self._connection.execute(query)]

    def delete(self, model: str, number: int) -> None:
        """Remove a version; its files go with the next ``gc``."""
        self._connection.execute(sa.delete(VERSIONS).where(VERSIONS.c.model == model, VERSIONS.c.version == number))

    def numbers(self) -> list[tuple[str, int]]:
        """Model and number of every version."""
        return [
            (row.model, int(row.version))
            for row in self._connection.execute(sa.select(VERSIONS.c.model, VERSIONS.c.version))
        ]

    def blobs(self) -> set[str]:
        """Digests of all files that a version refers to."""
        return set(self._connection.scalars(sa.select(VERSION_FILES.c.digest).distinct()))

    def aliases(self, model: str) -> dict[str, int]:
        """The aliases of a model: where each points to."""
        query = sa.select(ALIASES).where(ALIASES.c.model == model).order_by(ALIASES.c.alias)
        return {row.alias: int(row.version) for row in self._connection.execute(query)}

    def move_alias(self, model: str, move: AliasMove) -> None:
        """Point an alias at a version (or remove it) and note the step in its history."""
        if move.version is None:
            where = (ALIASES.c.model == model, ALIASES.c.alias == move.alias)
            self._connection.execute(sa.delete(ALIASES).where(*where))
        else:
            new = insert(self._connection, ALIASES).values(model=model, alias=move.alias, version=move.version)
            self._connection.execute(
                new.on_conflict_do_update(index_elements=["model", "alias"], set_={"version": move.version})
            )
        self._connection.execute(sa.insert(ALIAS_HISTORY), {"model": model, **msgspec.structs.asdict(move)})

    def alias_history(self, model: str) -> list[AliasMove]:
        """Every step of every alias of a model, oldest first."""
        query = sa.select(ALIAS_HISTORY).where(ALIAS_HISTORY.c.model == model).order_by(ALIAS_HISTORY.c.id)
        return _moves(self._connection.execute(query))

    def moves(
        self, model: str, limit: int, before: int | None = None, alias: str | None = None
    ) -> list[tuple[int, AliasMove]]:
        """Steps of a model's aliases (or of one) with their places in the history, newest first, of those before place
        ``before``."""
        query = sa.select(ALIAS_HISTORY).where(ALIAS_HISTORY.c.model == model)
        if alias is not None:
            query = query.where(ALIAS_HISTORY.c.alias == alias)
        if before is not None:
            query = query.where(ALIAS_HISTORY.c.id < before)
        rows = self._connection.execute(query.order_by(ALIAS_HISTORY.c.id.desc()).limit(limit)).all()
        return [(int(row.id), move) for row, move in zip(rows, _moves(rows), strict=True)]

    def lock(self, model: str) -> None:
        """Keep other writers of this model out until the transaction ends (on SQLite they are out already)."""
        self._connection.execute(sa.select(MODELS.c.name).where(MODELS.c.name == model).with_for_update())


def _version(number: int, draft: str) -> Version:
    return Version(int(number), msgspec.json.decode(draft, type=Draft))


def _moves(rows: Iterable[sa.Row[tuple[object, ...]]]) -> list[AliasMove]:
    return [AliasMove(alias=row.alias, version=row.version, before=row.before, who=row.who, at=row.at) for row in rows]
