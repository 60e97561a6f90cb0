"""Keys without a state, for tests that only check them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from headrace.core import keys
from headrace.core.keys import KeyRecord, KeySet, Scope

SECRET = b"the secret of the tests' digests"


@dataclass(frozen=True)
class TestKey:
    """A key with its record; the same name has the same key in every run."""

    __test__ = False

    record: KeyRecord
    token: str

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}


def key(
    name: str,
    *scopes: Scope,
    endpoints: tuple[str, ...] = (),
    expires: float | None = None,
    revoked: float | None = None,
) -> TestKey:
    key_id, token = keys.make_token(hashlib.blake2b(name.encode(), digest_size=keys.RANDOM_BYTES).digest())
    digest = keys.digest(SECRET, token.encode())
    return TestKey(KeyRecord(key_id, name, scopes, endpoints, digest, 0.0, "ada", expires, revoked), token)


def key_set(*made: TestKey, version: int = 1, required: bool = True) -> KeySet:
    return KeySet(version, required, SECRET, tuple(one.record for one in made))
