"""Length-prefixed messages: any chunking, compression, limits, and bytes that are no frames."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core import errors
from headrace.protocols import compression
from headrace.protocols.grpc_frames import FrameReader, frame, read_one

LIMIT = 1000


def test_the_prefix() -> None:
    assert frame(b"abc") == b"\x00\x00\x00\x00\x03abc"
    assert frame(b"abc", compressed=True) == b"\x01\x00\x00\x00\x03abc"
    assert frame(b"") == bytes(5)


@given(messages=st.lists(st.binary(max_size=50), max_size=5), sizes=st.lists(st.integers(1, 20), min_size=1))
def test_any_chunking_gives_the_same_messages(messages: list[bytes], sizes: list[int]) -> None:
    data = b"".join(map(frame, messages))
    reader = FrameReader(LIMIT)
    found: list[bytes] = []
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        found += reader.feed(data[at : at + size])
        at, turn = at + size, turn + 1
    reader.finish()
    assert found == messages


def test_many_messages_in_one_chunk_take_linear_time() -> None:
    began = time.perf_counter()
    assert len(FrameReader(LIMIT).feed(frame(b"x") * 100_000)) == 100_000
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_messages(encoding: str) -> None:
    reader = FrameReader(LIMIT, encoding)
    compressed = frame(compression.compress(encoding, b"a" * 500), compressed=True)
    assert reader.feed(compressed) == [b"a" * 500]
    assert reader.feed(compressed + frame(b"plain")) == [b"a" * 500, b"plain"]


def test_inflation_is_bounded() -> None:
    bomb = frame(compression.compress("gzip", bytes(1 << 20)), compressed=True)
    with pytest.raises(errors.PayloadTooLarge, match=r"larger than the limit of 10000 bytes \(--max-body\)"):
        FrameReader(10_000, "gzip").feed(bomb)


def test_a_prefix_over_the_limit_is_refused_before_its_body() -> None:
    assert FrameReader(LIMIT).feed(frame(bytes(LIMIT))) == [bytes(LIMIT)]
    for data in (frame(bytes(LIMIT + 1)), frame(bytes(LIMIT + 1))[:5], b"\x00\xff\xff\xff\xff"):
        with pytest.raises(errors.PayloadTooLarge, match="limit of 1000 bytes"):
            FrameReader(LIMIT).feed(data)


@pytest.mark.parametrize(
    ("data", "encoding", "words"),
    [
        (b"\x02\x00\x00\x00\x00", "", "flag 2"),
        (b"\x01\x00\x00\x00\x01a", "", "without a grpc-encoding"),
        (b"\x01\x00\x00\x00\x01a", "identity", "without a grpc-encoding"),
        (b"\x01\x00\x00\x00\x01a", "gzip", "gzip"),
        (b"\x01\x00\x00\x00\x00", "deflate", "ends too early"),
    ],
)
def test_broken_frames(data: bytes, encoding: str, words: str) -> None:
    with pytest.raises(errors.InvalidInput, match=words):
        FrameReader(LIMIT, encoding).feed(data)


def test_unknown_encodings() -> None:
    with pytest.raises(errors.Unsupported, match="use identity, gzip, deflate"):
        FrameReader(LIMIT, "snappy")


def test_a_cut_off_message() -> None:
    reader = FrameReader(LIMIT)
    assert reader.feed(frame(b"abc")[:-1]) == []
    with pytest.raises(errors.InvalidInput, match="after 7 of its bytes"):
        reader.finish()
    assert reader.feed(b"c") == [b"abc"]
    reader.finish()


def test_unary_bodies() -> None:
    assert read_one(frame(b"abc"), LIMIT) == b"abc"
    for body, got in ((b"", 0), (frame(b"a") * 2, 2)):
        with pytest.raises(errors.InvalidInput, match=f"expected one gRPC message, got {got}"):
            read_one(body, LIMIT)
    with pytest.raises(errors.InvalidInput, match="ends inside"):
        read_one(b"\x00\x00", LIMIT)


@given(data=st.binary(max_size=100), encoding=st.sampled_from(["", "gzip", "deflate"]))
def test_garbage_raises_only_our_errors(data: bytes, encoding: str) -> None:
    with contextlib.suppress(errors.HeadraceError):
        read_one(data, LIMIT, encoding)
