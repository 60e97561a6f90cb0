"""A state within a transaction: several steps that happen together, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from headrace.control.registry_ports import Transaction


class JoinedState:
    """Implements ``State``; every step is part of a transaction that is under way."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        yield self._transaction

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        yield self._transaction
