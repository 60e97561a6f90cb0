"""Where the registry's commands work: through the controller that owns the registry, else on the state itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from headrace.app.registry.direct_models import DirectModels
from headrace.app.registry.models_service import ModelsService
from headrace.app.state import controller_address
from headrace.app.state.registry_state import LEASE, Location, RegistryState, open_registry

SERVER_VARIABLE = "HEADRACE_SERVER"
_DEFAULT_URL = "http://127.0.0.1:9000"


@contextmanager
def open_models(location: Location, server: str | None, environ: Mapping[str, str]) -> Iterator[ModelsService]:
    """Through ``server`` (or ``HEADRACE_SERVER``), a management port; else the controller that owns the state; else the
    state itself. Raises BadSettings, StoreFailed, NotReady."""
    url = named_server(server, environ) or owning_server(location)
    if url is None:
        with open_registry(location) as state:
            yield DirectModels(state)
    else:
        with _through(url) as models:
            yield models


def named_server(server: str | None, environ: Mapping[str, str]) -> str | None:
    """``server``, or ``HEADRACE_SERVER``."""
    return server or environ.get(SERVER_VARIABLE) or None


def owning_server(location: Location) -> str | None:
    """URL of the management port of the controller that owns the state; None when none answers. Raises StoreFailed."""
    if location.database is None:
        owner = controller_address.find(location.directory)
        return None if owner is None else owner.url
    with open_registry(location) as state:
        return _holder_of(state)


def find_controller(location: Location, server: str | None, environ: Mapping[str, str]) -> str:
    """URL of the management port to ask: the one that is named, else of the controller that owns the state, else the
    one that a server has by default."""
    url = named_server(server, environ)
    if url is not None:
        return url
    owner = controller_address.find(location.directory)
    return _DEFAULT_URL if owner is None else owner.url


def _holder_of(state: RegistryState) -> str | None:
    holder = state.holder(LEASE, time.time())
    return None if holder is None else controller_address.of_holder(holder)


@contextmanager
def _through(url: str) -> Iterator[ModelsService]:
    from headrace.app.registry.remote_models import RemoteModels
    from headrace.client import Client

    with Client(management_url=url) as client:
        yield RemoteModels(client.models)
