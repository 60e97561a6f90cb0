"""Downloads an artifact with MLflow's client, and tells how it gets on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path, PurePosixPath

from headrace.core import errors
from headrace.store.mlflow_lines import Moved, Tell

_META = "registered_model_meta"
"""A file that MLflow adds to what it downloads; the artifact does not have it."""
_LOOK_S = 0.2
_MAX_ENTRIES = 20_000


def download(uri: str, folder: Path, tell: Tell) -> Path:
    """Download ``uri`` into the empty ``folder``; returns the file or folder that it is there.

    Raises InvalidInput when there is no artifact, or none that can be a model; whatever MLflow raises."""
    import mlflow.artifacts

    files = dict(_files(uri))
    total = sum(files.values())
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(mlflow.artifacts.download_artifacts, artifact_uri=uri, dst_path=str(folder))
        seen = 0
        while not wait([task], _LOOK_S).done:
            # MLflow tells nothing of its way, so that what is on disk has to.
            seen = _tell_growth(folder, seen, total, tell)
    path = Path(task.result())
    if path.is_dir() and _META not in files:
        (path / _META).unlink(missing_ok=True)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        raise errors.InvalidInput(f"MLflow has no artifact at {uri}: it was deleted, or never logged")
    _tell_growth(folder, seen, total, tell)
    return path


def _files(uri: str) -> Iterator[tuple[str, int]]:
    """Paths and sizes of the files of an artifact. Raises InvalidInput for names that lead out of its folder, and for
    more of them than a model has."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    # ``mlflow.artifacts.list_artifacts`` cannot look into folders of logged models.
    repository = get_artifact_repository(uri)
    name = PurePosixPath(uri).name
    pending: list[str | None] = [None]
    left = _MAX_ENTRIES
    while pending:
        for entry in repository.list_artifacts(pending.pop()):
            left -= 1
            if left < 0:
                raise errors.InvalidInput(f"{uri} holds more than {_MAX_ENTRIES} files and folders: is it a model?")
            if ".." in entry.path.split("/") or entry.path.startswith("/") or "\\" in entry.path:
                raise errors.InvalidInput(
                    f"{uri} holds a file that would be written outside its folder: {entry.path!r}"
                )
            # The first level of a run's logged model has the model's name before its paths, the others have not.
            path = entry.path.removeprefix(f"{name}/")
            if entry.is_dir:
                pending.append(path)
            else:
                yield path, entry.file_size or 0


def _tell_growth(folder: Path, seen: int, total: int, tell: Tell) -> int:
    now = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if now > seen:
        tell(Moved(now - seen, total))
    return max(now, seen)
