"""Frames survive packing, any payload and any garbage."""

from __future__ import annotations

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from headrace.core.models import LoadedModel
from headrace.replica import messages
from headrace.replica.messages import BadFrame, CallFailure, ResultHead, RunHead, TensorHead
from tests.fakes import ROWS

names = st.text(max_size=20)
tensor_heads = st.builds(
    TensorHead,
    names,
    st.sampled_from(["FP32", "BYTES"]),
    st.lists(st.integers(0, 2**40), max_size=4).map(tuple),
    st.integers(0, 2**40),
)
parameters = st.dictionaries(
    names, st.one_of(names, st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.booleans())
)


@given(
    head=st.builds(
        RunHead,
        st.integers(0, 2**32 - 1),
        st.lists(st.integers(0, 1000), max_size=5),
        st.lists(tensor_heads, max_size=3),
        parameters,
        st.integers(0, 10_000),
        st.booleans(),
        st.integers(0, 100),
    ),
    payload=st.binary(max_size=100),
    flags=st.integers(0, 255),
    replica=st.integers(0, 65_535),
)
def test_frame_round_trip(head: RunHead, payload: bytes, flags: int, replica: int) -> None:
    packed = messages.frame(messages.RUN, head, len(payload), flags=flags, replica=replica)
    assert len(packed) % 16 == 0, "the payload is aligned"
    whole = packed + payload
    assert messages.frame_length(whole) == len(whole)
    frame = messages.parse(memoryview(whole))
    assert (frame.kind, frame.flags, frame.replica) == (messages.RUN, flags, replica)
    assert messages.decode_run(frame.head) == head
    assert bytes(frame.payload) == payload


@pytest.mark.parametrize(
    ("head", "decode"),
    [
        (messages.Hello(1, "data", 7, "token"), messages.decode_hello),
        (messages.Welcome(1, 42, "no"), messages.decode_welcome),
        (
            ResultHead(3, [TensorHead("y", "FP32", (2, 3), 24)], [CallFailure(1, "bug", "why")], 1, 2, 3, 4),
            messages.decode_result,
        ),
        (messages.ChunkHead(3, []), messages.decode_chunk),
        (messages.EndHead(3, "cancelled", "gone", 9), messages.decode_end),
        (messages.CancelHead(3), messages.decode_cancel),
        (messages.CreditHead(3, 8), messages.decode_credit),
        (messages.ReadyHead(LoadedModel("p", ROWS), [messages.WarmupTiming(1, 0.5)]), messages.decode_ready),
        (messages.LoadFailedHead("load_failed", "why", "trace"), messages.decode_load_failed),
    ],
)
def test_every_head_round_trips(head: msgspec.Struct, decode: object) -> None:
    frame = messages.parse(memoryview(messages.frame(1, head)))
    assert callable(decode)
    assert decode(frame.head) == head


@given(st.binary(min_size=4, max_size=64))
def test_garbage_is_a_bad_frame_or_a_frame_within_the_buffer(data: bytes) -> None:
    try:
        length = messages.frame_length(data)
    except BadFrame:
        return
    buffer = data.ljust(length, b"\0")[:length] if length < 1 << 20 else None
    if buffer is None:
        return
    try:
        frame = messages.parse(memoryview(buffer))
    except BadFrame:
        return
    assert len(frame.head) + len(frame.payload) <= len(buffer)


@pytest.mark.parametrize("length", [0, 7, (1 << 31) + 1, (1 << 32) - 1])
def test_lengths_out_of_range_are_refused(length: int) -> None:
    with pytest.raises(BadFrame, match="out of range"):
        messages.frame_length(length.to_bytes(4, "little"))


def test_head_larger_than_its_frame_is_refused() -> None:
    packed = bytearray(messages.frame(messages.PING, messages.Empty()))
    packed[8:12] = (1000).to_bytes(4, "little")
    with pytest.raises(BadFrame, match="head of 1000 bytes"):
        messages.parse(memoryview(packed))


def test_integers_beyond_64_bits_do_not_fit_and_say_so_at_once() -> None:
    with pytest.raises(OverflowError):
        messages.frame(messages.RUN, RunHead(1, [1], [], {"seed": 2**70}, 1, True))
