import pytest

from benchmarks.load.http1 import NotHttp, ResponseReader

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n"


@pytest.mark.parametrize(("raw", "body"), [(PLAIN, b"hello"), (CHUNKED, b"hello world")])
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_response_in_pieces_of_any_size(raw, body, size):
    reader = ResponseReader()
    pieces = [raw[i : i + size] for i in range(0, len(raw), size)]
    assert [reader.feed(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert (reader.status, reader.body, reader.close) == (200, body, False)


def test_the_next_response_on_the_same_connection():
    reader = ResponseReader()
    assert reader.feed(CHUNKED)
    reader.reset()
    assert not reader.started
    assert reader.feed(b"HTTP/1.1 503 Busy\r\nConnection: close\r\ncontent-length: 0\r\n\r\n")
    assert (reader.status, reader.body, reader.close) == (503, b"", True)


def test_started_tells_a_cut_answer_from_none():
    reader = ResponseReader()
    assert not reader.started
    reader.feed(b"HTTP/1.1 2")
    assert reader.started


def test_a_status_without_a_body():
    assert ResponseReader().feed(b"HTTP/1.1 204 No Content\r\n\r\n")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "starts with"),
        (b"HTTP/1.1 abc Bad\r\n\r\n", "starts with"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "neither"),
        (PLAIN + b"more", "4 bytes after"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "chunk size"),
    ],
)
def test_what_is_not_a_response_is_said_to_be_none(raw, reason):
    with pytest.raises(NotHttp, match=reason):
        ResponseReader().feed(raw)
