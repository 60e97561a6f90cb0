"""Status codes, trailers, message encoding and timeouts of gRPC."""

from __future__ import annotations

from urllib.parse import unquote

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core import errors
from headrace.protocols import grpc_status
from headrace.protocols.grpc_status import Code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidInput, Code.INVALID_ARGUMENT),
        (errors.BadSettings, Code.INVALID_ARGUMENT),
        (errors.CallerError, Code.INVALID_ARGUMENT),
        (errors.UnknownModel, Code.NOT_FOUND),
        (errors.MethodNotAllowed, Code.UNIMPLEMENTED),
        (errors.Unsupported, Code.UNIMPLEMENTED),
        (errors.PayloadTooLarge, Code.RESOURCE_EXHAUSTED),
        (errors.Unauthorized, Code.UNAUTHENTICATED),
        (errors.Forbidden, Code.PERMISSION_DENIED),
        (errors.UnknownKey, Code.NOT_FOUND),
        (errors.UntrustedArtifact, Code.PERMISSION_DENIED),
        (errors.Cancelled, Code.CANCELLED),
        (errors.NotReady, Code.UNAVAILABLE),
        (errors.Overloaded, Code.UNAVAILABLE),
        (errors.QuotaExceeded, Code.RESOURCE_EXHAUSTED),
        (errors.DeadlineExceeded, Code.DEADLINE_EXCEEDED),
        (errors.ModelRaised, Code.INTERNAL),
        (errors.BadModelOutput, Code.INTERNAL),
        (errors.LoadFailed, Code.INTERNAL),
        (errors.ReplicaDied, Code.INTERNAL),
        (errors.PoisonRequest, Code.INTERNAL),
        (errors.Bug, Code.INTERNAL),
        (errors.HeadraceError, Code.UNKNOWN),
    ],
)
def test_codes(error: type[errors.HeadraceError], code: Code) -> None:
    trailers = dict(grpc_status.error_trailers(error("why not")))
    assert trailers[b"grpc-status"] == str(int(code)).encode()
    assert trailers[b"grpc-message"] == b"why not"


def test_codes_are_those_of_grpc() -> None:
    assert {code.name: int(code) for code in Code} == {code.name: code.value[0] for code in grpc.StatusCode}


def test_an_overload_says_when_to_retry() -> None:
    trailers = dict(grpc_status.error_trailers(errors.Overloaded("full", retry_after=1.5)))
    assert trailers[b"grpc-retry-pushback-ms"] == b"1500"
    assert b"grpc-retry-pushback-ms" not in dict(grpc_status.error_trailers(errors.NotReady()))


@pytest.mark.parametrize(
    ("message", "encoded"),
    [("plain text!", b"plain text!"), ("50%", b"50%25"), ("é\n", b"%C3%A9%0A"), ("\ud800", b"%3F"), ("\x7f", b"%7F")],
)
def test_messages_are_percent_encoded(message: str, encoded: bytes) -> None:
    assert grpc_status.encode_message(message) == encoded


@given(st.text(max_size=200))
def test_encoded_messages_are_printable_and_come_back(message: str) -> None:
    encoded = grpc_status.encode_message(message)
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    assert unquote(encoded.decode()) == message.encode("utf-8", "replace").decode()


def test_long_messages_are_cut() -> None:
    encoded = grpc_status.encode_message("é" * 5000)
    assert len(encoded) < 4200
    assert encoded.endswith(b"%C3%A9...")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"2H", 7200), (b"3M", 180), (b"10S", 10), (b"100m", 0.1), (b"5u", 5e-6), (b"7n", 7e-9), (b"0S", 0),
     (b"99999999H", 99999999 * 3600)],
)  # fmt: skip
def test_timeouts(value: bytes, seconds: float) -> None:
    assert grpc_status.parse_timeout(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value", [b"", b"1", b"S", b"1s", b"-1S", b"1.5S", b"123456789S", b"1 S", b" 1S", b"1S\n", b"\xff"]
)
def test_refused_timeouts(value: bytes) -> None:
    with pytest.raises(errors.InvalidInput, match="grpc-timeout"):
        grpc_status.parse_timeout(value)
