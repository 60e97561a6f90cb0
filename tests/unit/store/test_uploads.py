"""Files that arrive in pieces."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections import namedtuple
from pathlib import Path

import pytest

from headrace.core import errors
from headrace.store.artifacts import Artifacts, Collected, open_artifacts
from headrace.store.uploads import Uploads

CONTENT = os.urandom(100_000)
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
SIZE = len(CONTENT)


@pytest.fixture
def home(tmp_path: Path) -> Artifacts:
    return open_artifacts(str(tmp_path / "artifacts"))


@pytest.fixture
def uploads(tmp_path: Path, home: Artifacts) -> Uploads:
    return Uploads(tmp_path / "uploads", home)


def send(uploads: Uploads, start: int, piece: bytes, *, finish: bool = False) -> None:
    with uploads.receiving(DIGEST, SIZE, start) as upload:
        upload.append(piece)
        if finish:
            upload.finish()


def test_pieces_become_a_blob(uploads: Uploads, home: Artifacts, tmp_path: Path) -> None:
    assert uploads.received(DIGEST, SIZE) == 0
    send(uploads, 0, CONTENT[:40_000])
    assert uploads.received(DIGEST, SIZE) == 40_000
    assert home.size(DIGEST) is None
    send(uploads, 40_000, CONTENT[40_000:], finish=True)
    assert home.size(DIGEST) == SIZE
    assert b"".join(home.chunks(DIGEST)) == CONTENT
    assert list((tmp_path / "uploads").iterdir()) == []


def test_an_upload_goes_on_where_it_stopped_and_nowhere_else(uploads: Uploads) -> None:
    send(uploads, 0, CONTENT[:10])
    with pytest.raises(errors.WrongOffset, match="begins at byte 10, not at 20"):
        send(uploads, 20, b"x")
    send(uploads, 0, CONTENT[:7])
    assert uploads.received(DIGEST, SIZE) == 7, "a new beginning forgets the old one"


def test_wrong_bytes_leave_nothing(uploads: Uploads, home: Artifacts, tmp_path: Path) -> None:
    with pytest.raises(errors.WrongDigest, match="do not have the digest"):
        send(uploads, 0, b"?" * SIZE, finish=True)
    assert home.size(DIGEST) is None
    assert list((tmp_path / "uploads").iterdir()) == []
    assert home.collect(set(), time.time() + 60) == Collected(0, 0)


def test_more_than_announced_is_refused(uploads: Uploads) -> None:
    with pytest.raises(errors.InvalidInput, match="more than the 100000 bytes"):
        send(uploads, 0, CONTENT + b"x")


def test_one_writer_at_a_time(uploads: Uploads) -> None:
    with uploads.receiving(DIGEST, SIZE, 0), pytest.raises(errors.StateInUse, match="being uploaded by another"):
        send(uploads, 0, b"x")


def test_what_would_not_fit_is_refused_at_once(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 1000))
    with pytest.raises(errors.StorageFull, match="100000 more bytes would not fit"):
        send(uploads, 0, CONTENT)


def test_old_uploads_are_collected(uploads: Uploads) -> None:
    send(uploads, 0, CONTENT[:10])
    assert uploads.collect(time.time() - 3600) == Collected(0, 0)
    assert uploads.collect(time.time() + 60, dry_run=True) == Collected(1, 10)
    assert uploads.collect(time.time() + 60) == Collected(1, 10)
    assert uploads.received(DIGEST, SIZE) == 0


@pytest.mark.parametrize("digest", ["sha256:../../x", "../x", "sha256:AB" + "0" * 62, "md5:00"])
def test_hostile_digests_name_no_file(uploads: Uploads, digest: str) -> None:
    with pytest.raises(errors.InvalidInput, match="no digest"):
        uploads.received(digest, 1)
