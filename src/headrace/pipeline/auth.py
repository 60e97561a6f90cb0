"""Who makes a request: checked from memory against the keys that the controller pushes, before the body is read."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from headrace.core import errors
from headrace.core.keys import ANYBODY, KeyRing, KeySet, Principal, Signatures
from headrace.protocols import credentials
from headrace.protocols.credentials import Given

_REMEMBERED = 1024
"""Headers whose key has been checked; only good ones, so that strangers cannot push them out."""

Clock = Callable[[], float]
"""Seconds since 1970 (UTC)."""


class Guard:
    """One per process and port. Lets everybody in until it follows keys, or nobody when it is ``closed``."""

    def __init__(
        self, signatures: Signatures = Signatures.REFUSE, *, closed: bool = False, clock: Clock = time.time
    ) -> None:
        self._signatures = signatures
        self._clock = clock
        self._closed = closed
        self._ring: KeyRing | None = None
        self._known: dict[Given, Principal] = {}

    def follow(self, keys: KeySet) -> None:
        """Go by these keys from now on."""
        self._ring = KeyRing(keys) if keys.required else None
        self._closed = False
        self._known = {}

    @property
    def asks(self) -> bool:
        """Requests need a key."""
        return self._ring is not None

    def identify(self, headers: Mapping[bytes, bytes]) -> Principal:
        """Who it is, from headers as ASGI hands them on (names in lower case). Raises Unauthorized, or NotReady as
        long as the keys are not known."""
        if self._ring is None:
            if self._closed:
                raise errors.NotReady("the server is starting: its keys have not been read yet")
            return ANYBODY
        # Written out, and looked up before it is read: this is every request.
        get = headers.get
        given = (get(b"authorization"), get(b"x-api-key"), get(b"api-key"))
        principal = self._known.get(given)
        if principal is not None and (principal.expires is None or self._clock() < principal.expires):
            return principal
        return self._check(self._ring, given)

    def _check(self, ring: KeyRing, given: Given) -> Principal:
        credential = credentials.read(given)
        now = self._clock()
        if isinstance(credential, bytes):
            principal = ring.check(credential, now)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[given] = principal
            return principal
        if self._signatures is Signatures.ACCEPT_UNVERIFIED:
            # Not remembered: every signature is another header.
            return ring.claimed(credential.key_id, now)
        raise errors.Unauthorized(
            "signed requests (AWS Signature Version 4) are not accepted: send the key as Authorization: Bearer or"
            " x-api-key from an unsigned client, or let the server trust access key ids with sigv4: accept-unverified"
        )
