"""Models in an MLflow registry: an alias becomes a number, the artifact is downloaded, and its run tells its story.

Runs in a process of its own, ``python -m headrace.store.mlflow_registry SOURCE FOLDER``, because MLflow keeps the
server's address in global state, writes to stdout and takes seconds to import. It finds the server and the credentials
as MLflow's own tools do (``MLFLOW_TRACKING_URI``, ``MLFLOW_TRACKING_TOKEN``, …). One JSON object per line comes out:
``Moved`` any number of times, then ``Fetched`` or ``Failed``.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from headrace.core import errors
from headrace.core.versions import TrackedModel
from headrace.store.mlflow_download import download
from headrace.store.mlflow_lines import Failed, Fetched, Line, Tell

_MODEL = re.compile(r"models:(?P<place>//[^/]+)?/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[^/@]+))?\Z")
_RUN = re.compile(r"runs:/(?P<run>[0-9a-zA-Z]+)/(?P<path>[^@]+)\Z")
_GRAMMAR = "models:/NAME@ALIAS, models:/NAME/VERSION or runs:/RUN_ID/PATH"
_LOGGED = re.compile(r"m-[0-9a-f]{32}\Z")
"""Ids of MLflow 3's logged models, which stand where names of registered models do."""

_BOOKKEEPING = ("mlflow.log-model.history", "mlflow.modelVersions")
"""Tags in which MLflow keeps copies of what stands elsewhere."""
_COMMIT = "mlflow.source.git.commit"


class _Place(msgspec.Struct, frozen=True):
    """A source with its alias resolved: what MLflow calls it, and where its story is."""

    uri: str
    name: str
    run_id: str | None
    logged_model: str | None = None
    tags: dict[str, str] = {}


def fetch(source: str, folder: Path, tell: Tell) -> Fetched:
    """Download ``source`` into the empty ``folder``.

    Raises BadSettings for what is no source, UnknownModel, InvalidInput when the artifact is missing, Unauthorized,
    StoreFailed."""
    import mlflow

    with _typed(source):
        client = mlflow.MlflowClient()
        place = _resolve(client, source)
        path = download(place.uri, folder, tell)
        return _told(client, place, path, _without_credentials(mlflow.get_tracking_uri()))


# --- finding ------------------------------------------------------------------------------------------------------


def _resolve(client: Any, source: str) -> _Place:
    if run := _RUN.match(source):
        return _Place(source, PurePosixPath(run["path"]).name, run["run"])
    model = _MODEL.match(source)
    if model is None:
        raise errors.BadSettings(f"{source!r} names nothing in MLflow: write {_GRAMMAR}")
    name, alias, version = model["name"], model["alias"], model["version"]
    if alias is None and version is None:
        if not _LOGGED.match(name):
            raise errors.BadSettings(
                f"{source!r} says not which version: write models:/{name}@ALIAS or models:/{name}/3"
            )
        logged = client.get_logged_model(name)
        return _Place(source, logged.name, logged.source_run_id, name)
    found = _version(client, name, alias, version)
    logged_id = found.model_id or PurePosixPath(found.source or "").name
    return _Place(
        uri=f"models:{model['place'] or ''}/{name}/{found.version}",
        name=name,
        run_id=found.run_id or None,
        logged_model=logged_id if _LOGGED.match(logged_id) else None,
        tags=dict(found.tags),
    )


def _version(client: Any, name: str, alias: str | None, version: str | None) -> Any:
    registered = client.get_registered_model(name)
    if alias is not None:
        if alias not in registered.aliases:
            known = ", ".join(f"{known} → {number}" for known, number in sorted(registered.aliases.items()))
            raise errors.UnknownModel(f"MLflow's model {name!r} has no alias {alias!r}; it has {known or 'none'}")
        return client.get_model_version_by_alias(name, alias)
    if version is None or not version.isdigit():
        raise errors.BadSettings(f"{version!r} is no version of an MLflow model: write a number, or NAME@ALIAS")
    return client.get_model_version(name, version)


# --- its story ----------------------------------------------------------------------------------------------------


def _told(client: Any, place: _Place, path: Path, server: str) -> Fetched:
    """What is known of the run, of the logged model and of the registered version, whose own tags count most."""
    from mlflow.exceptions import MlflowException

    metrics: dict[str, float] = {}
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    notes: list[str] = []
    try:
        if place.run_id is not None:
            run = client.get_run(place.run_id).data
            metrics, params, tags = dict(run.metrics), dict(run.params), dict(run.tags)
    except MlflowException as error:
        notes.append(f"the run {place.run_id} cannot be read, so its metrics are not known: {_first_line(error)}")
    try:
        if place.logged_model is not None:
            logged = client.get_logged_model(place.logged_model)
            # The run's word counts more: of logged models MLflow tells metrics that are not finite as 0.
            metrics = {metric.key: metric.value for metric in logged.metrics or ()} | metrics
            params = dict(logged.params or {}) | params
            tags = dict(logged.tags or {}) | tags
    except MlflowException as error:
        notes.append(f"the logged model {place.logged_model} cannot be read: {_first_line(error)}")
    tags |= place.tags
    for name in _BOOKKEEPING:
        tags.pop(name, None)
    odd = [name for name, value in metrics.items() if not math.isfinite(value)]
    notes.extend(f"the metric {name} is {metrics.pop(name)}, so it is left out" for name in odd)
    tracked = TrackedModel(place.uri, server, place.run_id, {k: str(v) for k, v in params.items()}, tags)
    return Fetched(str(path), place.name, tracked, metrics, tags.get(_COMMIT), tuple(notes))


def _without_credentials(uri: str) -> str:
    return re.sub(r"(?<=//)[^/@]*@", "", uri)


# --- errors -------------------------------------------------------------------------------------------------------


@contextmanager
def _typed(source: str) -> Iterator[None]:
    """What MLflow raises, as errors of ours that say where it was."""
    import mlflow
    from mlflow.exceptions import MlflowException

    server = _without_credentials(mlflow.get_tracking_uri())
    try:
        yield
    except MlflowException as error:
        said = _without_credentials(_first_line(error))
        # These two have no code of their own: nothing answered, or something that is no MLflow.
        if " failed with exception " in said:
            raise errors.StoreFailed(f"MLflow at {server} cannot be reached; is it running? {said}") from error
        if said.startswith("API request to endpoint"):
            raise errors.StoreFailed(f"{server} does not answer as an MLflow server does: {said}") from error
        match error.error_code:
            case "RESOURCE_DOES_NOT_EXIST" | "ENDPOINT_NOT_FOUND":
                raise errors.UnknownModel(f"MLflow at {server} does not have {source}: {said}") from error
            case "UNAUTHENTICATED" | "PERMISSION_DENIED" | "CUSTOMER_UNAUTHORIZED":
                raise errors.Unauthorized(
                    f"MLflow at {server} refuses {source}: {said}; set MLFLOW_TRACKING_TOKEN, or"
                    " MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
                ) from error
        raise errors.StoreFailed(f"MLflow at {server} failed for {source}: {said}") from error
    except OSError as error:
        raise errors.StoreFailed(f"{source} cannot be fetched from MLflow at {server}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:500] if lines else type(error).__name__


# --- the command --------------------------------------------------------------------------------------------------


def main(source: str, folder: str) -> None:
    # Libraries print to stdout; the lines below must be the only ones there.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def tell(line: Line) -> None:
        answer.write(msgspec.json.encode(line) + b"\n")
        answer.flush()

    try:
        tell(fetch(source, Path(folder), tell))
    except ModuleNotFoundError as error:
        message = f"MLflow registries need a library ({error.name} is missing): pip install 'headrace[mlflow]'"
        tell(Failed(errors.BadSettings.code, message))
    except errors.HeadraceError as error:
        tell(Failed(error.code, error.message))


if __name__ == "__main__":
    main(*sys.argv[1:])
