"""Cursors: what was written is read; whatever else comes is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.pages import Page, read_cursor, write_cursor
from headrace.core import errors

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=100)


@given(NAMES, st.integers(0, 2**62 - 1))
def test_a_cursor_comes_back(name: str, number: int) -> None:
    assert read_cursor("models", str, write_cursor("models", name)) == name
    assert read_cursor("versions", int, write_cursor("versions", number)) == number


@given(st.text(max_size=60))
def test_any_other_text_is_refused_or_a_name(text: str) -> None:
    try:
        found = read_cursor("models", str, text)
    except errors.InvalidInput:
        return
    assert isinstance(found, str)


@pytest.mark.parametrize(
    "cursor",
    [
        write_cursor("versions", 3),
        write_cursor("changes", "x"),
        write_cursor("changes", -1),
        write_cursor("changes", 2**63),
    ],
)
def test_a_cursor_of_another_list_is_refused(cursor: str) -> None:
    with pytest.raises(errors.InvalidInput, match="not one of this list"):
        read_cursor("changes", int, cursor)


def test_pages_end() -> None:
    found = [(number, str(number)) for number in (9, 8, 7)]
    page = Page(found, 2, "x")
    assert page.entries == ["9", "8"]
    assert read_cursor("x", int, page.next_cursor) == 8
    assert Page(found, 3, "x").next_cursor is None
    assert Page([], 3, "x").next_cursor is None
