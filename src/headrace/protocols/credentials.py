"""Where clients put their key, as headers or gRPC metadata → the key. Knows no keys, only their form.

Accepted: ``Authorization: Bearer KEY``, ``Authorization: Basic`` with the key as user or as password, ``x-api-key``,
``api-key``. AWS clients that sign (Signature Version 4) name a key by its id. What does not look like a key is passed
over, so that a proxy's own credentials beside it do no harm; two different keys are refused: whichever counted,
somebody in front of this server may have looked at the other one.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, MutableMapping
from typing import NamedTuple

from headrace.core import errors, keys

HEADERS = (b"authorization", b"x-api-key", b"api-key")
LIMIT = 2048
"""Bytes of one credential. Keys have 59; the rest is for user names and for lists of signed headers."""

_FORMS = "send it as Authorization: Bearer KEY, x-api-key: KEY or api-key: KEY"
_SIGV4 = re.compile(rb"aws4-[a-z0-9\-]+", re.IGNORECASE)
_SIGV4_KEY_ID = re.compile(rb"\bCredential=([^/,\s]+)/")

Given = tuple[bytes | None, bytes | None, bytes | None]
"""The values of ``HEADERS``."""


class SignedBy(NamedTuple):
    """The request is signed; ``key_id`` is its access key id. Nothing is verified here."""

    key_id: str


def given(headers: Mapping[bytes, bytes]) -> Given:
    """What a request brings, unread."""
    get = headers.get
    return get(b"authorization"), get(b"x-api-key"), get(b"api-key")


def join_repeated(headers: MutableMapping[bytes, bytes], pairs: Iterable[tuple[bytes, bytes]]) -> None:
    """Give a credential header that came several times its one value, a list (RFC 9110, 5.2): no form of a key.

    A mapping made of the pairs has only the last of them, while a proxy may have looked at the first."""
    for name in HEADERS:
        values = [value for key, value in pairs if key == name]
        if len(values) > 1:
            headers[name] = b", ".join(values)


def read(values: Given) -> bytes | SignedBy:
    """The key. Raises Unauthorized that says what is missing; it never repeats what was sent."""
    found: set[bytes] = set()
    signed: SignedBy | None = None
    for name, value in zip(HEADERS, values, strict=True):
        if value is None:
            continue
        if len(value) > LIMIT:
            raise errors.Unauthorized(f"{name.decode()} has {len(value)} bytes; no key is that long")
        if name == b"authorization":
            candidates = _authorization(value)
            if isinstance(candidates, SignedBy):
                signed = candidates
                continue
        else:
            candidates = [value]
        found |= {text for text in map(bytes.strip, candidates) if keys.looks_like_token(text)}
    if len(found) > 1:
        raise errors.Unauthorized("the request brings two different keys; send one")
    if found:
        return found.pop()
    if signed is not None:
        return signed
    raise _nothing(values)


def _nothing(values: Given) -> errors.Unauthorized:
    there = [name.decode() for name, value in zip(HEADERS, values, strict=True) if value is not None]
    if not there:
        return errors.Unauthorized(
            f"an API key is needed: {_FORMS}; headrace's own commands take it from HEADRACE_API_KEY"
        )
    return errors.Unauthorized(f"what stands in {' and '.join(there)} is no key (hr_...): {_FORMS}")


def _authorization(value: bytes) -> list[bytes] | SignedBy:
    scheme, _, rest = value.strip().partition(b" ")
    match scheme.lower():
        case b"bearer":
            return [rest]
        case b"basic":
            return _basic(rest.strip())
    if _SIGV4.fullmatch(scheme):
        access_key = _SIGV4_KEY_ID.search(rest)
        if access_key is None:
            raise errors.Unauthorized("Authorization: a signature without Credential=ACCESS_KEY_ID/…")
        return SignedBy(access_key[1].decode("latin-1"))
    return []


def _basic(encoded: bytes) -> list[bytes]:
    try:
        decoded = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return []
    user, _, password = decoded.partition(b":")
    return [user, password]
