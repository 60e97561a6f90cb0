"""Makes and ends API keys. Every change is one transaction with its event.

No ownership of the state is needed: what a change relies on is read in its own transaction, under the lock of the set
of keys. So keys can be made and revoked while a server owns the state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

import msgspec

from headrace.control.joined_state import JoinedState
from headrace.control.registry_ports import State, Transaction
from headrace.core import errors, keys
from headrace.core.key_views import IssuedKey, KeyStory, KeyView
from headrace.core.keys import KeyRecord, KeySet, KeyState, Scope
from headrace.core.versions import Event

Clock = Callable[[], float]
"""Seconds since 1970 (UTC)."""
Randomness = Callable[[int], bytes]
"""So many random bytes, for secrets."""
Secret = Callable[[bool], bytes]

_CHECKED = b"headrace: the secret of the keys"


class Issued(NamedTuple):
    """A new key. ``token`` is nowhere else, and cannot be found again. ``before``: the one that it follows, as it ends
    now."""

    record: KeyRecord
    token: str
    before: KeyRecord | None = None

    def view(self, now: float) -> IssuedKey:
        before = None if self.before is None else KeyView.of(self.before, now)
        return IssuedKey.of(self.record, now, key=self.token, before=before)


class KeyIssuer:
    """Blocking. ``secret`` is asked for when something changes: that of the state's digests, or a new one when
    ``first`` is true and there are no keys yet. ``who`` stands in the events."""

    def __init__(self, state: State, secret: Secret, clock: Clock, who: str, randomness: Randomness) -> None:
        self._state = state
        self._secret = secret
        self._key = b""
        self._clock = clock
        self._who = who
        self._randomness = randomness

    def reading(self) -> AbstractContextManager[Transaction]:
        """One consistent view of everything."""
        return self._state.reading()

    @contextmanager
    def together(self) -> Iterator[tuple[KeyIssuer, Transaction]]:
        """Several steps in one transaction, with what else must happen or not happen with them. Nobody else changes
        keys meanwhile."""
        with self._state.writing() as transaction:
            transaction.keys.lock()
            joined = JoinedState(transaction)
            yield KeyIssuer(joined, self._secret, self._clock, self._who, self._randomness), transaction

    def bootstrap(self, name: str, expires: float | None) -> Issued:
        """The first key, which may do everything. Raises Conflict when there is one already."""
        with self._state.writing() as transaction:
            there = self._begin(transaction)
            if there:
                raise errors.Conflict(
                    "this state has keys already (headrace keys list --all), so there is no first one to make; whoever"
                    " may write its files makes another with: headrace keys create NAME --scope admin"
                )
            return self._issue(transaction, "key.bootstrap", name, (Scope.ADMIN,), (), expires)

    def create(self, name: str, scopes: Iterable[Scope], endpoints: Iterable[str], expires: float | None) -> Issued:
        """Raises Conflict when a live key has this name, BadSettings when scopes and endpoints do not go together."""
        wanted = tuple(scope for scope in Scope if scope in set(scopes))
        patterns = tuple(dict.fromkeys(map(keys.check_pattern, endpoints)))
        if bool(patterns) != (Scope.PREDICT in wanted):
            raise errors.BadSettings(
                "a key that may predict says with what: --endpoint fraud, --endpoint 'team-a/*' or --endpoint '*'"
                if Scope.PREDICT in wanted
                else "--endpoint goes with --scope predict only"
            )
        with self._state.writing() as transaction:
            live = self._live(self._begin(transaction), name)
            if live:
                raise errors.Conflict(
                    f"there is a live key {name!r} ({live[0].id}) already;"
                    f" for a new secret: headrace keys rotate {name}"
                )
            return self._issue(transaction, "key.create", name, wanted, patterns, expires)

    def rotate(self, name: str, grace_s: float, expires: float | None = None, why: str = "") -> Issued:
        """A second live key of this name; the first one ends ``grace_s`` seconds from now.

        Without ``expires`` it lives as long as the first one was to. Raises UnknownKey when no live key has the name,
        Conflict when two have."""
        with self._state.writing() as transaction:
            there = self._begin(transaction)
            live = self._live(there, name)
            if not live:
                raise _unknown(name, there, "no live key")
            if len(live) > 1:
                raise errors.Conflict(
                    f"{name!r} has two live keys already, {' and '.join(record.id for record in live)};"
                    f" end the older one first: headrace keys revoke {live[0].id}"
                )
            old = live[0]
            now = self._clock()
            # The end of a key that was rotated before is not what it was made for; the newest was never rotated.
            newest = [record for record in there if record.name == name][-1]
            if expires is None and newest.expires is not None:
                expires = now + newest.expires - newest.created
            issued = self._issue(transaction, "key.rotate", name, old.scopes, old.endpoints, expires, why, before=old)
            ends = now + grace_s if old.expires is None else min(now + grace_s, old.expires)
            transaction.keys.end(old.id, expires=ends, revoked=None)
            return issued._replace(before=msgspec.structs.replace(old, expires=ends))

    def revoke(self, name_or_id: str, why: str = "") -> list[KeyRecord]:
        """End a key, or every live key of a name, now. Raises UnknownKey when there is none to end."""
        with self._state.writing() as transaction:
            there = self._begin(transaction)
            now = self._clock()
            ended = [
                msgspec.structs.replace(record, revoked=now)
                for record in find(there, name_or_id)
                if record.state(now) is not KeyState.REVOKED
                and (record.state(now) is KeyState.LIVE or record.id == name_or_id)
            ]
            if not ended:
                raise _unknown(name_or_id, there, "no key to revoke")
            for record in ended:
                transaction.keys.end(record.id, expires=record.expires, revoked=now)
                self._note(transaction, "key.revoke", record, why=why)
        return ended

    def all(self) -> list[KeyRecord]:
        """Every key that ever was, oldest first."""
        with self._state.reading() as transaction:
            return transaction.keys.all()

    def get(self, name_or_id: str) -> list[KeyRecord]:
        """The key of this id, or every key that had this name. Raises UnknownKey."""
        there = self.all()
        found = find(there, name_or_id)
        if not found:
            raise _unknown(name_or_id, there, "no key")
        return found

    def story(self, name_or_id: str) -> KeyStory:
        """The keys that ``get`` finds, and what happened to all of their name. Raises UnknownKey."""
        found, now = self.get(name_or_id), self._clock()
        return KeyStory(tuple(KeyView.of(record, now) for record in found), tuple(self.history(found[0].name)))

    def history(self, name: str) -> list[Event]:
        """What happened to the keys of a name, oldest first."""
        with self._state.reading() as transaction:
            return transaction.events.of(_subject(name))

    def _begin(self, transaction: Transaction) -> list[KeyRecord]:
        """Keep other changes out, and read what is there."""
        self._key = self._secret(transaction.keys.secret_check() is None)
        check = secret_check(self._key)
        if transaction.keys.begin_change(check) != check:
            raise wrong_secret()
        return transaction.keys.all()

    def _live(self, there: Iterable[KeyRecord], name: str) -> list[KeyRecord]:
        now = self._clock()
        return [record for record in there if record.name == name and record.state(now) is KeyState.LIVE]

    def _issue(
        self,
        transaction: Transaction,
        what: str,
        name: str,
        scopes: tuple[Scope, ...],
        endpoints: tuple[str, ...],
        expires: float | None,
        why: str = "",
        before: KeyRecord | None = None,
    ) -> Issued:
        keys.check_name(name)
        now = self._clock()
        if expires is not None and expires <= now:
            raise errors.BadSettings("the key would have expired before it was made; --expires takes a time from now")
        new = keys.make_token(self._randomness(keys.RANDOM_BYTES))
        record = KeyRecord(
            id=new.id,
            name=name,
            scopes=scopes,
            endpoints=endpoints,
            digest=keys.digest(self._key, new.token.encode()),
            created=now,
            who=self._who,
            expires=expires,
        )
        transaction.keys.add(record)
        self._note(transaction, what, record, before=before, why=why)
        return Issued(record, new.token)

    def _note(
        self,
        transaction: Transaction,
        what: str,
        record: KeyRecord,
        *,
        before: KeyRecord | None = None,
        why: str = "",
    ) -> None:
        earlier = None if before is None else _described(before)
        event = Event(self._clock(), self._who, what, _subject(record.name), earlier, _described(record), why)
        transaction.events.add(event)


def read_set(state: State, secret: Callable[[], bytes], known: int | None) -> KeySet | None:
    """The keys as gateways need them; None when ``known`` is their version already. ``secret`` is asked for only when
    there are keys. Raises BadSettings when it is not theirs."""
    with state.reading() as transaction:
        version = transaction.keys.version()
        if version == known:
            return None
        records, check = tuple(transaction.keys.all()), transaction.keys.secret_check()
    if not records:
        return KeySet(version, False, b"", ())
    found = secret()
    if secret_check(found) != check:
        raise wrong_secret()
    return KeySet(version, True, found, records)


def find(there: Iterable[KeyRecord], name_or_id: str) -> list[KeyRecord]:
    """By id or by name; no name has the form of an id."""
    return [record for record in there if name_or_id in (record.id, record.name)]


def secret_check(secret: bytes) -> str:
    """Tells secrets apart without telling them: kept beside the digests."""
    return keys.digest(secret, _CHECKED).hex()


def wrong_secret() -> errors.BadSettings:
    return errors.BadSettings(
        "the keys of this state were made with another secret: use the key.secret of the state directory that made"
        " them, or its text in HEADRACE_KEY_SECRET"
    )


def _unknown(name_or_id: str, there: Iterable[KeyRecord], what: str) -> errors.UnknownKey:
    names = sorted({record.name for record in there})
    hint = f"; there are {', '.join(names[:8])}" if names else "; begin with: headrace keys bootstrap"
    return errors.UnknownKey(f"there is {what} {name_or_id!r}{hint}")


def _subject(name: str) -> str:
    return f"key:{name}"


def _described(record: KeyRecord) -> dict[str, str | int | None]:
    return {
        "id": record.id,
        "scopes": ",".join(record.scopes),
        "endpoints": ",".join(record.endpoints),
        "expires": None if record.expires is None else keys.format_time(record.expires),
    }
