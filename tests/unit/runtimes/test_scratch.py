"""Folders of loaded models: gone at the end, also those of processes that were killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from headrace.runtimes import scratch

KILLED = """
import os, sys
from headrace.runtimes import scratch
with scratch.folder(sys.argv[1]) as made:
    (made / "weights").write_text("w")
    os.kill(os.getpid(), 9)
"""


def test_a_folder_lives_as_long_as_it_is_used(tmp_path: Path) -> None:
    with scratch.folder(str(tmp_path / "s")) as first, scratch.folder(str(tmp_path / "s")) as second:
        assert first != second
        assert first.is_dir()
        assert second.is_dir()
    assert not first.exists()
    assert not second.exists()
    with scratch.folder(None) as temporary:
        (temporary / "x").write_text("x")
    assert not temporary.exists()


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    with scratch.folder(str(tmp_path)) as mine:
        subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False, timeout=60)
        assert len(list(tmp_path.glob("model-*"))) == 2
        with scratch.folder(str(tmp_path)) as next_one:
            assert sorted(tmp_path.glob("model-*")) == sorted([mine, next_one])
