"""Byte ranges: whatever a header holds, the answer is a range within the file, or a typed refusal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.ranges import Piece, read_content_range, read_range
from headrace.core import errors

HEADERS = st.one_of(
    st.text(max_size=40),
    st.from_regex(r"bytes[ =](\d{0,20}-\d{0,20}|\*)(/\d{0,20})?", fullmatch=True),
)


@pytest.mark.parametrize(
    ("text", "length", "piece"),
    [
        (None, "5", Piece(0, 5, 5)),
        (None, "0", Piece(0, 0, 0)),
        ("bytes 0-4/10", "5", Piece(0, 5, 10)),
        ("bytes 9-9/10", None, Piece(9, 10, 10)),
        ("bytes */10", None, Piece(None, 0, 10)),
        ("bytes */0", None, Piece(None, 0, 0)),
    ],
)
def test_pieces(text: str | None, length: str | None, piece: Piece) -> None:
    assert read_content_range(text, length) == piece


@given(HEADERS, st.one_of(st.none(), st.text(max_size=25)))
def test_any_content_range_is_a_piece_of_the_file_or_refused(text: str, length: str | None) -> None:
    for given_text in (text, None):
        try:
            piece = read_content_range(given_text, length)
        except errors.InvalidInput:
            continue
        assert 0 <= (piece.start or 0) <= piece.stop <= piece.size


@given(HEADERS, st.integers(0, 10**12))
def test_any_range_lies_within_the_file(text: str, size: int) -> None:
    try:
        found = read_range(text, size)
    except ValueError:
        return
    if found is not None:
        start, stop = found
        assert 0 <= start < stop <= size
