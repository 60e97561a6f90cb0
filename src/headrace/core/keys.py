"""API keys: what they are, and whom they let in to what. Pure: time and randomness come in from outside.

A key is ``hr_<id>_<secret>``: the id finds its record, 256 random bits prove it. Only an HMAC of the whole key is kept
(``KeyRecord.digest``), under a secret that is kept apart from the records: who steals the one without the other
has nothing to try candidates on.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from enum import StrEnum
from typing import NamedTuple

import msgspec

from headrace.core import errors, names

_ID = re.compile(r"[a-z2-7]{12}\Z")
_TOKEN = re.compile(rb"hr_([a-z2-7]{12})_[A-Za-z0-9_\-]{43}")
_STEM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-/]*\Z")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}\Z")
_ID_BYTES = 8
_SECRET_BYTES = 32
RANDOM_BYTES = _ID_BYTES + _SECRET_BYTES
"""Random bytes that one key takes."""

_GRANTS_KEPT = 256
"""A pattern fits endless names, most of which are none of an endpoint."""

_NOBODYS_DIGEST = bytes(hashlib.sha256().digest_size)


class Scope(StrEnum):
    """What a key may do; ``docs/keys.md`` lists what needs which."""

    PREDICT = "predict"
    """Inference and metadata of the endpoints it names."""
    METRICS = "metrics"
    """Reading ``/metrics``."""
    MANAGE = "manage"
    """The management port, and metadata of every endpoint."""
    ADMIN = "admin"
    """Everything."""


_IMPLIED: dict[Scope, frozenset[Scope]] = {
    Scope.PREDICT: frozenset({Scope.PREDICT}),
    Scope.METRICS: frozenset({Scope.METRICS}),
    Scope.MANAGE: frozenset({Scope.MANAGE, Scope.METRICS}),
    Scope.ADMIN: frozenset(Scope),
}


class Signatures(StrEnum):
    """What a gateway does with requests that are signed as AWS does it (Signature Version 4)."""

    REFUSE = "refuse"
    ACCEPT_UNVERIFIED = "accept-unverified"
    """The access key id is taken for the id of a key, and nothing is proven."""


class KeyState(StrEnum):
    LIVE = "live"
    EXPIRED = "expired"
    REVOKED = "revoked"


class KeyRecord(msgspec.Struct, frozen=True):
    """A key as it is kept. Times are seconds since 1970 (UTC)."""

    id: str
    name: str
    """Of whom it is for. Rotation keeps the name: there are two live keys of one name then."""
    scopes: tuple[Scope, ...]
    endpoints: tuple[str, ...]
    """Patterns of the endpoints that ``predict`` is for: names, or beginnings of names with ``*`` after them."""
    digest: bytes
    """HMAC-SHA256 of the key."""
    created: float
    who: str
    """Who made it."""
    expires: float | None = None
    revoked: float | None = None

    def state(self, now: float) -> KeyState:
        if self.revoked is not None:
            return KeyState.REVOKED
        return KeyState.EXPIRED if self.expires is not None and self.expires <= now else KeyState.LIVE


class KeySet(msgspec.Struct, frozen=True, tag=True):
    """Everything that is needed to check keys: controller → gateways. ``required`` False: everybody may do all."""

    version: int
    """Grows with every change in the state."""
    required: bool
    secret: bytes
    keys: tuple[KeyRecord, ...]

    def __repr__(self) -> str:
        # The secret must not end up in a log.
        return f"KeySet(version={self.version}, required={self.required}, {len(self.keys)} keys)"


NO_KEYS = KeySet(0, False, b"", ())


class Principal:
    """Who makes a request. ``scopes`` are all that it has, implied ones too."""

    __slots__ = ("_everywhere", "_granted", "_patterns", "expires", "key", "name", "scopes")

    def __init__(
        self, key: str, name: str, scopes: frozenset[Scope], patterns: tuple[str, ...], expires: float | None
    ) -> None:
        self.key = key
        self.name = name
        self.scopes = scopes
        self.expires = expires
        self._patterns = patterns
        self._granted: set[str] = set()
        """Endpoints that the patterns have been found to cover: looked up quicker than compared."""
        self._everywhere = Scope.ADMIN in scopes or (Scope.PREDICT in scopes and "*" in patterns)

    def check_predict(self, endpoint: str) -> None:
        """Raises Forbidden."""
        if self._everywhere or endpoint in self._granted:
            return
        if Scope.PREDICT not in self.scopes or not covers(self._patterns, endpoint):
            raise errors.Forbidden(f"{self._shown} may not ask {endpoint!r}; {self._may()}")
        if len(self._granted) < _GRANTS_KEPT:
            self._granted.add(endpoint)

    def sees(self, endpoint: str) -> bool:
        """It may know that the endpoint exists, and read its metadata and statistics."""
        return (
            self._everywhere
            or Scope.MANAGE in self.scopes
            or (Scope.PREDICT in self.scopes and covers(self._patterns, endpoint))
        )

    def check_sees(self, endpoint: str) -> None:
        """Raises Forbidden."""
        if not self.sees(endpoint):
            raise errors.Forbidden(f"{self._shown} may not read about {endpoint!r}; {self._may()}")

    def check(self, scope: Scope) -> None:
        """Raises Forbidden."""
        if scope not in self.scopes:
            raise errors.Forbidden(f"{self._shown} may not do this: it takes the scope {scope.value}; {self._may()}")

    @property
    def _shown(self) -> str:
        return f"key {self.name!r} ({self.key})"

    def _may(self) -> str:
        scopes = ", ".join(scope.value for scope in Scope if scope in self.scopes)
        where = f" with {', '.join(self._patterns)}" if Scope.PREDICT in self.scopes and not self._everywhere else ""
        return f"it may: {scopes}{where}"


ANYBODY = Principal("", "", frozenset(Scope), ("*",), None)
"""Makes every request where no keys are asked for."""


class KeyRing:
    """The keys of a ``KeySet``, by id."""

    def __init__(self, keys: KeySet) -> None:
        self._secret = keys.secret
        self._records = {record.id: record for record in keys.keys}

    def check(self, token: bytes, now: float) -> Principal:
        """Whose key this is; ``now`` in seconds since 1970. Raises Unauthorized.

        An unknown id takes as long as a wrong secret, and both are told alike."""
        found = _TOKEN.fullmatch(token)
        if found is None:
            raise errors.Unauthorized("this is no key of Headrace: one reads hr_, 12 characters, _, 43 characters")
        record = self._records.get(found[1].decode())
        expected = _NOBODYS_DIGEST if record is None else record.digest
        if not hmac.compare_digest(digest(self._secret, token), expected) or record is None:
            raise errors.Unauthorized("this key is not known here")
        return _principal(record, _IMPLIED, now)

    def claimed(self, key_id: str, now: float) -> Principal:
        """Whoever says to be the holder of this key, without a proof: may predict at most. Raises Unauthorized."""
        record = self._records.get(key_id)
        if record is None:
            raise errors.Unauthorized("there is no key with this access key id here")
        return _principal(record, _CLAIMED, now)


_CLAIMED = {scope: frozenset({Scope.PREDICT}) & implied for scope, implied in _IMPLIED.items()}


def _principal(record: KeyRecord, implied: dict[Scope, frozenset[Scope]], now: float) -> Principal:
    shown = f"key {record.name!r} ({record.id})"
    match record.state(now):
        case KeyState.REVOKED:
            raise errors.Unauthorized(f"{shown} was revoked; ask for a new one")
        case KeyState.EXPIRED:
            raise errors.Unauthorized(f"{shown} expired {format_time(record.expires or 0.0)}; ask for a new one")
    scopes = frozenset[Scope]().union(*(implied[scope] for scope in record.scopes))
    patterns = ("*",) if Scope.ADMIN in record.scopes else record.endpoints
    return Principal(record.id, record.name, scopes, patterns, record.expires)


def covers(patterns: tuple[str, ...], endpoint: str) -> bool:
    """Whether one of the patterns (``fraud``, ``team-a/*``, ``*``) fits the endpoint's name."""
    return any(p == endpoint or (p.endswith("*") and endpoint.startswith(p[:-1])) for p in patterns)


class NewKey(NamedTuple):
    id: str
    token: str


def make_token(random: bytes) -> NewKey:
    """A key from ``RANDOM_BYTES`` random bytes."""
    key_id = base64.b32encode(random[:_ID_BYTES]).decode().lower()[:12]
    secret = base64.urlsafe_b64encode(random[_ID_BYTES:RANDOM_BYTES]).decode().rstrip("=")
    return NewKey(key_id, f"hr_{key_id}_{secret}")


def looks_like_token(text: bytes) -> bool:
    return _TOKEN.fullmatch(text) is not None


def digest(secret: bytes, token: bytes) -> bytes:
    """What is kept of a key: 32 bytes."""
    return hmac.digest(secret, token, "sha256")


def is_id(text: str) -> bool:
    return _ID.match(text) is not None


def check_name(name: str) -> str:
    """Return ``name`` when it is a legal name of a key; raise BadSettings otherwise."""
    if not _NAME.match(name) or is_id(name):
        raise errors.BadSettings(
            f"name of a key {name!r} is not valid: use letters, digits, '_', '-', '.', at most 64 characters, and not"
            " the form of an id (12 of a-z and 2-7)"
        )
    return name


def check_pattern(pattern: str) -> str:
    """Return ``pattern`` when it can fit names of endpoints; raise BadSettings otherwise."""
    if pattern != "*":
        stem = pattern.removesuffix("*")
        if stem == pattern:
            return names.check_endpoint(pattern)
        if len(stem) > 255 or not _STEM.match(stem):
            raise errors.BadSettings(
                f"endpoint pattern {pattern!r} is not valid: a name, or the beginning of one and a '*' at its end, e.g."
                " fraud* or team-a/*"
            )
    return pattern


def format_time(seconds: float) -> str:
    """``2026-03-01 12:00:00Z``."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))
