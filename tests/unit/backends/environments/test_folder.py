"""The folder of environments: locks between processes, leftovers, listing and removal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from headrace.backends.environments.folder import Environment, EnvironmentsFolder, environment_of
from headrace.core import errors
from headrace.core.environments import EnvironmentSpec

KEY = "a" * 64


@pytest.fixture
def folder(tmp_path: Path) -> EnvironmentsFolder:
    return EnvironmentsFolder(tmp_path / "environments")


def complete(folder: EnvironmentsFolder, key: str = KEY, at: float = 1.0) -> Environment:
    """An environment as a build leaves it."""
    lease = folder.own(key)
    assert lease is not None
    built = folder.begin(key)
    (built / "bin").mkdir()
    (built / "bin" / "python").symlink_to(sys.executable)
    environment = Environment(EnvironmentSpec(key, ("numpy",), ()), {"numpy": "2"}, "3.11", at, 0.5)
    folder.finish(built, environment)
    lease.release()
    return environment


def in_another_process(folder: EnvironmentsFolder, code: str) -> str:
    program = (
        "from headrace.backends.environments.folder import EnvironmentsFolder; from pathlib import Path\n"
        f"folder = EnvironmentsFolder(Path({str(folder.root)!r}))\n{code}"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout.strip()


def test_users_share_and_a_builder_is_alone(folder: EnvironmentsFolder) -> None:
    other = f"print(folder.use({KEY!r}) is not None, folder.own({KEY!r}) is not None, folder.in_use({'b' * 64!r}))"
    mine, owned = folder.use(KEY), folder.own(KEY)
    assert mine is not None
    assert owned is not None
    assert in_another_process(folder, other) == "True False False"
    assert folder.in_use(KEY)
    owned.release()
    owned.release()  # a second time does nothing
    assert folder.in_use(KEY)
    # The other process held its locks until it ended, and the kernel dropped them.
    assert in_another_process(folder, other) == "True True False"
    mine.release()
    assert not folder.in_use(KEY)


def test_only_what_was_finished_is_complete(folder: EnvironmentsFolder) -> None:
    built = folder.root / f".{KEY}.left"
    (built / "bin").mkdir(parents=True)
    folder.path(KEY).mkdir()
    assert not folder.complete(KEY)
    assert folder.listing() == []
    assert folder.leftovers() == {KEY}
    environment = complete(folder)
    assert folder.complete(KEY)
    assert folder.listing() == [environment]
    assert folder.leftovers() == set(), "the build removed what another had left"
    assert environment_of(str(folder.python(KEY))) == KEY


def test_an_environment_whose_python_has_gone_is_not_complete(folder: EnvironmentsFolder) -> None:
    complete(folder)
    folder.python(KEY).unlink()
    folder.python(KEY).symlink_to("/nowhere/python")
    assert not folder.complete(KEY)
    complete(folder)
    assert folder.complete(KEY)


def test_listing_is_by_age_and_names_what_is_damaged(folder: EnvironmentsFolder) -> None:
    complete(folder, "b" * 64, at=2.0)
    complete(folder, KEY, at=1.0)
    assert [environment.spec.key[0] for environment in folder.listing()] == ["a", "b"]
    (folder.path(KEY) / "environment.json").write_text("{")
    with pytest.raises(errors.StoreFailed, match=r"cannot be read.*remove its folder"):
        folder.listing()


def test_what_is_used_is_not_removed(folder: EnvironmentsFolder) -> None:
    complete(folder)
    (folder.root / f".{KEY}.left").mkdir()
    lease = folder.use(KEY)
    assert lease is not None
    assert not folder.remove(KEY)
    assert folder.complete(KEY)
    lease.release()
    assert folder.size(KEY) > 0
    assert folder.remove(KEY)
    assert not [path for path in folder.root.iterdir() if path.is_dir()]


def test_nothing_is_there_before_the_first_build(folder: EnvironmentsFolder) -> None:
    assert folder.listing() == []
    assert folder.leftovers() == set()


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = EnvironmentsFolder(tmp_path / "file" / "environments")
    with pytest.raises(errors.StoreFailed, match=r"environments.folder names another place"):
        folder.use(KEY)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
