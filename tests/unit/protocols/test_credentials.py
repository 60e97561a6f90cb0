"""Every form in which a key may come, and what hostile or careless clients send instead."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given as generated
from hypothesis import strategies as st

from headrace.core import errors, keys
from headrace.protocols import credentials
from headrace.protocols.credentials import SignedBy

ID, TEXT = keys.make_token(bytes(range(40)))
TOKEN = TEXT.encode()
OTHER = keys.make_token(bytes(40)).token.encode()
SIGV4 = (
    f"AWS4-HMAC-SHA256 Credential={ID}/20260101/us-east-1/sagemaker/aws4_request,"
    " SignedHeaders=host;x-amz-date, Signature=00ff"
).encode()


def basic(text: bytes) -> bytes:
    return b"Basic " + base64.b64encode(text)


def read(*, authorization: bytes | None = None, x: bytes | None = None, azure: bytes | None = None) -> object:
    headers = {b"authorization": authorization, b"x-api-key": x, b"api-key": azure}
    return credentials.read(credentials.given({name: value for name, value in headers.items() if value is not None}))


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": b"Bearer " + TOKEN},
        {"authorization": b"bearer  " + TOKEN + b" "},
        {"authorization": basic(TOKEN + b":")},
        {"authorization": basic(b":" + TOKEN)},
        {"authorization": basic(b"ada:" + TOKEN)},
        {"authorization": basic(TOKEN + b":x")},
        {"authorization": basic(TOKEN)},
        {"authorization": basic(TOKEN + b":" + TOKEN)},
        {"x": TOKEN},
        {"azure": b"\t" + TOKEN},
        {"authorization": b"Bearer not-ours", "x": TOKEN},
        {"authorization": basic(b"proxy:password"), "azure": TOKEN},
        {"authorization": b"Bearer " + TOKEN, "x": TOKEN, "azure": TOKEN},
        {"authorization": SIGV4, "x": TOKEN},
    ],
    ids=str,
)
def test_forms(headers: dict[str, bytes]) -> None:
    assert read(**headers) == TOKEN


def test_signatures_name_their_key() -> None:
    assert read(authorization=SIGV4) == SignedBy(ID)
    assert read(authorization=SIGV4.lower().replace(b"credential", b"Credential")) == SignedBy(ID)
    with pytest.raises(errors.Unauthorized, match="without Credential="):
        read(authorization=b"AWS4-HMAC-SHA256 Signature=00")


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, "an API key is needed: send it as Authorization: Bearer KEY"),
        ({"authorization": b""}, "what stands in authorization is no key"),
        ({"authorization": b"Bearer"}, "no key"),
        ({"authorization": TOKEN}, "no key"),
        ({"authorization": b"Digest " + TOKEN}, "no key"),
        ({"authorization": b"Basic !!!"}, "no key"),
        ({"authorization": b"Basic " + TOKEN}, "no key"),
        ({"authorization": b"Bearer \xff\xfe\x00"}, "no key"),
        ({"x": "schlüssel".encode()}, "what stands in x-api-key is no key"),
        ({"x": b"a", "azure": b"b"}, "x-api-key and api-key"),
        ({"x": b"x" * 100_000}, "x-api-key has 100000 bytes"),
        ({"authorization": b"Bearer " + TOKEN, "x": b"x" * 2049}, "x-api-key has 2049 bytes"),
        ({"authorization": b"Bearer " + TOKEN, "x": OTHER}, "two different keys"),
        ({"authorization": basic(TOKEN + b":" + OTHER)}, "two different keys"),
    ],
    ids=str,
)
def test_refusals(headers: dict[str, bytes], said: str) -> None:
    with pytest.raises(errors.Unauthorized, match=said) as caught:
        read(**headers)
    assert TEXT not in caught.value.message


def test_repeated_credentials_are_no_key_whichever_comes_last() -> None:
    for pairs in (
        [(b"authorization", b"Bearer " + TOKEN), (b"authorization", b"Bearer " + OTHER)],
        [(b"authorization", b"Bearer " + TOKEN), (b"authorization", b"Bearer " + TOKEN)],
        [(b"x-api-key", b"junk"), (b"x-api-key", TOKEN)],
    ):
        headers = dict(pairs)
        credentials.join_repeated(headers, pairs)
        with pytest.raises(errors.Unauthorized):
            credentials.read(credentials.given(headers))


def test_other_repeated_headers_are_left_alone() -> None:
    pairs = [(b"accept", b"a"), (b"accept", b"b"), (b"x-api-key", TOKEN)]
    headers = dict(pairs)
    credentials.join_repeated(headers, pairs)
    assert headers == {b"accept": b"b", b"x-api-key": TOKEN}


@generated(st.tuples(*[st.none() | st.binary(max_size=200)] * 3))
def test_any_bytes_are_read_or_refused(values: tuple[bytes | None, bytes | None, bytes | None]) -> None:
    try:
        found = credentials.read(values)
    except errors.Unauthorized:
        return
    assert isinstance(found, SignedBy) or keys.looks_like_token(found)
