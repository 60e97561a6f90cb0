"""Bounded decompression and the choice of a coding."""

from __future__ import annotations

import contextlib
import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core import errors
from headrace.protocols import compression

LIMIT = 10_000


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@given(data=st.binary(max_size=2000))
def test_what_is_compressed_comes_back(encoding: str, data: bytes) -> None:
    assert compression.decompress(encoding, compression.compress(encoding, data), LIMIT) == data


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_identity(encoding: str) -> None:
    assert compression.decompress(encoding, memoryview(b"abc"), 3) == b"abc"
    with pytest.raises(errors.PayloadTooLarge, match="limit of 2 bytes"):
        compression.decompress(encoding, b"abc", 2)


def test_spellings() -> None:
    assert compression.decompress("X-GZIP", gzip.compress(b"a"), LIMIT) == b"a"
    assert compression.decompress("deflate", zlib.compress(b"a"), LIMIT) == b"a"
    raw = zlib.compressobj(wbits=-15)
    assert compression.decompress("deflate", raw.compress(b"abc") + raw.flush(), LIMIT) == b"abc"


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, deflate", "nonsense"])
def test_other_codings_are_unsupported(encoding: str) -> None:
    with pytest.raises(errors.Unsupported, match="use gzip, deflate or none"):
        compression.decompress(encoding, b"", LIMIT)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_the_limit_is_exact(encoding: str) -> None:
    body = compression.compress(encoding, b"x" * LIMIT)
    assert len(compression.decompress(encoding, body, LIMIT)) == LIMIT
    with pytest.raises(errors.PayloadTooLarge, match="limit of 9999 bytes"):
        compression.decompress(encoding, body, LIMIT - 1)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_not_inflated(encoding: str) -> None:
    bomb = compression.compress(encoding, bytes(200 << 20))
    assert len(bomb) < 2 << 20
    with pytest.raises(errors.PayloadTooLarge):
        compression.decompress(encoding, bomb, LIMIT)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_every_truncation_is_refused(encoding: str) -> None:
    body = compression.compress(encoding, b"some text to compress")
    for size in range(len(body)):
        with pytest.raises(errors.InvalidInput, match=r"ends too early|not valid"):
            compression.decompress(encoding, body[:size], LIMIT)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_junk_after_the_end_is_refused(encoding: str) -> None:
    with pytest.raises(errors.InvalidInput, match="4 bytes follow"):
        compression.decompress(encoding, compression.compress(encoding, b"abc") + b"junk", LIMIT)


def test_a_wrong_checksum_is_refused() -> None:
    body = bytearray(gzip.compress(b"abc"))
    body[-6] ^= 1
    with pytest.raises(errors.InvalidInput, match="not valid gzip"):
        compression.decompress("gzip", bytes(body), LIMIT)


def test_members_are_joined_up_to_a_bound() -> None:
    member = gzip.compress(b"ab")
    assert compression.decompress("gzip", member * 16, LIMIT) == b"ab" * 16
    with pytest.raises(errors.InvalidInput, match="more than 16 members"):
        compression.decompress("gzip", member * 17, LIMIT)
    with pytest.raises(errors.PayloadTooLarge):
        compression.decompress("gzip", member * 3, 5)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@given(data=st.binary(max_size=200))
def test_garbage_raises_only_our_errors(encoding: str, data: bytes) -> None:
    with contextlib.suppress(errors.HeadraceError):
        compression.decompress(encoding, data, LIMIT)


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("", None),
        ("identity", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br", "gzip"),
        ("gzip;q=0.5, deflate", "deflate"),
        ("gzip;q=0, *;q=0.1", "deflate"),
        ("*", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=x", None),
        ("GZIP ; Q=1", "gzip"),
        ("br", None),
    ],
)
def test_the_coding_of_an_answer(accepted: str, chosen: str | None) -> None:
    assert compression.choose(accepted) == chosen


def test_an_unknown_compressor_is_a_bug() -> None:
    with pytest.raises(errors.Bug):
        compression.compress("br", b"")
