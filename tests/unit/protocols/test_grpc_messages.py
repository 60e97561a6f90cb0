"""Messages that callers sent."""

from __future__ import annotations

import pytest

from headrace.core import errors
from headrace.protocols import grpc_messages
from headrace.protocols.proto import open_inference_pb2 as pb


def test_a_message_is_parsed() -> None:
    sent = pb.ModelReadyRequest(name="m", version="2")
    assert grpc_messages.parse(pb.ModelReadyRequest, sent.SerializeToString()) == sent


@pytest.mark.parametrize(("name", "called"), [("", "ModelReadyRequest"), ("request message", "request message")])
def test_malformed_bytes_are_the_callers_error(name: str, called: str) -> None:
    with pytest.raises(errors.InvalidInput, match=f"^the {called} is malformed: "):
        grpc_messages.parse(pb.ModelReadyRequest, b"\xff\xff\xff", name)
