"""Experiments in the controller: a real manager of endpoints, real indexes on disk, and logs as gateways write them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.app.endpoints.manager import EndpointManager
from headrace.app.experiments.book import ExperimentBook
from headrace.app.experiments.experiments import Experiments
from headrace.control.experiments.report import ExperimentReport
from headrace.control.observed import Desired, Observed
from headrace.core import errors, request_log
from headrace.core.endpoint_records import MANUAL, EndpointRecord, Owner, OwnerKind
from headrace.core.endpoints import DeploymentSpec
from headrace.core.experiments import BanditSettings, Joined, Outcome
from headrace.core.models import Artifact, Format
from headrace.core.request_log import SegmentHeader
from headrace.core.shadows import Shadow
from headrace.core.traffic import EndpointTraffic, Rule, Source, SourceKind, TrafficPolicy
from headrace.gateway.request_log import Segment

NAME = "org/fraud"
ARMS = ("champion", "challenger")


def record(owner: Owner = MANUAL, **policy: Any) -> EndpointRecord:
    specs = [
        DeploymentSpec(NAME, version, Artifact(f"/{version}.onnx", Format.ONNX, "onnx", f"sha256:{version}"))
        for version in ("1", "2")
    ]
    targets = {arm: spec.id for arm, spec in zip(ARMS, specs, strict=True)}
    made = TrafficPolicy({"champion": 90.0, "challenger": 10.0}, **policy)
    document = {"deployments": {arm: {"model": f"/{arm}.onnx"} for arm in ARMS}, "traffic": dict(made.weights)}
    return EndpointRecord(NAME, document, tuple(specs), EndpointTraffic(made, targets), owner)


class World:
    """A controller's part of experiments, without its processes."""

    def __init__(self, folder: Path, *, owns_state: bool = False, **policy: Any) -> None:
        self.desired = Desired()
        self.manager = EndpointManager(
            folder, self.desired, Observed(), {}, say=lambda _: None, changed=asyncio.Event()
        )
        self.manager.adopt(record(**policy))
        self.book = ExperimentBook(self.manager, owns_state=owns_state, retention_s=3600.0, most_requests=1000)
        self.experiments = Experiments(self.manager, self.book, followed=lambda _: True)

    @property
    def record(self) -> EndpointRecord:
        return self.manager.records[NAME]

    async def start(self, **more: Any) -> ExperimentReport:
        given: dict[str, Any] = {
            "arms": ARMS,
            "weights": None,
            "bandit": None,
            "metric": "reward",
            "confidence": 0.95,
            "who": "ada",
            "take_over": False,
            "generation": None,
        }
        given |= more
        return await self.experiments.start(NAME, given.pop("arms"), **given)

    def answer(self, **counts: int) -> list[str]:
        """A gateway answers so many requests by each arm."""
        route = self.desired.logs[NAME]
        segment = Segment(route, SegmentHeader(NAME, route.experiment, 0), 1 << 18)
        segment.append(request_log.shares({"champion": 0.5, "challenger": 0.5}))
        ids = [f"{arm}-{time.time_ns()}-{n}" for arm, count in counts.items() for n in range(count)]
        for request_id in ids:
            arm = request_id.partition("-")[0].encode()
            assert segment.append(request_log.answered(request_id, arm, time.time(), False, False))
        segment.close()
        return ids

    async def pay(self, ids: list[str], reward: Callable[[int], float]) -> list[Joined]:
        outcomes = [Outcome(request_id, reward(n)) for n, request_id in enumerate(ids)]
        return [receipt.status for receipt in await self.experiments.feedback(NAME, outcomes)]


def run(world: Callable[[], World], test: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        made = world()
        try:
            await asyncio.wait_for(test(made), 30.0)
        finally:
            await made.experiments.close()

    asyncio.run(main())


def test_an_experiment_owns_the_traffic_from_start_to_stop(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        begun = await world.start(weights={"champion": 3, "challenger": 1}, metric="clicks")
        experiment = begun.experiment
        assert world.record.owner == Owner(OwnerKind.EXPERIMENT, experiment.id)
        assert world.record.traffic.policy.weights == {"champion": 75.0, "challenger": 25.0}
        assert world.record.document["traffic"] == {"champion": 75, "challenger": 25}
        assert world.desired.logs[NAME].experiment == experiment.id
        assert [(arm.arm, arm.share) for arm in begun.arms] == [("champion", 0.75), ("challenger", 0.25)]
        assert await world.experiments.all() == [experiment]
        ids = world.answer(champion=3, challenger=2)
        ended = await world.experiments.stop(NAME, who="bob", generation=None)
        assert (ended.experiment.running, ended.experiment.why) == (False, "stopped by bob")
        assert world.record.owner == MANUAL
        assert world.record.traffic.policy.weights == {"champion": 75.0, "challenger": 25.0}
        assert not world.desired.logs
        assert await world.pay(ids, lambda _: 1.0) == [Joined.JOINED] * 5, "late outcomes count"
        assert [arm.outcomes for arm in (await world.experiments.report(NAME)).arms] == [3, 2]

    run(lambda: World(tmp_path), test)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"arms": ["champion"]}, "from 2 to 20 different deployments"),
        ({"arms": ["champion", "champion"]}, "different deployments"),
        ({"arms": ["champion", "nobody"]}, "no deployment 'nobody'; it has: champion, challenger"),
        ({"weights": {"champion": 1}}, "one above 0 for every arm"),
        ({"weights": {"champion": 1, "challenger": 0}}, "one above 0"),
        ({"weights": {"champion": 1, "challenger": float("nan")}}, "one above 0"),
        ({"confidence": 1.0}, "from 0.5 to below 1"),
        ({"bandit": BanditSettings(floor=0.6)}, "up to 50 %"),
        ({"bandit": BanditSettings(floor=0.0)}, "floor"),
        ({"bandit": BanditSettings(every_s=0.0)}, "every_s"),
    ],
)
def test_what_cannot_be_an_experiment_changes_nothing(tmp_path: Path, given: dict[str, Any], words: str) -> None:
    async def test(world: World) -> None:
        with pytest.raises(errors.BadSettings, match=words):
            await world.start(**given)
        assert world.record == record()
        assert await world.experiments.all() == []

    run(lambda: World(tmp_path), test)


def test_endpoints_whose_requests_chance_does_not_spread(tmp_path: Path) -> None:
    async def ruled(world: World) -> None:
        with pytest.raises(errors.BadSettings, match="has rules: where they decide chance does not"):
            await world.start()

    async def shadowed(world: World) -> None:
        with pytest.raises(errors.BadSettings, match="challenger is a shadow"):
            await world.start()

    rule = Rule(Source(SourceKind.HEADER, "x-plan"), ("gold",), "champion")
    run(lambda: World(tmp_path / "a", rules=(rule,)), ruled)
    run(lambda: World(tmp_path / "b", shadows=(Shadow("challenger", 10.0),)), shadowed)


def test_others_must_take_over_and_that_ends_it(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        with pytest.raises(errors.PreconditionFailed):
            await world.start(generation=7)
        first = (await world.start()).experiment
        with pytest.raises(errors.Conflict, match="belongs to the experiment"):
            await world.start()
        second = (await world.start(take_over=True)).experiment
        assert [e.why for e in await world.experiments.all()] == ["", f"experiment {second.id} took over"]
        async with world.manager.lock:
            taken = msgspec.structs.replace(world.record, owner=Owner(OwnerKind.FILE, "/x.yaml"))
            await world.manager.change([taken], what="endpoint.apply", who="bob")
        assert not world.desired.logs, "nobody logs for an experiment that does not own the traffic"
        await world.experiments.look()
        assert (await world.experiments.all())[0].why == "taken over (file /x.yaml)"
        with pytest.raises(errors.UnknownExperiment, match="no experiment runs"):
            await world.experiments.stop(NAME, who="bob", generation=None)
        assert first.id != second.id

    run(lambda: World(tmp_path), test)


def test_a_bandit_moves_when_it_matters(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.start(bandit=BanditSettings(every_s=0.1, minimum=50, floor=0.1))
        began = world.record.generation
        few = world.answer(champion=49, challenger=49)
        await world.pay(few, lambda n: float(n >= 49))
        await world.experiments.look()
        assert world.record.generation == began, "too few outcomes"
        more = world.answer(champion=100, challenger=100)
        await world.pay(more, lambda n: float(n >= 100))
        world.experiments._due.clear()
        await world.experiments.look()
        assert world.record.generation == began + 1
        assert world.record.traffic.policy.weights == {"champion": 10.0, "challenger": 90.0}
        assert (world.record.who, world.record.owner.kind) == ("headrace", OwnerKind.EXPERIMENT)
        world.experiments._due.clear()
        await world.experiments.look()
        assert world.record.generation == began + 1, "nothing new, nothing moved"

    run(lambda: World(tmp_path), test)


def test_a_controller_that_is_started_again_goes_on(tmp_path: Path) -> None:
    ids: list[str] = []
    kept: list[EndpointRecord] = []

    async def before(world: World) -> None:
        await world.start()
        ids.extend(world.answer(champion=2, challenger=2))
        await world.pay(ids[:2], lambda _: 1.0)
        ids.extend(world.answer(champion=1))
        kept.append(world.record)

    async def after(world: World) -> None:
        world.manager.adopt(kept[0])
        await world.experiments.look()
        (experiment,) = await world.experiments.all()
        assert experiment.running
        assert await world.pay(ids, lambda _: 1.0) == [Joined.UNCHANGED] * 2 + [Joined.JOINED] * 3
        assert [arm.requests for arm in (await world.experiments.report(NAME)).arms] == [3, 2]

    run(lambda: World(tmp_path), before)
    run(lambda: World(tmp_path), after)


def test_a_command_that_names_the_endpoint_again_leaves_it_to_the_experiment(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.start()
        owner = world.record.owner
        await world.manager.begin([record(Owner(OwnerKind.FILE, "/headrace.yaml"))])
        assert (world.record.owner, world.record.traffic.policy.weights["challenger"]) == (owner, 50.0)
        other = record()
        aimed = EndpointTraffic(TrafficPolicy({"main": 1.0}), {"main": f"{NAME}@1"})
        await world.manager.begin([msgspec.structs.replace(other, traffic=aimed)])
        assert world.record.owner == MANUAL, "its arms are gone"

    run(lambda: World(tmp_path), test)


def test_without_its_state_outcomes_are_taken_and_nothing_is_started(tmp_path: Path) -> None:
    """The state cannot be reached after a restart; gateways and callers go on."""

    async def before(world: World) -> None:
        await world.start()
        world.answer(champion=1)
        kept.append(world.record)

    async def after(world: World) -> None:
        world.manager.adopt(kept[0])
        await world.experiments.look()
        ids = world.answer(champion=1)
        assert await world.pay(ids, lambda _: 1.0) == [Joined.JOINED]
        for refused in (world.start(take_over=True), world.experiments.report(NAME)):
            with pytest.raises(errors.NotReady, match="the state cannot be reached"):
                await refused
        assert world.record == kept[0]

    kept: list[EndpointRecord] = []
    run(lambda: World(tmp_path), before)
    run(lambda: World(tmp_path, owns_state=True), after)


def test_what_keeps_it_from_going_on_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(world: World) -> None:
        await world.start()
        foreign = Path(world.desired.logs[NAME].directory) / "1.requests"
        foreign.write_bytes(b"GIF89a" + bytes(100))
        for _ in range(3):
            await world.experiments.look()
        with pytest.raises(errors.Corrupted, match=r"1\.requests: it is no request log; move it away"):
            await world.experiments.report(NAME)
        assert sum("1.requests" in str(r.__dict__) for r in caplog.records if "index" in str(r.__dict__)) == 1
        foreign.unlink()
        world.experiments._due.clear()
        await world.experiments.look()
        assert not world.experiments._troubles

    run(lambda: World(tmp_path), test)


def test_too_much_at_once_and_nothing_to_join(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        with pytest.raises(errors.UnknownExperiment, match="has had no experiment"):
            await world.experiments.feedback(NAME, [Outcome("x", 1.0)])
        with pytest.raises(errors.PayloadTooLarge, match="at most 10000"):
            await world.experiments.feedback(NAME, [Outcome("x", 1.0)] * 10_001)

    run(lambda: World(tmp_path), test)
