"""The status page: what a worker writes, others read, also after its death, and no torn or foreign file is believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.replica import status_page
from headrace.replica.status_page import SLOTS, Running, StatusPageReader, StatusPageWriter


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "w.status"


def test_shows_what_is_computed_now(path: Path) -> None:
    page = StatusPageWriter(path)
    assert status_page.read(path) == []
    page.begin(0, 100, 7, 1, 5)
    page.begin(3, 200, 2**32 - 1, 2**32 - 1)
    assert status_page.read(path) == [Running(100, 7, 1, 5), Running(200, 2**32 - 1, 2**32 - 1, 1)]
    page.end(0)
    assert status_page.read(path) == [Running(200, 2**32 - 1, 2**32 - 1, 1)]
    page.close()
    assert status_page.read(path) == [Running(200, 2**32 - 1, 2**32 - 1, 1)], "it outlives its writer"


def test_counts_completed_batches(path: Path) -> None:
    page = StatusPageWriter(path)
    assert status_page.completed(path) == 0
    page.completed()
    page.completed()
    assert status_page.completed(path) == 2
    page.close()


def test_slots_beyond_the_page_are_not_shown_and_harm_nothing(path: Path) -> None:
    page = StatusPageWriter(path)
    page.begin(SLOTS - 1, 1, 1, 1)
    page.begin(SLOTS, 2, 2, 2)
    page.end(SLOTS)
    assert status_page.read(path) == [Running(1, 1, 1, 1)]
    page.close()


def test_there_is_room_for_hundreds_of_calls_side_by_side() -> None:
    assert SLOTS - 64 >= 512


def test_reader_looks_at_the_main_thread(path: Path) -> None:
    page = StatusPageWriter(path)
    reader = StatusPageReader(str(path))
    assert reader.computing() is None
    page.begin(0, 1_500_000_000, 7, 1, 32)
    assert reader.computing() == (1.5, 32)
    page.end(0)
    assert reader.computing() is None
    reader.close()
    page.close()


@pytest.mark.parametrize("content", [b"", b"short", bytes(status_page.SIZE), b"\xff" * status_page.SIZE])
def test_what_is_no_page_is_not_believed(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert status_page.read(path) is None
    assert status_page.completed(path) == 0


def test_missing_page(path: Path) -> None:
    assert status_page.read(path) is None
    assert status_page.completed(path) == 0
