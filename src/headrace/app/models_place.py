"""Where the registry's commands work: through the controller that owns the registry, else on the state itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from headrace.app import controller_address
from headrace.app.direct_models import DirectModels
from headrace.app.models_service import ModelsService
from headrace.app.registry_state import LEASE, Location, RegistryState, open_registry

SERVER_VARIABLE = "HEADRACE_SERVER"
_DEFAULT_URL = "http://127.0.0.1:9000"


@contextmanager
def open_models(location: Location, server: str | None, environ: Mapping[str, str]) -> Iterator[ModelsService]:
    """Through ``server`` (or ``HEADRACE_SERVER``), a management port; else the controller that owns the state; else the
    state itself. Raises BadSettings, StoreFailed, NotReady."""
    url = server or environ.get(SERVER_VARIABLE) or None
    if url is None and location.database is None:
        owner = controller_address.find(location.directory)
        url = None if owner is None else owner.url
    if url is not None:
        with _through(url) as models:
            yield models
        return
    with open_registry(location) as state:
        url = None if location.database is None else _holder_of(state)
        if url is None:
            yield DirectModels(state)
            return
    with _through(url) as models:
        yield models


def find_controller(location: Location, server: str | None, environ: Mapping[str, str]) -> str:
    """URL of the management port to ask: the one that is named, else of the controller that owns the state, else the
    one that a server has by default."""
    url = server or environ.get(SERVER_VARIABLE)
    if url:
        return url
    owner = controller_address.find(location.directory)
    return _DEFAULT_URL if owner is None else owner.url


def _holder_of(state: RegistryState) -> str | None:
    holder = state.holder(LEASE, time.time())
    return None if holder is None else controller_address.of_holder(holder)


@contextmanager
def _through(url: str) -> Iterator[ModelsService]:
    from headrace.app.remote_models import RemoteModels
    from headrace.client import Client

    with Client(management_url=url) as client:
        yield RemoteModels(client.models)
