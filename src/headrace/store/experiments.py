"""Experiments from their start on, and their tallies by arm and hour."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import sqlalchemy as sa

from headrace.core.experiments import Experiment, HourTally
from headrace.store.database import insert
from headrace.store.tables import EXPERIMENT_TALLIES, EXPERIMENTS

_decode = msgspec.json.Decoder(Experiment).decode
_decode_tally = msgspec.json.Decoder(HourTally).decode


class Experiments:
    """The aggregate within one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def all(self) -> list[Experiment]:
        """Oldest first."""
        query = sa.select(EXPERIMENTS.c.definition).order_by(EXPERIMENTS.c.started, EXPERIMENTS.c.id)
        return [_decode(row) for row in self._connection.execute(query).scalars()]

    def put(self, experiment: Experiment) -> None:
        """Keep it, new or instead of what was kept under its id."""
        row = {
            "id": experiment.id,
            "endpoint": experiment.endpoint,
            "started": experiment.started,
            "definition": msgspec.json.encode(experiment).decode(),
        }
        new = insert(self._connection, EXPERIMENTS).values(**row)
        self._connection.execute(new.on_conflict_do_update(index_elements=["id"], set_=row))

    def tallies(self, experiment: str) -> list[HourTally]:
        """By hour and arm."""
        table = EXPERIMENT_TALLIES
        query = sa.select(table.c.tally).where(table.c.experiment == experiment).order_by(table.c.hour, table.c.arm)
        return [_decode_tally(row) for row in self._connection.execute(query).scalars()]

    def put_tallies(self, experiment: str, tallies: Iterable[HourTally]) -> None:
        """Each takes the place of what was kept for its arm and hour."""
        for tally in tallies:
            key = {"experiment": experiment, "arm": tally.arm, "hour": tally.hour}
            content = msgspec.json.encode(tally).decode()
            new = insert(self._connection, EXPERIMENT_TALLIES).values(**key, tally=content)
            self._connection.execute(new.on_conflict_do_update(index_elements=list(key), set_={"tally": content}))
