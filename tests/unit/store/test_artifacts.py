"""What every home of blobs must do: a folder, and real servers of object stores."""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headrace.core import errors
from headrace.store.artifacts import Artifacts, Collected, key_of, open_artifacts

pytestmark = pytest.mark.xdist_group("object-stores")

BIG = 12 << 20
"""More than one part of a multipart upload."""


def ignore(_: int) -> None:
    return


def make_file(folder: Path, content: bytes, name: str = "model.bin") -> tuple[Path, str]:
    path = folder / name
    path.write_bytes(content)
    return path, f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.mark.parametrize("size", [0, 1, (1 << 20), BIG])
def test_content_comes_back(artifacts: Artifacts, tmp_path: Path, size: int) -> None:
    source, digest = make_file(tmp_path, os.urandom(size))
    sent: list[int] = []
    received: list[int] = []
    artifacts.put(source, digest, sent.append)
    artifacts.get(digest, tmp_path / "copy", received.append)
    artifacts.check(digest, ignore)
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    assert sum(sent) == sum(received) == size


def test_what_is_there_is_not_sent_again(artifacts: Artifacts, tmp_path: Path) -> None:
    source, digest = make_file(tmp_path, b"weights" * 1000)
    artifacts.put(source, digest, ignore)
    source.write_bytes(b"WEIGHTS" * 1000)  # of equal size: reading it would be noticed
    sent: list[int] = []
    artifacts.put(source, digest, sent.append)
    assert sent == [7000], "in one step, for the progress bar"
    artifacts.check(digest, ignore)


@pytest.mark.parametrize("size", [100, BIG])
def test_a_file_that_changed_is_refused_and_leaves_nothing(artifacts: Artifacts, tmp_path: Path, size: int) -> None:
    source, digest = make_file(tmp_path, b"a" * size)
    source.write_bytes(b"b" * size)
    with pytest.raises(errors.InvalidInput, match="changed while it was read"):
        artifacts.put(source, digest, ignore)
    with pytest.raises(errors.Corrupted, match="is missing"):
        artifacts.check(digest, ignore)
    assert artifacts.collect(set(), time.time() + 60) == Collected(0, 0)


def test_several_writers_of_one_blob(artifacts: Artifacts, tmp_path: Path) -> None:
    source, digest = make_file(tmp_path, os.urandom(3 << 20))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: artifacts.put(source, digest, ignore), range(8)))
    artifacts.check(digest, ignore)
    assert artifacts.collect(set(), time.time() + 60, dry_run=True).blobs == 1


def test_missing_blobs_are_named(artifacts: Artifacts, tmp_path: Path) -> None:
    digest = "sha256:" + "ab" * 32
    with pytest.raises(errors.Corrupted, match=r"sha256/ab/abab.* is missing; push the model again"):
        artifacts.get(digest, tmp_path / "copy", ignore)
    assert list(tmp_path.glob("*copy*")) == []


def test_collect_removes_what_is_old_and_unreferenced(artifacts: Artifacts, tmp_path: Path) -> None:
    kept, kept_digest = make_file(tmp_path, b"kept", "kept")
    gone, gone_digest = make_file(tmp_path, b"goner", "gone")
    for source, digest in ((kept, kept_digest), (gone, gone_digest)):
        artifacts.put(source, digest, ignore)
    assert artifacts.collect({kept_digest}, time.time() - 3600) == Collected(0, 0), "an upload under way is young"
    assert artifacts.collect({kept_digest}, time.time() + 60, dry_run=True) == Collected(1, 5)
    artifacts.check(gone_digest, ignore)
    assert artifacts.collect({kept_digest}, time.time() + 60) == Collected(1, 5)
    artifacts.check(kept_digest, ignore)
    with pytest.raises(errors.Corrupted):
        artifacts.check(gone_digest, ignore)


def test_a_text_that_is_no_digest_names_no_blob(artifacts: Artifacts) -> None:
    with pytest.raises(errors.InvalidInput, match="no digest"):
        artifacts.check("sha256:../../etc/passwd", ignore)


@pytest.mark.parametrize("location", ["ftp://host/path", "file:///tmp/x"])
def test_other_urls_are_refused(location: str) -> None:
    with pytest.raises(errors.BadSettings, match="use s3://"):
        open_artifacts(location)


def test_keys_spread_over_folders() -> None:
    assert key_of("sha256:" + "ab" * 32) == "sha256/ab/" + "ab" * 32


def test_size_and_the_rest_of_a_blob(artifacts: Artifacts, tmp_path: Path) -> None:
    source, digest = make_file(tmp_path, b"0123456789")
    assert artifacts.size(digest) is None
    assert not artifacts.present(digest, 10)
    artifacts.put(source, digest, ignore)
    assert artifacts.size(digest) == 10
    assert b"".join(artifacts.chunks(digest, 4)) == b"456789"
    assert artifacts.present(digest, 10)
    assert not artifacts.present(digest, 11)
