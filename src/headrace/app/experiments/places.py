"""Where experiments are kept: their definitions and tallies in the state, or beside the run when there is none; the
requests that were answered in one index per endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headrace.app.endpoints.effect import request_index_folder
from headrace.app.endpoints.manager import EndpointManager
from headrace.core import errors
from headrace.core.experiments import Experiment, HourTally
from headrace.store.database import Database, open_database, sqlite_url
from headrace.store.request_index import FILE, RequestIndex
from headrace.store.state import State

_OWN_STATE = "experiments.db"


class KeptExperiments:
    """Blocking; any thread. Raises StoreFailed, LeaseLost, NotReady."""

    def __init__(self, manager: EndpointManager, *, owns_state: bool) -> None:
        """``owns_state``: the server has a state, which may not have been reached yet."""
        self._manager = manager
        self._owns_state = owns_state
        self._own: Database | None = None

    @property
    def reached(self) -> bool:
        return not self._owns_state or self._manager.state is not None

    def all(self) -> list[Experiment]:
        with self._state().reading() as transaction:
            return transaction.experiments.all()

    def put(self, experiment: Experiment) -> None:
        with self._state().writing() as transaction:
            transaction.experiments.put(experiment)

    def tallies(self, experiment: str) -> list[HourTally]:
        with self._state().reading() as transaction:
            return transaction.experiments.tallies(experiment)

    def put_tallies(self, experiment: str, tallies: Sequence[HourTally]) -> None:
        with self._state().writing() as transaction:
            transaction.experiments.put_tallies(experiment, tallies)

    def close(self) -> None:
        if self._own is not None:
            self._own.close()

    def _state(self) -> State:
        if self._owns_state:
            if self._manager.state is None:
                raise errors.NotReady("the state cannot be reached, and experiments are kept in it; try again later")
            return self._manager.state.open_state()
        if self._own is None:
            # It lasts as long as the run; a controller that is started again finds it.
            folder = self._manager.experiments_folder
            folder.mkdir(parents=True, exist_ok=True)
            self._own = open_database(sqlite_url(folder / _OWN_STATE))
        return State(self._own)


class Indexes:
    """The request index of every endpoint, opened when it is needed. Blocking, and for one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, RequestIndex] = {}

    def of(self, endpoint: str) -> RequestIndex:
        """Made when there is none. Raises StoreFailed, StorageFull."""
        index = self._open.get(endpoint)
        if index is None:
            index = self._open[endpoint] = RequestIndex(request_index_folder(self._folder, endpoint))
        return index

    def exists(self, endpoint: str) -> bool:
        return endpoint in self._open or (request_index_folder(self._folder, endpoint) / FILE).exists()

    def close(self) -> None:
        for index in self._open.values():
            index.close()
        self._open.clear()
