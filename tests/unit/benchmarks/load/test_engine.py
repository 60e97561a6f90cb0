"""The generator against small servers on loopback: what it makes of answers, silence and closed connections."""

import contextlib
import socket
import struct
import threading

import msgspec
import pytest

from benchmarks.load.engine import Generator
from benchmarks.load.plan import Arrivals, Check, LoadPlan, Outcome, RequestKind

BODY = msgspec.json.encode({"outputs": [{"name": "y", "shape": [1], "data": [1.0]}]})
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
REQUEST = b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx"
COUNT = 40


@contextlib.contextmanager
def server(behave):
    """``behave(connection, index)`` handles one accepted connection in a thread of its own."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        threads = []

        def accept():
            for index in range(10_000):
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                thread = threading.Thread(target=behave, args=(connection, index), daemon=True)
                thread.start()
                threads.append(thread)

        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    acceptor.join(5)
    for thread in threads:
        thread.join(5)


def load(port, connections=1, **limits):
    kind = RequestKind(name="a", requests=[REQUEST], expected=[{"y": [1.0]}], check=limits.pop("check", Check.JSON))
    plan = LoadPlan(
        port=port, kinds=[kind], arrivals=Arrivals(400, COUNT / 400, "constant"), connections=connections, **limits
    )
    return Generator(plan).run()


def answer_always(connection, index):
    with connection:
        while connection.recv(65536):
            connection.sendall(ANSWER)


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_every_request_is_sent_answered_and_checked():
    with server(answer_always) as port:
        result = load(port, connections=4)
    assert result.offered == COUNT
    assert result.kinds["a"].outcomes == {"ok": COUNT}
    assert result.checked == COUNT
    assert result.generator_lag.count == COUNT


def test_a_server_that_stalls_does_not_slow_the_schedule_and_the_wait_counts():
    """The mark of an open loop: one connection, the first answer late; the others waited and say so."""
    release = threading.Event()

    def stall_first(connection, index):
        with connection:
            first = True
            while connection.recv(65536):
                if first:
                    release.wait(0.3)
                    first = False
                connection.sendall(ANSWER)

    with server(stall_first) as port:
        result = load(port, max_connections=1)
    latency = result.kinds["a"].latency["ok"]
    assert latency.count == COUNT
    assert latency.p50 > 0.15  # all were due within 0.1 s, and none could leave before 0.3 s
    assert result.generator_lag.p50 > 0.15


def test_connection_close_is_obeyed():
    def answer_once(connection, index):
        with connection:
            if connection.recv(65536):
                connection.sendall(ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))

    with server(answer_once) as port:
        result = load(port)
    assert result.kinds["a"].outcomes == {"ok": COUNT}
    assert result.connections_opened == COUNT


def test_a_request_that_was_read_and_not_answered_is_lost():
    def read_and_close(connection, index):
        with connection:
            connection.recv(65536)

    with server(read_and_close) as port:
        result = load(port)
    assert result.kinds["a"].outcomes == {Outcome.UNANSWERED: COUNT}
    assert result.resent == 0


def test_a_reset_that_follows_the_end_of_the_connection_still_tells_that_nothing_was_read():
    """What a server does that shuts its side of an idle connection down first and closes the socket later."""
    may_close = threading.Event()

    def end_then_reset_first(connection, index):
        if index:
            answer_always(connection, index)
            return
        connection.recv(1, socket.MSG_PEEK)
        connection.shutdown(socket.SHUT_WR)
        may_close.wait(0.1)
        connection.close()  # with the request unread: the kernel resets

    with server(end_then_reset_first) as port:
        result = load(port)
    assert result.kinds["a"].outcomes == {"ok": COUNT}
    assert result.resent == 1


def test_half_an_answer_is_cut():
    def half(connection, index):
        with connection:
            if connection.recv(65536):
                connection.sendall(ANSWER[:-5])

    with server(half) as port:
        assert load(port).kinds["a"].outcomes == {Outcome.CUT: COUNT}


def reset_first_unread(connection, index):
    """Closes with the request unread in its socket, which resets; the later connections are fine."""
    if index:
        answer_always(connection, index)
        return
    connection.recv(1, socket.MSG_PEEK)
    reset(connection)


def test_a_request_that_was_not_read_is_sent_again():
    with server(reset_first_unread) as port:
        result = load(port)
    assert result.kinds["a"].outcomes == {"ok": COUNT}
    assert result.resent == 1


def test_a_request_that_was_not_read_is_told_when_it_is_not_sent_again():
    with server(reset_first_unread) as port:
        result = load(port, resend_unread=False)
    assert result.kinds["a"].outcomes == {"ok": COUNT - 1, Outcome.UNREAD: 1}


def test_silence_is_a_timeout():
    ended = threading.Event()

    def silent(connection, index):
        with connection:
            connection.recv(65536)
            ended.wait(5)

    with server(silent) as port:
        result = load(port, timeout_s=0.3)
        ended.set()
    assert result.kinds["a"].outcomes == {Outcome.TIMEOUT: COUNT}


def test_wrong_values_and_garbage_are_told_apart():
    def lie(connection, index):
        with connection:
            while connection.recv(65536):
                connection.sendall(ANSWER.replace(b"1.0", b"7.0"))

    def babble(connection, index):
        with connection:
            if connection.recv(65536):
                connection.sendall(b"hello there, this is not HTTP")

    with server(lie) as port:
        assert load(port).kinds["a"].outcomes == {Outcome.WRONG: COUNT}
    with server(babble) as port:
        assert load(port).kinds["a"].outcomes == {Outcome.GARBLED: COUNT}


def test_large_requests_are_sent_whole_to_a_slow_reader():
    body = b"x" * (8 << 20)
    request = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    def read_all(connection, index):
        with connection:
            got = 0
            while data := connection.recv(1 << 20):
                got += len(data)
                while got >= len(request):
                    got -= len(request)
                    connection.sendall(ANSWER)

    kind = RequestKind(name="a", requests=[request], expected=[{"y": [1.0]}])
    with server(read_all) as port:
        result = Generator(LoadPlan(port=port, kinds=[kind], arrivals=Arrivals(50, 0.2, "constant"))).run()
    assert result.kinds["a"].outcomes == {"ok": 10}


def test_nobody_listens_from_the_start():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionError, match=str(port)):
        load(port)


def test_nobody_listens_any_more():
    """The first connection answers once, then the listener is gone: later requests are refused, not lost."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_once():
            connection, _ = listener.accept()
            listener.close()
            with connection:
                connection.recv(65536)
                connection.sendall(ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))

        thread = threading.Thread(target=answer_once)
        thread.start()
        result = load(listener.getsockname()[1])
        thread.join(5)
    assert result.kinds["a"].outcomes == {"ok": 1, Outcome.REFUSED: COUNT - 1}
