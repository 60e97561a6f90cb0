"""Where the commands of keys work: through the server that owns the state, else on the state itself.

A server is asked with an admin key. Whoever has none and may write the files of the state has no need of one: the first
key is made so, and the next one when all admin keys are lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from headrace.app.keys.direct_keys import DirectKeys
from headrace.app.keys.key_state import open_issuer
from headrace.app.keys.keys_service import KeysService
from headrace.app.registry.models_place import named_server, owning_server
from headrace.app.state.location import Location

_KEY_VARIABLE = "HEADRACE_API_KEY"


@contextmanager
def open_keys(location: Location, server: str | None, environ: Mapping[str, str]) -> Iterator[KeysService]:
    """Through ``server`` (or ``HEADRACE_SERVER``); with ``HEADRACE_API_KEY`` through whoever owns the state; else on
    the state itself. Raises BadSettings, StoreFailed, NotReady."""
    url = named_server(server, environ)
    if url is None and environ.get(_KEY_VARIABLE):
        url = owning_server(location)
    if url is None:
        with open_issuer(location, environ) as issuer:
            yield DirectKeys(issuer)
        return
    from headrace.client import Client

    with Client(management_url=url, api_key=environ.get(_KEY_VARIABLE)) as client:
        yield client.keys
