"""Request ids: what is kept, what is replaced, and which trace contexts count."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.telemetry.tracing import RequestIds

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{SPAN}-01".encode()


@pytest.mark.parametrize("given_id", [b"a", b"x" * 128, b"order 7/b", b"~!@#$%^&*()"])
def test_keeps_a_callers_id(given_id: bytes) -> None:
    assert RequestIds("p-").request_id(given_id, VALID) == given_id.decode()


@pytest.mark.parametrize(
    "given_id", [None, b"", b" ", b"x" * 129, b"a\nb", b"a\x00", b"\x7f", "é".encode(), b"\xff", b"a\tb"]
)
def test_replaces_an_id_that_is_not_fit_to_be_echoed(given_id: bytes | None) -> None:
    ids = RequestIds("p-")
    assert ids.request_id(given_id, None) == "p-000000000001"
    assert ids.request_id(given_id, b"not a traceparent") == "p-000000000002"
    assert ids.request_id(given_id, VALID) == TRACE


def test_ids_look_like_uuids_and_differ() -> None:
    ids = RequestIds()
    made = [ids.request_id(None) for _ in range(1000)]
    assert len(set(made)) == 1000
    assert all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", one) for one in made)
    assert RequestIds().request_id(None)[:23] != RequestIds().request_id(None)[:23]


def test_a_forked_child_makes_ids_of_its_own() -> None:
    ids = RequestIds()
    before = ids.request_id(None)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, ids.request_id(None).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read().decode()[:23] != before[:23]
    assert ids.request_id(None)[:23] == before[:23]


@given(st.binary(max_size=200), st.binary(max_size=80))
def test_never_raises_and_always_gives_a_loggable_id(header: bytes, traceparent: bytes) -> None:
    made = RequestIds("p-").request_id(header, traceparent)
    assert 0 < len(made) <= 128
    assert made.isascii()
    assert made.isprintable()


@pytest.mark.parametrize(
    ("header", "valid"),
    [
        (f"00-{TRACE}-{SPAN}-00", True),
        (f"01-{TRACE}-{SPAN}-01", True),
        (f"01-{TRACE}-{SPAN}-01-more", True),
        (f"01-{TRACE}-{SPAN}-01more", False),
        (f"00-{TRACE}-{SPAN}-01-more", False),
        (f"ff-{TRACE}-{SPAN}-01", False),
        (f"00-{'0' * 32}-{SPAN}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE.upper()}-{SPAN}-01", False),
        (f"00-{TRACE[:-1]}g-{SPAN}-01", False),
        (f"00-{TRACE}-{SPAN}-0", False),
        (f"00{TRACE}--{SPAN}-01", False),
        (f"0-0{TRACE}-{SPAN}-01", False),
        ("", False),
    ],
)
def test_validates_as_the_specification_asks(header: str, valid: bool) -> None:
    made = RequestIds("p-").request_id(None, header.encode())
    assert made == (TRACE if valid else "p-000000000001")
