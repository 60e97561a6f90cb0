"""The registry of a server: ``client.models``, asynchronous. Each method is one command of ``headrace models``."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import msgspec

from headrace.client import transfers
from headrace.client.management import Management
from headrace.core import errors, names
from headrace.core.versions import (
    AliasMove,
    Draft,
    Event,
    ModelLine,
    Registration,
    TrustGrant,
    Version,
    VersionView,
)

Progress = Callable[[str, int, int], None]
"""What is being moved, bytes that were just moved, bytes in all."""

_INSPECTING_S = 1800.0
"""A server reads all files of a version, and inspects them, before it answers."""
_READING_S = 4 * 3600.0
_MOVES = 5
"""Attempts to move an alias that others move at the same time."""

T = TypeVar("T")


class VersionDocument(Draft, frozen=True, kw_only=True):
    """A version as the API shows it."""

    number: int
    aliases: list[str]
    trust: TrustGrant | None
    runnable: bool

    def view(self) -> VersionView:
        draft = Draft(*(getattr(self, name) for name in Draft.__struct_fields__))
        return VersionView(Version(self.number, draft), self.aliases, self.trust, self.runnable)


class _Alias(msgspec.Struct):
    version: int


class _Verdict(msgspec.Struct):
    problems: tuple[str, ...]


class _Collected(msgspec.Struct):
    files: int
    bytes: int


class _Deleted(msgspec.Struct):
    deleted: list[VersionDocument]


class AsyncModels:
    """The registry behind a management port. Called, it names what is *served*: ``await client.models()``."""

    def __init__(self, management: Management, served: Callable[[], Awaitable[list[str]]] | None = None) -> None:
        self._management = management
        self._served = served

    async def __call__(self) -> builtins.list[str]:
        """Names of what the server serves (``GET /v2/models``, which not every server of the protocol has)."""
        if self._served is None:
            raise errors.BadSettings("this is a client of a registry only; models are served on another port")
        return await self._served()

    # --- reading --------------------------------------------------------------------------------------------------

    async def list(self) -> builtins.list[ModelLine]:
        """Every model of the registry, by name."""
        return [line async for line in self._pages("/models", "models", ModelLine)]

    async def show(self, reference: str) -> VersionView:
        """The version that ``fraud@7``, ``fraud@champion`` or ``fraud`` (its newest) names. Raises UnknownModel."""
        return await self._version(await self._path(reference))

    async def versions(self, model: str) -> builtins.list[VersionView]:
        """Every version of a model, oldest first. Raises UnknownModel."""
        path = f"{_model(model)}/versions"
        return [entry.view() async for entry in self._pages(path, "versions", VersionDocument)][::-1]

    async def aliases(self, model: str) -> dict[str, int]:
        """Where each alias of a model points to. Raises UnknownModel."""
        answer = await self._management.get(_model(model))
        return msgspec.json.decode(answer.content, type=ModelLine).aliases

    async def history(self, model: str) -> builtins.list[AliasMove]:
        """Every step of every alias of a model, oldest first."""
        path = f"{_model(model)}/history"
        return [move async for move in self._pages(path, "steps", AliasMove)][::-1]

    async def changes(self, model: str | None = None, limit: int | None = None) -> builtins.list[Event]:
        """The latest changes of everything, or of a model, newest first."""
        found: builtins.list[Event] = []
        async for event in self._pages("/changes", "changes", Event, model=model, limit=min(limit or 1000, 1000)):
            found.append(event)
            if limit is not None and len(found) >= limit:
                break
        return found

    # --- changes --------------------------------------------------------------------------------------------------

    async def push(
        self,
        source: str | Path,
        model: str | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        trust: bool = False,
        alias: str = "",
        progress: Progress = lambda *_: None,
    ) -> builtins.list[VersionView]:
        """Store the model, or the repository of models, at a path as new versions. ``trust``: you vouch for the code
        that it brings along. Raises InvalidInput, Unsupported for what is no model."""
        from headrace.client.pushing import find

        known = Registration("", (), metadata=dict(metadata or {}), metrics=dict(metrics or {}), trusted=trust)
        found = await asyncio.to_thread(find, str(source), model, msgspec.structs.replace(known, alias=alias))
        return [await self.register(entry.model, entry.registration, entry.sources, progress) for entry in found]

    async def register(
        self, model: str, wanted: Registration, sources: Mapping[str, Path], progress: Progress = lambda *_: None
    ) -> VersionView:
        """Store files, given by their path in the version, and make a version of them."""
        size = sum(file.size for file in wanted.files)
        for file in wanted.files:
            await transfers.send(self._management, sources[file.path], file, lambda count: progress(model, count, size))
        answer = await self._management.post(f"{_model(model)}/versions", wanted, timeout_s=_INSPECTING_S)
        return msgspec.json.decode(answer.content, type=VersionDocument).view()

    async def alias(self, model: str, alias: str, version: str | int, *, why: str = "") -> int:
        """Point an alias at a version (or where another alias points), and give its number. Raises UnknownModel,
        PreconditionFailed when others keep moving it."""
        path = f"{_model(model)}/aliases/{quote(names.check_alias(alias), safe='')}"
        body = {"version": str(version), "why": why}

        async def move(condition: Mapping[str, str]) -> int:
            answer = await self._management.call("PUT", path, body=body, headers=condition)
            return msgspec.json.decode(answer.content, type=_Alias).version

        return await self._as_seen(path, move)

    async def remove_alias(self, model: str, alias: str, *, why: str = "") -> None:
        """Raises UnknownModel when there is no such model or alias."""
        path = f"{_model(model)}/aliases/{quote(names.check_alias(alias), safe='')}"
        await self._management.call("DELETE", path, query={"why": why}, headers={"if-match": "*"})

    async def trust(self, reference: str) -> VersionView:
        """Vouch for the code that a version brings along."""
        path = await self._path(reference)
        await self._management.call("PUT", f"{path}/trust", repeatable=True)
        return await self._version(path)

    async def distrust(self, reference: str, *, why: str = "") -> None:
        """Take that back, for every version with the same content."""
        path = f"{await self._path(reference)}/trust"
        await self._management.call("DELETE", path, query={"why": why}, headers={"if-match": "*"})

    async def delete(self, reference: str, *, every: bool = False, why: str = "") -> builtins.list[Version]:
        """Delete a version, or ``every`` version of a model. Raises Conflict when an alias points to one."""
        model, choice = names.split_reference(reference)
        if every == (choice is not None):
            raise errors.BadSettings(f"say which version, e.g. {model}@3, or delete every one")
        path = _model(model) if choice is None else f"{_model(model)}/versions/{quote(choice, safe='')}"
        answer = await self._management.call("DELETE", path, query={"why": why}, headers={"if-match": "*"})
        return [entry.view().version for entry in msgspec.json.decode(answer.content, type=_Deleted).deleted]

    # --- files ----------------------------------------------------------------------------------------------------

    async def verify(self, reference: str) -> tuple[str, ...]:
        """Have the server compare every file of a version with its digest; what is wrong with them."""
        answer = await self._management.post(f"{await self._path(reference)}/verify", timeout_s=_READING_S)
        return msgspec.json.decode(answer.content, type=_Verdict).problems

    async def pull(
        self, reference: str, folder: str | Path | None = None, *, progress: Progress = lambda *_: None
    ) -> Path:
        """Write the files of a version into a new folder (MODEL-VERSION), which appears when all of them are verified.

        Raises Conflict when there is something already, Corrupted."""
        version = (await self.show(reference)).version
        target = Path(folder or f"{version.draft.model.replace('/', '-')}-{version.number}")
        await self.fetch(version, target, progress)
        return target

    async def fetch(self, version: Version, target: Path, progress: Progress) -> None:
        """The same for a version that is known."""
        from headrace.runtimes.version_files import new_folder

        with new_folder(target) as partial:
            for file in version.draft.files:
                path = _inside(partial, file.path)
                await transfers.receive(
                    self._management, file, path, lambda count: progress(version.ref, count, version.size)
                )

    async def collect(self, grace_s: float = 86_400.0, *, dry_run: bool = False) -> tuple[int, int]:
        """Remove stored files that no version refers to and that are older; how many, and their bytes."""
        body = {"grace_s": grace_s, "dry_run": dry_run}
        answer = await self._management.post("/gc", body, timeout_s=_READING_S)
        done = msgspec.json.decode(answer.content, type=_Collected)
        return done.files, done.bytes

    async def close(self) -> None:
        await self._management.close()

    # --- how ------------------------------------------------------------------------------------------------------

    async def _pages(
        self, path: str, member: str, kind: type[T], limit: int = 1000, **query: str | None
    ) -> AsyncIterator[T]:
        cursor: str | None = None
        while True:
            answer = await self._management.get(path, {"limit": limit, "cursor": cursor, **query})
            document = msgspec.json.decode(answer.content, type=dict[str, msgspec.Raw])
            for entry in msgspec.json.decode(document[member], type=builtins.list[kind]):  # type: ignore[valid-type]
                yield entry
            cursor = msgspec.json.decode(document["next_cursor"], type=str | None)
            if cursor is None:
                return

    async def _path(self, reference: str) -> str:
        model, choice = names.split_reference(reference)
        if choice is None:
            answer = await self._management.get(_model(model))
            choice = str(msgspec.json.decode(answer.content, type=ModelLine).newest)
        return f"{_model(model)}/versions/{quote(choice, safe='')}"

    async def _version(self, path: str) -> VersionView:
        answer = await self._management.get(path)
        return msgspec.json.decode(answer.content, type=VersionDocument).view()

    async def _as_seen(self, path: str, change: Callable[[Mapping[str, str]], Awaitable[T]]) -> T:
        """A change of what is there, whatever it is by now: read, change just that, and read again when it was changed
        in between."""
        attempt = 1
        while True:
            try:
                seen = await self._management.get(path)
                condition = {"if-match": seen.headers["etag"]}
            except errors.UnknownModel:
                condition = {"if-none-match": "*"}
            try:
                return await change(condition)
            except errors.PreconditionFailed:
                if attempt == _MOVES:
                    raise
            attempt += 1


def _model(name: str) -> str:
    return f"/models/{quote(names.check_model(name))}"


def _inside(folder: Path, name: str) -> Path:
    """Where a file of a version belongs; a server must not write outside of the folder."""
    path = folder / name
    if ".." in path.parts or not path.is_relative_to(folder):
        raise errors.Corrupted(f"{name!r} is no path of a version's file")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
