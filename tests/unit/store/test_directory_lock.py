"""One owner per state directory, in real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.core import errors
from headrace.store.directory_lock import last_owner, owning

HOLD = """
import sys
from pathlib import Path
from headrace.store.directory_lock import owning
with owning(Path(sys.argv[1]), "headrace serve"):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(directory: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_owner_is_named_and_a_killed_one_leaves_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    process = hold(directory)
    with process:
        with (
            pytest.raises(errors.StateInUse, match=rf"process {process.pid} \(headrace serve\)"),
            owning(directory, "test"),
        ):
            pass
        process.kill()
    with owning(directory, "test"):
        assert (directory / "owner.lock").read_text() == f"{os.getpid()} test\n"


def test_a_second_owner_in_the_same_process_is_refused(tmp_path: Path) -> None:
    with owning(tmp_path, "a long name of the first"):
        with pytest.raises(errors.StateInUse, match="the first"), owning(tmp_path, "second"):
            pass
        assert "the first" in (tmp_path / "owner.lock").read_text()
    with owning(tmp_path, "second"):
        assert (tmp_path / "owner.lock").read_text() == f"{os.getpid()} second\n"


def test_the_last_owner_is_known_whether_it_lives_or_not(tmp_path: Path) -> None:
    assert last_owner(tmp_path) is None
    with owning(tmp_path, "headrace models gc"):
        assert last_owner(tmp_path) == (os.getpid(), "headrace models gc")
    assert last_owner(tmp_path) == (os.getpid(), "headrace models gc")
    (tmp_path / "owner.lock").write_text("")
    assert last_owner(tmp_path) is None, "somebody is just taking it"
