"""Server-sent events in any pieces."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from headrace.client.sse import EventParser

BODY = b': keep-alive\n\ndata: {"a":1}\n\nevent: x\r\ndata: {"b":\r\ndata: 2}\r\n\r\ndata:\xe2\x80\xa8tail\n'
EVENTS = [b'{"a":1}', b'{"b":\n2}', "\u2028tail".encode()]


@given(st.lists(st.integers(0, len(BODY)), max_size=8))
def test_pieces_do_not_matter(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(BODY)]
    parser = EventParser()
    found = [e for start, end in itertools.pairwise(edges) for e in parser.feed(BODY[start:end])]
    assert found + list(parser.finish()) == EVENTS


def test_finish_without_a_rest_gives_nothing() -> None:
    parser = EventParser()
    assert list(parser.feed(b"data: 1\n\n")) == [b"1"]
    assert list(parser.finish()) == []
