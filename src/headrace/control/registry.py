"""The registry: what may happen to models, versions and aliases. Every change is one transaction with its event."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import msgspec

from headrace.control.joined_state import JoinedState
from headrace.control.registry_ports import State, Transaction
from headrace.core import errors, names
from headrace.core.versions import AliasMove, Draft, Event, Summary, TrustGrant, Version

Clock = Callable[[], float]
"""Seconds since 1970 (UTC)."""


class Model(msgspec.Struct, frozen=True):
    """A model with its versions, oldest first, and where its aliases point to."""

    name: str
    versions: tuple[Version, ...]
    aliases: dict[str, int]

    def aliases_of(self, number: int) -> list[str]:
        return [alias for alias, version in self.aliases.items() if version == number]


class Story(msgspec.Struct, frozen=True):
    """What happened to a model."""

    aliases: tuple[AliasMove, ...]
    events: tuple[Event, ...]


class Registry:
    """Blocking; thread-safe. ``who`` stands in the events of the changes made through it."""

    def __init__(self, state: State, clock: Clock, who: str) -> None:
        self._state = state
        self._clock = clock
        self._who = who

    def by(self, who: str) -> Registry:
        """The same registry for changes that somebody else makes."""
        return Registry(self._state, self._clock, who)

    def reading(self) -> AbstractContextManager[Transaction]:
        """One consistent view of everything, for lists in pages."""
        return self._state.reading()

    @contextmanager
    def together(self) -> Iterator[tuple[Registry, Transaction]]:
        """Several steps in one transaction, with what else must happen or not happen with them."""
        with self._state.writing() as transaction:
            yield Registry(JoinedState(transaction), self._clock, self._who), transaction

    # --- reading --------------------------------------------------------------------------------------------------

    def models(self) -> list[Summary]:
        with self._state.reading() as transaction:
            return transaction.models.listing()

    def model(self, name: str) -> Model:
        """Raises UnknownModel."""
        with self._state.reading() as transaction:
            return _require(transaction, name)

    def story(self, name: str) -> Story:
        """Also of a model whose versions are all deleted."""
        with self._state.reading() as transaction:
            return Story(tuple(transaction.models.alias_history(name)), tuple(transaction.events.of(name)))

    def changes(self, limit: int, model: str | None = None) -> list[Event]:
        """The last changes of everything, or of a model, newest first."""
        with self._state.reading() as transaction:
            return transaction.events.latest(limit, model)

    def resolve(self, reference: str) -> Version:
        """The version that ``fraud@7``, ``fraud@champion`` or ``fraud`` (its newest) names. Raises UnknownModel."""
        name, choice = names.split_reference(reference)
        with self._state.reading() as transaction:
            return _choose(_require(transaction, name), choice)

    def trust_in(self, version: Version) -> TrustGrant | None:
        with self._state.reading() as transaction:
            return transaction.trust.of(version.draft.trust_digest)

    def numbers(self) -> list[tuple[str, int]]:
        """Model and number of every version."""
        with self._state.reading() as transaction:
            return transaction.models.numbers()

    def blobs(self) -> set[str]:
        """Digests of the files that versions refer to."""
        with self._state.reading() as transaction:
            return transaction.models.blobs()

    # --- changes --------------------------------------------------------------------------------------------------

    def register(self, draft: Draft, *, number: int | None = None, trusted: bool = False, alias: str = "") -> Version:
        """Make a draft a version. ``number`` is kept from an imported repository; the same content under the same
        number is the version that is there already. Raises Conflict for a number that is used otherwise."""
        names.check_model(draft.model)
        if alias:
            names.check_alias(alias)
        with self._state.writing() as transaction:
            transaction.models.lock(draft.model)
            there = None if number is None else transaction.models.get(draft.model, number)
            if there is not None and there.draft.trust_digest == draft.trust_digest:
                version = there
            else:
                version = transaction.models.add(draft, number)
                self._note(transaction, "version.push", draft.model, after=_described(version))
            if trusted and draft.code_bearing:
                self._trust(transaction, version)
            if alias:
                self._move(transaction, draft.model, alias, version.number, "")
        return version

    def move_alias(self, model: str, alias: str, choice: str, why: str = "") -> Version:
        """Point ``alias`` at the version that ``choice`` (a number or another alias) names. Raises UnknownModel."""
        names.check_alias(alias)
        names.check_version(choice)
        with self._state.writing() as transaction:
            transaction.models.lock(model)
            version = _choose(_require(transaction, model), choice)
            self._move(transaction, model, alias, version.number, why)
        return version

    def remove_alias(self, model: str, alias: str, why: str = "") -> None:
        """Raises UnknownModel when there is no such model or alias."""
        with self._state.writing() as transaction:
            transaction.models.lock(model)
            found = _require(transaction, model)
            if alias not in found.aliases:
                raise errors.UnknownModel(f"{model!r} has no alias {alias!r}{_has_aliases(found)}")
            self._move(transaction, model, alias, None, why)

    def trust(self, reference: str) -> Version:
        """Vouch for the code in a version."""
        name, choice = names.split_reference(reference)
        with self._state.writing() as transaction:
            version = _choose(_require(transaction, name), choice)
            self._trust(transaction, version)
        return version

    def distrust(self, reference: str, why: str = "") -> Version:
        """Take back the word for the code in a version: for every version with the same content."""
        name, choice = names.split_reference(reference)
        with self._state.writing() as transaction:
            version = _choose(_require(transaction, name), choice)
            digest = version.draft.trust_digest
            if transaction.trust.of(digest) is not None:
                transaction.trust.revoke(digest)
                self._note(transaction, "trust.revoke", name, before=_described(version), why=why)
        return version

    def delete(self, model: str, choice: str | None, why: str = "") -> list[Version]:
        """Delete the version that ``choice`` names, or every version. Numbers are not given again.

        Raises Conflict, and deletes nothing, when an alias points to one of them."""
        with self._state.writing() as transaction:
            transaction.models.lock(model)
            found = _require(transaction, model)
            doomed = list(found.versions) if choice is None else [_choose(found, choice)]
            for version in doomed:
                if aliases := found.aliases_of(version.number):
                    raise errors.Conflict(
                        f"{version.ref} cannot be deleted: alias {', '.join(map(repr, aliases))} points to it;"
                        f" move it first, or remove it: headrace models alias {model} {aliases[0]} --remove"
                    )
                transaction.models.delete(model, version.number)
                self._note(transaction, "version.delete", model, before=_described(version), why=why)
        return doomed

    def _trust(self, transaction: Transaction, version: Version) -> None:
        digest = version.draft.trust_digest
        if transaction.trust.of(digest) is None:
            transaction.trust.grant(TrustGrant(digest, self._who, self._clock()))
            self._note(transaction, "trust.grant", version.draft.model, after=_described(version))

    def _move(self, transaction: Transaction, model: str, alias: str, number: int | None, why: str) -> None:
        before = transaction.models.aliases(model).get(alias)
        if before == number:
            return
        transaction.models.move_alias(model, AliasMove(alias, number, before, self._who, self._clock()))
        self._note(transaction, "alias.move", model, before={alias: before}, after={alias: number}, why=why)

    def _note(
        self,
        transaction: Transaction,
        what: str,
        model: str,
        *,
        before: dict[str, str | int | None] | None = None,
        after: dict[str, str | int | None] | None = None,
        why: str = "",
    ) -> None:
        transaction.events.add(Event(self._clock(), self._who, what, model, before, after, why))


def _model(transaction: Transaction, name: str) -> Model:
    return Model(name, tuple(transaction.models.versions(name)), transaction.models.aliases(name))


def _require(transaction: Transaction, name: str) -> Model:
    found = _model(transaction, name)
    if not found.versions:
        known = transaction.models.names()
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known[:8])}" if known else ""
        raise errors.UnknownModel(f"there is no model {name!r} in the registry{hint or ', which is empty'}")
    return found


def _choose(model: Model, choice: str | None) -> Version:
    if choice is None:
        return model.versions[-1]
    number = int(choice) if choice.isdigit() else model.aliases.get(choice)
    if number is None:
        raise errors.UnknownModel(f"{model.name!r} has no alias {choice!r}{_has_aliases(model)}")
    for version in model.versions:
        if version.number == number:
            return version
    numbers = ", ".join(str(version.number) for version in model.versions[-8:])
    raise errors.UnknownModel(f"{model.name!r} has no version {number}; there are {numbers}")


def _has_aliases(model: Model) -> str:
    return f"; there are {', '.join(sorted(model.aliases))}" if model.aliases else "; it has none"


def _described(version: Version) -> dict[str, str | int | None]:
    return {"version": version.number, "digest": version.draft.artifact.digest}
