"""A worker's connection: frames cut anywhere, frames of any size, peers that stall, leave or talk garbage."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from headrace.replica import connection as connections
from headrace.replica import messages
from headrace.replica.connection import Connection
from headrace.replica.messages import BadFrame, CancelHead, Frame


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Connection]]:
    peer, mine = socket.socketpair()
    connection = Connection(mine)
    yield peer, connection
    peer.close()
    connection.close()


def frame(number: int, payload: bytes = b"") -> bytes:
    return messages.frame(messages.CANCEL, CancelHead(number), len(payload)) + payload


def told(frames: list[Frame]) -> list[tuple[int, bytes]]:
    return [(messages.decode_cancel(f.head).batch, bytes(f.payload)) for f in frames]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 100, 65_400, 65_536, 70_000, 300_000]), min_size=1, max_size=6),
    cuts=st.lists(st.integers(1, 200_000), max_size=12),
)
def test_any_frames_cut_anywhere(sizes: list[int], cuts: list[int]) -> None:
    peer, mine = socket.socketpair()
    connection = Connection(mine)
    expected = [(n, bytes([n % 251]) * size) for n, size in enumerate(sizes)]
    stream = b"".join(frame(n, payload) for n, payload in expected)
    points = sorted({cut for cut in cuts if cut < len(stream)})
    pieces = [stream[a:b] for a, b in zip([0, *points], [*points, len(stream)], strict=True)]
    found: list[Frame] = []
    peer.setblocking(False)
    for piece in pieces:
        view = memoryview(piece)
        while view:
            view = view[peer.send(view[:60_000]) :]
            found += connection.read_frames() or []
    assert told(found) == expected
    peer.close()
    assert connection.read_frames() is None
    connection.close()


def test_byte_by_byte(pair: tuple[socket.socket, Connection]) -> None:
    peer, connection = pair
    found: list[Frame] = []
    for byte in frame(1, b"abc") + frame(2):
        peer.send(bytes([byte]))
        found += connection.read_frames() or []
    assert told(found) == [(1, b"abc"), (2, b"")]


def test_huge_frame_is_read_into_one_buffer(pair: tuple[socket.socket, Connection]) -> None:
    peer, connection = pair
    payload = bytes(range(256)) * (32 << 12)
    sender = threading.Thread(target=peer.sendall, args=(frame(9, payload) + frame(10),))
    sender.start()
    found: list[Frame] = []
    while len(found) < 2:
        found += connection.read_frames() or []
    sender.join()
    assert told(found) == [(9, payload), (10, b"")]


@settings(max_examples=60, deadline=None)
@given(payload=st.integers(66_000, 700_000), head=st.integers(0, 70_000), cuts=st.lists(st.integers(1, 800_000)))
def test_large_frame_without_memory_is_told_by_its_head(payload: int, head: int, cuts: list[int]) -> None:
    peer, mine = socket.socketpair()
    connection = Connection(mine)
    hello = messages.Hello(1, "data", 2, "t" * head)
    large = messages.frame(messages.HELLO, hello, payload) + bytes(payload)
    stream = frame(1) + large + frame(2, b"abc")
    points = sorted({cut for cut in cuts if cut < len(stream)})
    found: list[Frame] = []
    peer.setblocking(False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "_new_buffer", no_memory)
        for a, b in zip([0, *points], [*points, len(stream)], strict=True):
            view = memoryview(stream)[a:b]
            while view:
                view = view[peer.send(view[:60_000]) :]
                found += connection.read_frames() or []
    assert told([found[0], found[2]]) == [(1, b""), (2, b"abc")]
    assert messages.decode_hello(found[1].head) == hello
    assert (found[1].unread, bytes(found[1].payload)) == (len(large), b"")
    peer.close()
    connection.close()


def test_head_longer_than_its_unread_frame_is_refused(
    pair: tuple[socket.socket, Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_new_buffer", no_memory)
    peer, connection = pair
    peer.sendall(messages.HEADER.pack(70_000, messages.RUN, 0, 0, 80_000) + bytes(69_992))
    with pytest.raises(BadFrame, match="head of 80000 bytes"):
        read_to_the_end(connection)


def read_to_the_end(connection: Connection) -> None:
    while connection.read_frames() is not None:
        pass


def no_memory(size: int) -> bytearray:
    raise MemoryError


def test_frames_before_the_end_are_not_lost(pair: tuple[socket.socket, Connection]) -> None:
    peer, connection = pair
    peer.sendall(frame(1) + frame(2) + b"\x10")
    peer.close()
    found: list[Frame] = []
    while (more := connection.read_frames()) is not None:
        found += more
    assert told(found) == [(1, b""), (2, b"")]
    assert connection.closed


def test_end_inside_a_large_frame(pair: tuple[socket.socket, Connection]) -> None:
    peer, connection = pair
    peer.sendall(frame(1, bytes(200_000))[:100_000])
    peer.close()
    while connection.read_frames() is not None:
        pass
    assert connection.closed


@pytest.mark.parametrize("garbage", [b"\xff" * 64, bytes(64), b"\x08\0\0\0" + b"\xff" * 60])
def test_garbage_is_refused(pair: tuple[socket.socket, Connection], garbage: bytes) -> None:
    peer, connection = pair
    peer.sendall(garbage)
    with pytest.raises(BadFrame):
        connection.read_frames()


def test_strangers_cannot_make_it_hold_memory() -> None:
    peer, mine = socket.socketpair()
    connection = Connection(mine, max_frame=4096)
    peer.sendall((1 << 30).to_bytes(4, "little"))
    with pytest.raises(BadFrame, match="at most 4096"):
        connection.read_frames()
    peer.close()
    connection.close()


def test_sends_whole_frames_from_several_threads(pair: tuple[socket.socket, Connection]) -> None:
    peer, connection = pair
    other = Connection(peer)
    payload = bytes(100_000)

    def send(start: int) -> None:
        for number in range(start, start + 20):
            head = messages.frame(messages.CANCEL, CancelHead(number), len(payload))
            assert connection.send([head, memoryview(payload), b""])

    threads = [threading.Thread(target=send, args=(start,)) for start in (0, 100, 200)]
    for thread in threads:
        thread.start()
    found: list[Frame] = []
    while len(found) < 60:
        found += other.read_frames() or []
    for thread in threads:
        thread.join()
    assert sorted(number for number, _ in told(found)) == [s + n for s in (0, 100, 200) for n in range(20)]
    assert all(body == payload for _, body in told(found))


def test_peer_that_does_not_read_loses_the_connection(
    pair: tuple[socket.socket, Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sides must notice: the reader of the connection, and the gateway, whose batches would wait for ever."""
    monkeypatch.setattr(connections, "_SEND_TIMEOUT_MS", 20)
    peer, connection = pair
    assert not connection.send([bytes(10 << 20)])
    assert not connection.send([b"more"])
    assert connection.read_frames() is None
    peer.settimeout(1.0)
    while peer.recv(1 << 20):
        pass


def test_peer_that_left(pair: tuple[socket.socket, Connection]) -> None:
    peer, connection = pair
    peer.close()
    assert not connection.send([frame(1)])
    assert connection.read_frames() is None
