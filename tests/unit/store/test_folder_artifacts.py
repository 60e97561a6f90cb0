"""Blobs in a folder: crashes, damage, a full disk."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace.core import errors
from headrace.store.artifacts import key_of
from headrace.store.folder_artifacts import FolderArtifacts

SIZE = 8 << 20

PUT = """
import os, resource, sys
from pathlib import Path
from headrace.core import errors
from headrace.store.folder_artifacts import FolderArtifacts
home, source, digest, what, limit = sys.argv[1:]
if what == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
seen = 0
def progress(count):
    global seen
    seen += count
    if what == "crash" and seen > int(limit):
        os.kill(os.getpid(), 9)
try:
    FolderArtifacts(Path(home)).put(Path(source), digest, progress)
except errors.StorageFull as error:
    print(error.message)
"""


@pytest.fixture
def source(tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "model.bin"
    path.write_bytes(os.urandom(SIZE))
    return path, f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


def put(home: Path, source: tuple[Path, str], what: str, limit: int) -> subprocess.CompletedProcess[str]:
    arguments = [str(home), str(source[0]), source[1], what, str(limit)]
    return subprocess.run([sys.executable, "-c", PUT, *arguments], capture_output=True, text=True, timeout=60)


def files(home: Path) -> list[Path]:
    return sorted(path for path in home.rglob("*") if path.is_file())


def test_an_upload_that_was_killed_is_continued(home: Path, source: tuple[Path, str]) -> None:
    assert put(home, source, "crash", SIZE // 2).returncode == -signal.SIGKILL
    [partial] = files(home)
    assert partial.parent.name == "partial"
    had = partial.stat().st_size
    assert 0 < had < SIZE
    inode = partial.stat().st_ino
    FolderArtifacts(home).put(*source, lambda _: None)
    [blob] = files(home)
    assert blob.stat().st_ino == inode, "the same file, completed"
    assert blob.read_bytes() == source[0].read_bytes()


def test_a_beginning_of_something_else_is_written_anew(home: Path, source: tuple[Path, str]) -> None:
    partial = home / "partial" / source[1][7:]
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"garbage" * 100)
    FolderArtifacts(home).put(*source, lambda _: None)
    FolderArtifacts(home).check(source[1], lambda _: None)


def test_a_full_disk_is_said_and_leaves_nothing(home: Path, source: tuple[Path, str]) -> None:
    done = put(home, source, "full", SIZE // 2)
    assert "make room and try again" in done.stdout, done.stderr
    assert files(home) == []


def test_damage_is_found_and_nothing_is_handed_out(home: Path, source: tuple[Path, str], tmp_path: Path) -> None:
    artifacts = FolderArtifacts(home)
    artifacts.put(*source, lambda _: None)
    blob = home / key_of(source[1])
    with blob.open("r+b") as file:
        file.seek(SIZE // 2)
        file.write(b"!")
    with pytest.raises(errors.Corrupted, match=r"damaged.*remove it and push the model again"):
        artifacts.get(source[1], tmp_path / "copy", lambda _: None)
    assert not (tmp_path / "copy").exists()
    with blob.open("r+b") as file:
        file.truncate(SIZE // 2)
    artifacts.put(*source, lambda _: None)
    artifacts.check(source[1], lambda _: None)


def test_putting_again_makes_a_blob_young(home: Path, source: tuple[Path, str]) -> None:
    artifacts = FolderArtifacts(home)
    artifacts.put(*source, lambda _: None)
    os.utime(home / key_of(source[1]), (1000, 1000))
    artifacts.put(*source, lambda _: None)
    assert artifacts.collect(set(), time.time() - 3600).blobs == 0


def test_old_interrupted_uploads_are_collected(home: Path) -> None:
    partial = home / "partial" / ("ab" * 32)
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"half")
    os.utime(partial, (1000, 1000))
    assert FolderArtifacts(home).collect({"sha256:" + "ab" * 32}, 2000.0).size == 4
    assert files(home) == []
