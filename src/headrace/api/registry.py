"""What the routes of the registry share: the access to it, and the names in their paths."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Query

from headrace.api.ports import RegistryAccess
from headrace.api.registry_schema import Alias, Text, Version
from headrace.control.registry_ports import Transaction
from headrace.core import errors, names
from headrace.core.versions import Version as CoreVersion

NO_REGISTRY = (
    "this server keeps no registry, so it has no models, versions or aliases; start it with one:"
    " headrace serve --state DIR"
)


def owned(access: RegistryAccess | None) -> RegistryAccess:
    """Raises NoRegistry."""
    if access is None:
        raise errors.NoRegistry(NO_REGISTRY)
    return access


def _model(model: Annotated[str, Path(description="Name of the model; `/` is part of it.", examples=["fraud"])]) -> str:
    return names.check_model(model)


def _choice(choice: Annotated[str, Path(description="Number of a version, or an alias.", examples=["7"])]) -> str:
    return names.check_version(choice)


def _alias(alias: Annotated[str, Path(examples=["champion"])]) -> str:
    return names.check_alias(alias)


ModelName = Annotated[str, Depends(_model)]
Choice = Annotated[str, Depends(_choice)]
AliasName = Annotated[str, Depends(_alias)]
Why = Annotated[Text, Query(max_length=4096, description="Kept in the history.")]


def version_of(transaction: Transaction, version: CoreVersion) -> Version:
    """The document of a version as things stand in a transaction."""
    aliases = transaction.models.aliases(version.draft.model)
    return described(transaction, version, aliases)


def described(transaction: Transaction, version: CoreVersion, aliases: dict[str, int]) -> Version:
    """The same for several versions of one model, whose aliases are read once."""
    mine = [alias for alias, number in aliases.items() if number == version.number]
    return Version.of(version, mine, transaction.trust.of(version.draft.trust_digest))


def alias_of(transaction: Transaction, model: str, alias: str) -> Alias | None:
    """The document of an alias; None when there is none."""
    number = transaction.models.aliases(model).get(alias)
    if number is None:
        return None
    [(_, move)] = transaction.models.moves(model, 1, alias=alias)
    return Alias.of(model, number, move)
