"""Request logs: everything that was appended is read, and nothing that was not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core import request_log
from headrace.core.request_log import Answered, SegmentHeader, Shares

HEAD = SegmentHeader("org/fraud", "x1", 3)

texts = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=128)
answers = st.builds(Answered, texts, texts, st.floats(0, 2e9), st.booleans(), st.booleans())


def log(*entries: bytes, size: int = 1 << 16) -> bytearray:
    memory = bytearray(size)
    head = request_log.header(HEAD)
    memory[: len(head)] = head
    at = len(head)
    for entry in entries:
        at = request_log.append(memoryview(memory), at, entry)
        assert at
    return memory


def entries(content: bytes) -> list[request_log.Entry]:
    found = request_log.read_header(content)
    assert found is not None
    assert found[0] == HEAD
    return [entry for entry, _ in request_log.read(content, found[1])]


def encoded(answer: Answered) -> bytes:
    return request_log.answered(answer.request_id, answer.arm.encode(), answer.at, answer.pinned, answer.fallback)


@given(st.lists(answers, max_size=20))
def test_what_is_written_is_read(written: list[Answered]) -> None:
    shares = {"champion": 0.25, "challenger": 0.75}
    content = bytes(log(request_log.shares(shares), *map(encoded, written)))
    assert entries(content) == [Shares(shares), *written]


def test_reading_goes_on_where_it_ended() -> None:
    answer = Answered("a", "champion", 1.0)
    content = log(encoded(answer))
    _, begin = request_log.read_header(content) or (None, 0)
    ((_, at),) = request_log.read(content, begin)
    assert not list(request_log.read(content, at))
    request_log.append(memoryview(content), at, encoded(answer))
    assert [entry for entry, _ in request_log.read(content, at)] == [answer]


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_torn_entry_is_not_read(byte: int, flip: int) -> None:
    """A writer that is killed in the middle leaves some bytes of it; damage is never taken for a request."""
    first, second = Answered("first", "champion", 1.0), Answered("second-" * 9, "challenger", 2.0)
    content = log(encoded(first), encoded(second))
    begin = content.index(encoded(second))
    content[begin + byte % len(encoded(second))] ^= flip
    assert entries(content) == [first]


def test_a_full_segment_takes_no_more() -> None:
    memory = bytearray(100)
    entry = encoded(Answered("x" * 60, "champion", 1.0))
    at = request_log.append(memoryview(memory), 0, entry)
    assert at == len(entry)
    assert request_log.append(memoryview(memory), at, entry) == 0
    assert not any(memory[at:])


def test_what_is_no_segment() -> None:
    assert request_log.read_header(bytes(100)) is None, "its writer has only made room yet"
    with pytest.raises(ValueError, match="no request log"):
        request_log.read_header(b"\x89PNG" + bytes(100))
