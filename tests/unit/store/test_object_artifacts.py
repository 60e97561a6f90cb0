"""Object stores, against a real S3-compatible server."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path

import pytest

from headrace.core import errors
from headrace.store import object_artifacts
from headrace.store.object_artifacts import ObjectArtifacts, download
from tests import s3

pytestmark = pytest.mark.xdist_group("s3")


def test_a_file_is_downloaded(s3_server: s3.Server, bucket: str, tmp_path: Path) -> None:
    s3_server.put(bucket, "models/fraud.onnx", b"weights")
    moved: list[int] = []
    path = download(f"s3://{bucket}/models/fraud.onnx", tmp_path, moved.append)
    assert path == tmp_path / "fraud.onnx"
    assert path.read_bytes() == b"weights"
    assert sum(moved) == 7


def test_a_folder_is_downloaded(s3_server: s3.Server, bucket: str, tmp_path: Path) -> None:
    for key in ("models/fraud/MLmodel", "models/fraud/data/model.xgb", "models/fraudulent/other"):
        s3_server.put(bucket, key, key.encode())
    path = download(f"s3://{bucket}/models/fraud/", tmp_path, lambda _: None)
    found = {str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file()}
    assert found == {"MLmodel": "models/fraud/MLmodel", "data/model.xgb": "models/fraud/data/model.xgb"}


def test_what_is_not_there_is_said(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidInput, match=rf"nothing at s3://{bucket}/none"):
        download(f"s3://{bucket}/none", tmp_path, lambda _: None)
    with pytest.raises(errors.BadSettings, match="names no object"):
        download(f"s3://{bucket}", tmp_path, lambda _: None)
    with pytest.raises(errors.StoreFailed, match=r"s3://no-such-bucket/x"):
        download("s3://no-such-bucket/x", tmp_path, lambda _: None)


def test_putting_an_old_blob_again_makes_it_young(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import obstore

    monkeypatch.setattr(object_artifacts, "_REFRESH_AFTER", timedelta(seconds=-10))
    source = tmp_path / "model.bin"
    source.write_bytes(b"weights")
    digest = f"sha256:{hashlib.sha256(b'weights').hexdigest()}"
    artifacts = ObjectArtifacts(f"s3://{bucket}")
    artifacts.put(source, digest, lambda _: None)
    copied: list[str] = []
    copy = obstore.copy
    monkeypatch.setattr(obstore, "copy", lambda store, a, b: (copied.append(b), copy(store, a, b)))
    artifacts.put(source, digest, lambda _: None)
    assert len(copied) == 2
    artifacts.check(digest, lambda _: None)
    keys = [meta["path"] for page in obstore.list(artifacts._store) for meta in page]
    assert keys == [copied[1]], "nothing is left of the way round"
