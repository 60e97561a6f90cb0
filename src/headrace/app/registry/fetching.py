"""Sources of ``models push`` that lie elsewhere: object stores and MLflow registries, brought to a temporary folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from headrace.core import errors, names
from headrace.core.versions import TrackedModel
from headrace.store.mlflow_lines import Failed, Fetched, Line, Moved

Progress = Callable[[str, int, int], None]
"""What is being moved, bytes that were just moved, bytes in all (0: not known)."""

_PREFIX = "mlflow:"
_TRACKING_URI = "MLFLOW_TRACKING_URI"
_DEFAULTS = {
    # A server that is down should be told within seconds, not after MLflow's own minutes of trying.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""Settings of MLflow that the user's environment may override."""
_SHOWN = 2000


class Source(msgspec.Struct, frozen=True):
    """A source on this disk, with what is known of it from elsewhere. ``notes`` are things its user should hear."""

    path: str
    tracked: TrackedModel | None = None
    metrics: dict[str, float] = {}
    git_sha: str | None = None
    notes: tuple[str, ...] = ()


def is_remote(source: str) -> bool:
    """It is a URL, and no path."""
    return "://" in source or _mlflow_uri(source) is not None


@contextmanager
def fetched(source: str, tracking_uri: str | None, progress: Progress) -> Iterator[Source]:
    """The source on disk; what was downloaded is removed at the end.

    Raises BadSettings, UnknownModel, InvalidInput when nothing is there, Unauthorized, StoreFailed, StorageFull."""
    uri = _mlflow_uri(source)
    if not is_remote(source):
        yield Source(source)
        return
    with tempfile.TemporaryDirectory(prefix="headrace-push-") as folder:
        if uri is not None:
            environment = _environment(os.environ, tracking_uri)
            yield _from_mlflow(uri, Path(folder), environment, lambda count, total: progress(source, count, total))
        else:
            from headrace.store.object_artifacts import download

            yield Source(str(download(source, Path(folder), lambda count: progress(source, count, 0))))


def _mlflow_uri(source: str) -> str | None:
    """``models:/fraud@champion`` of ``mlflow:/models:/fraud@champion``, which MLflow itself writes without the prefix;
    None for sources of another kind."""
    if source.startswith(_PREFIX):
        return source.removeprefix(_PREFIX).strip("/")
    return source.rstrip("/") if source.startswith(("models:/", "runs:/")) else None


def _environment(given: Mapping[str, str], tracking_uri: str | None) -> dict[str, str]:
    server = tracking_uri or given.get(_TRACKING_URI)
    if not server:
        raise errors.BadSettings(f"say where MLflow is: --tracking-uri http://HOST:5000, or {_TRACKING_URI}")
    return {**_DEFAULTS, **given, _TRACKING_URI: server}


def _from_mlflow(uri: str, folder: Path, environment: Mapping[str, str], moved: Callable[[int, int], None]) -> Source:
    target = folder / "fetched"
    target.mkdir()
    command = [sys.executable, "-m", "headrace.store.mlflow_registry", uri, str(target)]
    with (folder / "log").open("w+", encoding="utf-8", errors="replace") as log:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment) as process:
            try:
                found = _followed(process, moved)
            finally:
                process.kill()  # it has ended, unless this process was interrupted
        if found is not None:
            path = _named(Path(found.path), folder, found.name)
            return Source(str(path), found.tracked, found.metrics, found.git_sha, found.notes)
        log.seek(0)
        raise errors.StoreFailed(f"{uri}: the download from MLflow ended without a result: {log.read()[-_SHOWN:]}")


def _followed(process: subprocess.Popen[bytes], moved: Callable[[int, int], None]) -> Fetched | None:
    """What the process fetched; None when it ended without a word. Raises what it says went wrong."""
    assert process.stdout is not None
    for line in process.stdout:
        match msgspec.json.decode(line, type=Line):
            case Moved(size, total):
                moved(size, total)
            case Failed(code, message):
                raise errors.from_code(code, message)
            case Fetched() as found:
                return found
    return None


def _named(path: Path, folder: Path, name: str) -> Path:
    """A downloaded folder takes its model's name, which is what a push without a name goes by. A file keeps its own."""
    return path.rename(folder / names.endpoint_from_path(name)) if path.is_dir() else path
