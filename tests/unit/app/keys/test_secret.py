"""The secret of the digests: made once, read by its owner only."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headrace.app.keys.secret import FILE, VARIABLE, make_secret, read_secret
from headrace.core import errors


def test_it_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    made = make_secret(tmp_path, {})
    assert len(bytes.fromhex(made.decode())) == 32
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert make_secret(tmp_path, {}) == read_secret(tmp_path, {}) == made
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_of_many_who_make_it_all_have_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: make_secret(tmp_path, {}), range(16)))) == 1


def test_the_environment_wins_and_leaves_no_file(tmp_path: Path) -> None:
    assert make_secret(tmp_path, {VARIABLE: "x" * 32}) == b"x" * 32
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_is_said_without_the_secret(tmp_path: Path) -> None:
    with pytest.raises(errors.BadSettings, match=rf"not in {tmp_path / FILE}: bring the file back"):
        read_secret(tmp_path, {})
    with pytest.raises(errors.BadSettings, match="HEADRACE_KEY_SECRET has 5 characters") as caught:
        read_secret(tmp_path, {VARIABLE: "short"})
    assert "short" not in caught.value.message
    make_secret(tmp_path, {})
    (tmp_path / FILE).chmod(0o640)
    with pytest.raises(errors.BadSettings, match=f"can be read by others: chmod 600 {tmp_path / FILE}"):
        read_secret(tmp_path, {})
