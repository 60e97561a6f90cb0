"""All repositories over one database: what the planes above get as their port to the state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from headrace.store.answers import Answers
from headrace.store.database import Database
from headrace.store.endpoints import Endpoints
from headrace.store.events import Events
from headrace.store.experiments import Experiments
from headrace.store.keys import Keys
from headrace.store.models import Models
from headrace.store.rollouts import Rollouts
from headrace.store.trust import Trust


class Transaction:
    """The repositories of one transaction; they share its fate."""

    def __init__(self, connection: sa.Connection) -> None:
        self.models = Models(connection)
        self.trust = Trust(connection)
        self.events = Events(connection)
        self.keys = Keys(connection)
        self.endpoints = Endpoints(connection)
        self.answers = Answers(connection)
        self.rollouts = Rollouts(connection)
        self.experiments = Experiments(connection)


class State:
    """Thread-safe; every call blocks."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        with self.database.reading() as connection:
            yield Transaction(connection)

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        """Everything in it happens, or nothing."""
        with self.database.writing() as connection:
            yield Transaction(connection)
