"""--watch: what counts as a change, and what only looks like one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.app import sources, watching
from headrace.app.settings.serve_settings import DeploymentSettings, ModelSource, ServeSettings
from headrace.app.watching import Change, Watcher


class Folder:
    """A file or folder that is watched; time passes when the test says so."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = 1_000_000_000_000_000_000

    def write(self, name: str, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.clock += 1_000_000
        os.utime(path, ns=(self.clock, self.clock))
        return path

    def watch(self, *sources_: ModelSource) -> Watcher:
        settings = ServeSettings(models=sources_, watch=True)
        found, _ = sources.discover(settings)
        return Watcher(settings, watching.first_look(found))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def told(changes: list[Change]) -> list[tuple[str, str, str | None]]:
    return [(c.candidate.endpoint, c.candidate.version, c.replaces) for c in changes]


def test_changed_file_is_told_once_when_it_is_quiet(folder: Folder) -> None:
    path = folder.write("pricer.py", "one")
    watcher = folder.watch(ModelSource(str(path)))
    assert watcher.changes() == []
    folder.write("pricer.py", "two")
    assert watcher.changes() == [], "it may be half-written"
    folder.write("pricer.py", "two and more")
    assert watcher.changes() == []
    assert told(watcher.changes()) == [("pricer", "2", "1")]
    assert watcher.changes() == []
    folder.write("pricer.py", "three")
    watcher.changes()
    assert told(watcher.changes()) == [("pricer", "3", "2")]


def test_same_size_and_a_new_time_is_a_change(folder: Folder) -> None:
    path = folder.write("m.py", "aaa")
    watcher = folder.watch(ModelSource(str(path)))
    folder.write("m.py", "bbb")
    watcher.changes()
    assert len(watcher.changes()) == 1


def test_change_that_is_taken_back_is_none(folder: Folder) -> None:
    path = folder.write("m.py", "aaa")
    watcher = folder.watch(ModelSource(str(path)))
    before = path.stat().st_mtime_ns
    folder.write("m.py", "bbb")
    watcher.changes()
    path.write_text("aaa")
    os.utime(path, ns=(before, before))
    assert watcher.changes() == []
    assert watcher.changes() == []


def test_new_version_folder_is_told_and_replaces_none(folder: Folder) -> None:
    folder.write("repo/m/1/model.onnx", "one")
    watcher = folder.watch(ModelSource(str(folder.path / "repo")))
    folder.write("repo/m/2/model.onnx", "two")
    watcher.changes()
    (change,) = watcher.changes()
    assert (change.candidate.endpoint, change.candidate.version, change.replaces) == ("m", "2", None)
    assert change.candidate.served
    folder.write("repo/n/1/model.onnx", "a new model")
    watcher.changes()
    assert told(watcher.changes()) == [("n", "1", None)]


def test_file_that_is_gone_for_a_moment_is_no_change(folder: Folder) -> None:
    path = folder.write("m.py", "one")
    watcher = folder.watch(ModelSource(str(path)))
    content, times = path.read_text(), path.stat()
    path.unlink()
    assert watcher.changes() == []
    assert watcher.changes() == []
    path.write_text(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert watcher.changes() == []


def test_compiled_code_that_loading_leaves_is_no_change(folder: Folder) -> None:
    folder.write("flow/MLmodel", "flavors: {}")
    code = folder.path / "flow"
    before = watching.fingerprint(code)
    folder.write("flow/code/__pycache__/helper.cpython-311.pyc", "bytes")
    assert watching.fingerprint(code) == before
    folder.write("flow/code/helper.py", "text")
    assert watching.fingerprint(code) != before


def test_another_process_goes_on_where_this_one_ended(folder: Folder) -> None:
    path = folder.write("m.py", "one")
    first = folder.watch(ModelSource(str(path)))
    folder.write("m.py", "two!")
    first.changes()
    assert told(first.changes()) == [("m", "2", "1")]
    settings = ServeSettings(models=(ModelSource(str(path)),), watch=True)
    second = Watcher(settings, first.watched())
    assert second.changes() == []
    folder.write("m.py", "three")
    second.changes()
    assert told(second.changes()) == [("m", "3", "2")]


def test_fingerprint_of_nothing() -> None:
    assert watching.fingerprint(Path("/no/such/thing")) == ()


def test_new_versions_of_one_deployment_are_not_those_of_another(folder: Folder) -> None:
    one, two = folder.write("a.py", "one"), folder.write("b.py", "one")
    watcher = folder.watch(
        ModelSource(str(one), name="m", deployment="champion"),
        ModelSource(str(two), name="m", deployment="challenger", default_version="2"),
    )
    seen = []
    for name in ("a.py", "b.py", "a.py"):
        folder.write(name, "more")
        watcher.changes()
        (change,) = watcher.changes()
        seen.append((change.candidate.deployment, change.candidate.version, change.replaces))
        watcher = Watcher(watcher._settings, watcher.watched())
    assert seen == [("champion", "3", "1"), ("challenger", "4", "2"), ("champion", "5", "3")]


def test_versions_that_are_no_numbers_count_behind_a_dot(folder: Folder) -> None:
    path = folder.write("a.py", "one")
    watcher = folder.watch(ModelSource(str(path), name="m", deployment="main", version="2024-05"))
    seen = []
    for text in ("two", "three"):
        folder.write("a.py", text)
        watcher.changes()
        seen += told(watcher.changes())
    assert seen == [("m", "2024-05.1", "2024-05"), ("m", "2024-05.2", "2024-05.1")]


def test_packages_of_an_environment_are_watched_too(folder: Folder) -> None:
    model, packages = folder.write("pricer.py", "one"), folder.write("r.txt", "numpy==1.26.4")
    settings = DeploymentSettings(requirements=str(packages))
    watcher = folder.watch(ModelSource(str(model), settings=settings))
    assert watcher.changes() == []
    folder.write("r.txt", "numpy==1.26.3")
    watcher.changes()
    assert told(watcher.changes()) == [("pricer", "2", "1")]
    folder.write("m/1/model.onnx", "one")
    watcher = folder.watch(ModelSource(str(folder.path / "m")))
    folder.write("m/1/requirements.txt", "numpy==1.26.3")
    watcher.changes()
    assert told(watcher.changes()) == [("m", "1", None)]
