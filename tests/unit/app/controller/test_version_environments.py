"""Environments as the controller has them: built offline by uv, told as events, held while they are used."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from headrace.app import events
from headrace.app.controller.version_environments import VersionEnvironments
from headrace.backends.environments import building, specification
from headrace.backends.environments.folder import EnvironmentsFolder
from headrace.control.observed import Observed
from headrace.core import errors
from headrace.core.environments import EnvironmentSpec
from headrace.runtimes.needs import WORKER
from tests.fakes import until
from tests.wheels import offline, wheel, worker_wheels


class Controller:
    """What a controller hears."""

    def __init__(self, folder: Path) -> None:
        self.observed = Observed()
        self.said: list[events.Event] = []
        self.failed: list[tuple[str, str, str]] = []
        self.changes = 0
        self.environments = VersionEnvironments(folder, self.observed, self, self.said.append)

    def changed(self) -> None:
        self.changes += 1

    def deployments_in(self, key: str) -> tuple[str, ...]:
        return ("fraud@7",)

    def environment_failed(self, key: str, reason: str, log_tail: str) -> None:
        self.failed.append((key, reason, log_tail))

    async def ended(self) -> events.EnvironmentDone:
        def done() -> list[events.EnvironmentDone]:
            return [event for event in self.said if isinstance(event, events.EnvironmentDone)]

        await until(done)
        return done()[-1]


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Controller:
    worker_wheels(tmp_path / "wheels")
    wheel(tmp_path / "wheels", "tiny", "1.0")
    for name, value in offline(tmp_path / "wheels", tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    return Controller(tmp_path / "environments")


def spec(*lines: str) -> EnvironmentSpec:
    return specification.specify(lines or ("tiny==1.0",), WORKER)


def test_a_build_is_told_and_its_python_known(controller: Controller, tmp_path: Path) -> None:
    async def scenario() -> None:
        wanted = spec()
        controller.environments.ensure(wanted)
        controller.environments.ensure(wanted)
        reasons = {controller.observed.environments[wanted.key].reason}
        assert reasons == {"building its environment (looking for its packages)"}
        done = await controller.ended()
        begun, *progress, ended = controller.said
        assert (begun, ended) == (events.EnvironmentBuilding(wanted.short, ("fraud@7",), ("tiny==1.0",)), done)
        assert [event.progress for event in progress if isinstance(event, events.EnvironmentProgress)] == [
            "building its environment (3 packages resolved)",
            "building its environment (3 packages resolved, 3 installed)",
        ]
        assert (done.outcome, done.deployments) == ("built", ("fraud@7",))
        await until(lambda: controller.changes > 2)
        python = controller.environments.python(wanted)
        assert python == str(EnvironmentsFolder(tmp_path / "environments").python(wanted.key))

    asyncio.run(scenario())


def test_what_is_used_is_held_and_let_go(controller: Controller, tmp_path: Path) -> None:
    folder = EnvironmentsFolder(tmp_path / "environments")

    async def scenario() -> None:
        controller.environments.ensure(spec())
        await controller.ended()
        assert folder.in_use(spec().key)
        controller.environments.keep_only({spec().key})
        assert folder.in_use(spec().key)
        controller.environments.keep_only(set())
        assert not folder.in_use(spec().key)
        assert controller.observed.environments == {}
        controller.said.clear()
        controller.environments.ensure(spec())
        assert (await controller.ended()).outcome == "reused"
        assert len(controller.said) == 1, "nothing was built"

    asyncio.run(scenario())


def test_a_failure_is_told_with_what_uv_wrote(controller: Controller) -> None:
    async def scenario() -> None:
        wanted = spec("absent==1.0")
        controller.environments.ensure(wanted)
        assert (await controller.ended()).outcome == "failed"
        await until(lambda: controller.failed)
        ((key, reason, tail),) = controller.failed
        assert key == wanted.key
        assert reason.startswith("its environment could not be built: ")
        assert "What to do: check the name" in reason
        assert "absent==1.0" in tail
        assert wanted.key not in controller.observed.environments, "a version that comes later may try again"

    asyncio.run(scenario())


def test_an_environment_that_has_gone_is_built_again(controller: Controller, tmp_path: Path) -> None:
    async def scenario() -> None:
        controller.environments.ensure(spec())
        await controller.ended()
        shutil.rmtree(tmp_path / "environments" / spec().key)
        assert controller.environments.python(spec()) is None
        controller.said.clear()
        controller.environments.ensure(spec())
        assert (await controller.ended()).outcome == "built"
        assert controller.environments.python(spec()) is not None

    asyncio.run(scenario())


def test_our_own_mistake_does_not_leave_the_deployment_waiting(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(building, "_build", broken)

    async def scenario() -> None:
        controller.environments.ensure(spec())
        await until(lambda: controller.failed)
        assert controller.failed[0][1] == "its environment could not be built: ZeroDivisionError: oops"

    asyncio.run(scenario())


def test_two_are_built_at_a_time_and_the_others_say_that_they_wait(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    building_now: list[str] = []
    gate = asyncio.Event()

    async def build(folder: EnvironmentsFolder, wanted: EnvironmentSpec, *_: object) -> None:
        building_now.append(wanted.key)
        await gate.wait()
        raise errors.LoadFailed("enough of it")

    monkeypatch.setattr(building, "_build", build)
    wanted = [spec(f"tiny=={number}.0") for number in range(4)]

    async def scenario() -> None:
        for one in wanted:
            controller.environments.ensure(one)

        def waiting() -> list[str]:
            found = controller.observed.environments
            return [one.key for one in wanted if "waits for its turn: 2 are built at a time" in found[one.key].reason]

        await until(lambda: len(building_now) == 2 and len(waiting()) == 2)
        assert set(building_now).isdisjoint(waiting())
        told = [event for event in controller.said if isinstance(event, events.EnvironmentBuilding)]
        assert len(told) == 2, "nobody is told that a build begins which does not"
        gate.set()
        await until(lambda: len(controller.failed) == 4)
        assert sorted(building_now) == sorted(one.key for one in wanted), "one that fails gives its turn back"
        assert not controller.environments.turns.locked()

    asyncio.run(scenario())
