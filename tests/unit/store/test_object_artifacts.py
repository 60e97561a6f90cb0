"""Object stores, against real servers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from headrace.core import errors
from headrace.store import object_artifacts
from headrace.store.object_artifacts import ObjectArtifacts, download
from tests.object_servers import Bucket

pytestmark = pytest.mark.xdist_group("object-stores")


def test_a_file_is_downloaded(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("models/fraud.onnx", b"weights")
    moved: list[int] = []
    path = download(f"{bucket.url}/models/fraud.onnx", tmp_path, moved.append)
    assert path == tmp_path / "fraud.onnx"
    assert path.read_bytes() == b"weights"
    assert sum(moved) == 7


def test_a_folder_is_downloaded(bucket: Bucket, tmp_path: Path) -> None:
    for key in ("models/fraud/MLmodel", "models/fraud/data/model.xgb", "models/fraudulent/other"):
        bucket.put(key, key.encode())
    path = download(f"{bucket.url}/models/fraud/", tmp_path, lambda _: None)
    found = {str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file()}
    assert found == {"MLmodel": "models/fraud/MLmodel", "data/model.xgb": "models/fraud/data/model.xgb"}


def test_what_is_not_there_is_said(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidInput, match=rf"nothing at {bucket.url}/none"):
        download(f"{bucket.url}/none", tmp_path, lambda _: None)
    with pytest.raises(errors.BadSettings, match="names no object"):
        download(f"{bucket.url}", tmp_path, lambda _: None)
    with pytest.raises(
        errors.StoreFailed, match=rf"^{bucket.url}not/x: .*: (NoSuchBucket|ContainerNotFound): The spec"
    ):
        download(f"{bucket.url}not/x", tmp_path, lambda _: None)


def test_putting_an_old_blob_again_makes_it_young(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import obstore

    monkeypatch.setattr(object_artifacts, "_REFRESH_AFTER", timedelta(seconds=-10))
    source = tmp_path / "model.bin"
    source.write_bytes(b"weights")
    digest = f"sha256:{hashlib.sha256(b'weights').hexdigest()}"
    artifacts = ObjectArtifacts(f"{bucket.url}")
    artifacts.put(source, digest, lambda _: None)
    copied: list[str] = []
    copy = obstore.copy
    monkeypatch.setattr(obstore, "copy", lambda store, a, b: (copied.append(b), copy(store, a, b)))
    artifacts.put(source, digest, lambda _: None)
    assert len(copied) == 2
    artifacts.check(digest, lambda _: None)
    keys = [meta["path"] for page in obstore.list(artifacts._store) for meta in page]
    assert keys == [copied[1]], "nothing is left of the way round"


def test_of_several_writers_one_that_is_overtaken_has_stored_the_blob(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import obstore

    source = tmp_path / "model.bin"
    source.write_bytes(b"weights" * 3_000_000)
    digest = f"sha256:{hashlib.sha256(source.read_bytes()).hexdigest()}"
    artifacts = ObjectArtifacts(bucket.url)
    put = obstore.put

    def overtaken(store: Any, key: str, chunks: Iterator[bytes]) -> None:
        def with_another() -> Iterator[bytes]:
            yield from islice(chunks, 15)  # some of the parts
            monkeypatch.setattr(obstore, "put", put)
            with ThreadPoolExecutor(1) as other:
                other.submit(ObjectArtifacts(bucket.url).put, source, digest, lambda _: None).result()
            yield from chunks

        put(store, key, with_another())

    monkeypatch.setattr(obstore, "put", overtaken)
    sent: list[int] = []
    artifacts.put(source, digest, sent.append)
    assert sum(sent) == 21_000_000
    artifacts.check(digest, lambda _: None)
