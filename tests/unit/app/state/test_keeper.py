"""The keeper: what was kept is gone for, an unreachable state is waited for, and others who owned it are believed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from headrace.app.state.keeper import StateKeeper
from headrace.app.state.location import Location
from headrace.app.state.owned_state import RENEW_EVERY_S, OwnedState
from headrace.control.rollout_story import Rollout
from headrace.core import errors
from headrace.core.endpoint_records import EndpointRecord
from tests.operated import ECHO, Operated

replace = msgspec.structs.replace
ONE = "endpoints: {m: {model: one.echo}}\n"


class Kept:
    """An Operated with its keeper, over a real state that can be out of reach."""

    def __init__(self, folder: Path) -> None:
        self.operated = Operated(folder)
        self.now = 0.0
        self.down = False
        self.told: list[bool] = []
        self.resumed: list[Rollout] = []
        self.keeper = StateKeeper(
            self.operated.manager,
            cast(Any, SimpleNamespace(resume=self.resumed.extend)),
            self.operated.location,
            cast(Any, SimpleNamespace(set_state_reachable=self.told.append)),
            "http://127.0.0.1:9000",
            open_state=self._open,
            clock=lambda: self.now,
        )

    def _open(self, location: Location, url: str) -> OwnedState:
        if self.down:
            raise errors.StoreFailed("the database is down")
        return OwnedState(location, url)

    async def renew(self) -> None:
        self.now += RENEW_EVERY_S
        await self.keeper.renew()


def keep(folder: Path, *runs: Callable[[Kept], Awaitable[None]]) -> None:
    """Each with a process of its own, one after the other."""
    (folder / "one.echo").write_text(ECHO)

    async def main() -> None:
        for run in runs:
            kept = Kept(folder)
            try:
                await run(kept)
            finally:
                kept.keeper.close()

    asyncio.run(main())


def test_what_was_running_is_gone_for_again(tmp_path: Path) -> None:
    async def first(kept: Kept) -> None:
        await kept.keeper.begin(patiently=False)
        await kept.operated.apply(ONE)
        await kept.operated.operations.pause("m", "lunch", who="ada")

    async def second(kept: Kept) -> None:
        await kept.keeper.begin(patiently=False)
        operated = kept.operated
        assert operated.desired.traffic["m"].targets == {"main": "m@1"}
        assert operated.desired.paused == {"m": "lunch"}
        assert operated.operations.wanted("m").generation == 2
        assert kept.told == [True]

    keep(tmp_path, first, second)


def test_a_state_that_cannot_be_opened_is_waited_for_or_not(tmp_path: Path) -> None:
    async def impatient(kept: Kept) -> None:
        kept.down = True
        with pytest.raises(errors.StoreFailed, match="the database is down"):
            await kept.keeper.begin(patiently=False)

    async def patient(kept: Kept) -> None:
        kept.down = True
        await kept.keeper.begin(patiently=True)
        assert kept.told == [False]
        with pytest.raises(errors.StoreFailed, match="nothing can be changed; what is served goes on"):
            await kept.operated.apply(ONE)
        assert kept.operated.manager.records == {}
        kept.down = False
        await kept.renew()
        assert (kept.told[0], kept.told[-1]) == (False, True)
        await kept.operated.apply(ONE)

    keep(tmp_path, impatient, patient)


def test_a_commit_whose_answer_was_lost_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The change is kept and its caller was told that it failed: the next look at the state shows it."""

    async def run(kept: Kept) -> None:
        await kept.keeper.begin(patiently=False)
        await kept.operated.apply(ONE)
        real = OwnedState.change

        def lossy(state: OwnedState, *arguments: Any) -> None:
            real(state, *arguments)
            raise errors.StoreFailed("the connection was lost")

        monkeypatch.setattr(OwnedState, "change", lossy)
        with pytest.raises(errors.StoreFailed):
            await kept.operated.operations.pause("m", "lunch", who="ada")
        monkeypatch.setattr(OwnedState, "change", real)
        with pytest.raises(errors.PreconditionFailed):
            await kept.operated.operations.scale("m", None, 2, who="ada")
        await kept.renew()
        assert kept.operated.desired.paused == {"m": "lunch"}
        await kept.operated.operations.scale("m", None, 2, who="ada")

    keep(tmp_path, run)


def test_a_reverted_change_is_kept_by_the_next_process_when_its_own_died(tmp_path: Path) -> None:
    """The controller put the record back, and died before the state knew."""
    saved: list[EndpointRecord] = []

    async def first(kept: Kept) -> None:
        await kept.keeper.begin(patiently=False)
        await kept.operated.apply(ONE)
        (tmp_path / "one.echo").write_text(ECHO + "# two\n")
        await kept.operated.apply(ONE)
        manager = kept.operated.manager
        manager.switched("m", "it has no weights")
        saved.append(manager.records["m"])

    async def second(kept: Kept) -> None:
        manager = kept.operated.manager
        manager.adopt(saved[0])
        await kept.keeper.begin(patiently=True)
        assert await manager.settle()
        assert manager.state is not None
        (record,) = manager.state.records()
        assert (record.before, record.traffic.targets) == (None, {"main": "m@1"})
        assert record == manager.records["m"]

    keep(tmp_path, first, second)


def test_what_another_owner_deleted_leaves(tmp_path: Path) -> None:
    async def run(kept: Kept) -> None:
        await kept.keeper.begin(patiently=False)
        await kept.operated.apply(ONE)
        state = kept.operated.manager.state
        assert state is not None
        state.change([], state.records(), [])
        kept.operated.manager.doubtful = True
        await kept.renew()
        assert kept.operated.manager.records == {}
        assert kept.operated.desired.deployments == {}

    keep(tmp_path, run)
