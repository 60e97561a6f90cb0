"""What can be done to endpoints while they are served, on real files and a real state."""

from __future__ import annotations

import asyncio
import hashlib
import pickle
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import yaml
from sklearn.dummy import DummyRegressor

from headrace.app.endpoints.operations import EndpointOperations
from headrace.app.state.owned_state import OwnedState
from headrace.control.deploying import Deploy
from headrace.core import errors
from headrace.core.endpoint_records import MANUAL
from headrace.core.slo import Slo
from tests.operated import ECHO, Operated

TWO = """\
endpoints:
  m:
    traffic: {a: 3, b: 1}
    deployments: {a: {model: one.echo}, b: {model: two.echo}}
"""
ONE = "endpoints: {m: {model: one.echo}}\n"


def operate(folder: Path, work: Callable[[Operated], Awaitable[None]], *, kept: bool = False) -> None:
    for name in ("one", "two", "three"):
        (folder / f"{name}.echo").write_text(ECHO)

    async def main() -> None:
        operated = Operated(folder)
        if kept:
            operated.manager.state = OwnedState(operated.location)
        try:
            await work(operated)
        finally:
            if operated.manager.state is not None:
                operated.manager.state.close()

    asyncio.run(main())


def test_a_file_is_planned_applied_and_planned_again(tmp_path: Path) -> None:
    async def work(operated: Operated) -> None:
        path = str(operated.file(TWO))
        (planned,) = await operated.operations.plan(TWO, path)
        assert (planned.kind, planned.generation) == ("create", 0)
        assert operated.manager.records == {}
        assert await operated.apply(TWO) == ["create m"]
        assert [change.kind for change in await operated.operations.plan(TWO, path)] == ["none"]
        assert await operated.apply(TWO.replace("a: 3", "a: 1")) == ["update m"]
        assert await operated.apply("endpoints: {}\n") == ["delete m"]
        assert operated.manager.records == {}

    operate(tmp_path, work)


def test_what_is_exported_changes_nothing_when_it_is_applied(tmp_path: Path) -> None:
    async def work(operated: Operated) -> None:
        await operated.apply(TWO)
        await operated.operations.set_traffic("m", {"a": 1, "b": 1}, who="ada", take_over=True)
        await operated.operations.scale("m", "a", 0, who="ada")
        text = operated.operations.export()
        (change,) = await operated.operations.plan(text, str(operated.folder / "exported.yaml"))
        assert (change.kind, change.fields, str(change.taken_from)) == ("update", (), "manual")

    operate(tmp_path, work)


def test_a_changed_file_is_another_version_that_takes_over_or_not(tmp_path: Path) -> None:
    async def work(operated: Operated) -> None:
        operations = operated.operations
        await operated.apply(ONE)
        (tmp_path / "one.echo").write_text(ECHO + "# two\n")
        assert await operated.apply(ONE) == ["update m"]
        assert operated.desired.traffic["m"].targets == {"main": "m@1"}
        await operated.settle()
        assert operated.desired.traffic["m"].targets == {"main": "m@2"}
        (tmp_path / "one.echo").write_text(ECHO + "# three\n")
        await operated.apply(ONE)
        wanted = operations.wanted("m")
        await operated.settle("m@3")
        assert operated.desired.traffic["m"].targets == operations.wanted("m").traffic.targets == {"main": "m@2"}
        assert operations.wanted("m").generation > wanted.generation

    operate(tmp_path, work, kept=True)


def test_a_pause_outlives_other_changes(tmp_path: Path) -> None:
    """Those that load, those that cannot, and files: only who resumes resumes."""

    async def work(operated: Operated) -> None:
        await operated.apply(ONE)
        (tmp_path / "one.echo").write_text(ECHO + "# two\n")
        await operated.apply(ONE)
        await operated.operations.pause("m", "lunch", who="ada")
        await operated.settle("m@2")
        assert operated.desired.paused == {"m": "lunch"}
        await operated.apply("endpoints: {m: {model: one.echo, timeout: 7}}\n")
        assert operated.desired.paused == {"m": "lunch"}
        await operated.operations.resume("m", who="ada")
        assert operated.desired.paused == {}

    operate(tmp_path, work)


def test_a_pause_or_scale_while_a_version_loads_keeps_the_way_back(tmp_path: Path) -> None:
    async def work(operated: Operated) -> None:
        await operated.apply(ONE)
        (tmp_path / "one.echo").write_text(ECHO + "# two\n")
        await operated.apply(ONE)
        await operated.operations.scale("m", None, 2, who="ada")
        assert operated.operations.wanted("m").before is not None
        await operated.settle("m@2")
        assert operated.operations.wanted("m").traffic.targets == {"main": "m@1"}

    operate(tmp_path, work)


def test_traffic_has_an_owner(tmp_path: Path) -> None:
    async def work(operated: Operated) -> None:
        await operated.apply(TWO)
        with pytest.raises(errors.Conflict, match=r"belongs to the file .*headrace.yaml; use --take-over"):
            await operated.operations.set_traffic("m", {"a": 1}, who="ada", take_over=False)
        record = await operated.operations.set_traffic("m", {"a": 1}, who="ada", take_over=True)
        assert (record.owner, record.traffic.policy.weights, record.document["traffic"]) == (MANUAL, {"a": 1}, {"a": 1})
        with pytest.raises(errors.Conflict, match="was set by hand"):
            await operated.apply(TWO)
        assert await operated.apply(TWO, take_over=True) == ["update m"]

    operate(tmp_path, work)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"c": 1}, "has no deployment 'c'; it has: a, b"),
        ({"a": 0, "b": 0}, "no deployment has a weight above 0; e.g. a=1"),
        ({}, "no deployment has a weight above 0"),
        ({"a": -1, "b": 1}, "a: expected a weight of at least 0, e.g. 5, got -1"),
        ({"a": float("nan")}, "expected a weight"),
    ],
)
def test_weights_are_checked(tmp_path: Path, weights: dict[str, float], message: str) -> None:
    async def work(operated: Operated) -> None:
        await operated.apply(TWO)
        before = operated.operations.wanted("m")
        with pytest.raises(errors.BadSettings, match=message):
            await operated.operations.set_traffic("m", weights, who="ada", take_over=True)
        assert operated.operations.wanted("m") == before

    operate(tmp_path, work)


def test_replicas_restarts_and_which_deployment(tmp_path: Path) -> None:
    async def work(operated: Operated) -> None:
        await operated.apply(TWO)
        operations = operated.operations
        with pytest.raises(errors.BadSettings, match="has several deployments; say which: a, b"):
            await operations.restart("m", None, who="ada")
        with pytest.raises(errors.UnknownModel, match="has no deployment 'c'; it has: a, b"):
            await operations.scale("m", "c", 2, who="ada")
        with pytest.raises(errors.BadSettings, match="from 0 to 1024, got 1025"):
            await operations.scale("m", "a", 1025, who="ada")
        with pytest.raises(errors.UnknownModel, match="there is no endpoint 'x'; there are: m"):
            await operations.pause("x", "", who="ada")
        record = await operations.scale("m", "a", 3, who="ada")
        assert record.document["deployments"]["a"]["replicas"] == 3
        assert operated.desired.deployments["m@1"].replicas == 3
        before = operated.desired.deployments["m@1"].load_key
        await operations.restart("m", "a", who="ada")
        restarted = operated.desired.deployments["m@1"].load_key
        assert restarted != before
        # A file says nothing of restarts: applied again, it starts none.
        await operated.apply(TWO.replace("a: 3", "a: 2"), take_over=True)
        assert operated.desired.deployments["m@1"].load_key == restarted

    operate(tmp_path, work)


def test_drain_gives_the_traffic_to_others(tmp_path: Path) -> None:
    async def work(operated: Operated) -> None:
        await operated.apply(TWO)
        record = await operated.operations.drain("m", "a", who="ada", take_over=True)
        assert record.traffic.policy.weights == {"b": 1}
        assert "m@1" in operated.desired.deployments
        with pytest.raises(errors.Conflict, match="no other deployment of endpoint 'm' takes traffic"):
            await operated.operations.drain("m", "b", who="ada", take_over=True)

    operate(tmp_path, work)


def test_a_caller_who_saw_another_generation_changes_nothing(tmp_path: Path) -> None:
    async def work(operated: Operated) -> None:
        await operated.apply(ONE)
        seen = operated.operations.wanted("m").generation
        await operated.operations.pause("m", "", who="ada", generation=seen)
        with pytest.raises(errors.PreconditionFailed, match=f"has generation {seen + 1} by now, not {seen}"):
            await operated.operations.resume("m", who="ada", generation=seen)
        with pytest.raises(errors.PreconditionFailed):
            await operated.operations.delete("m", who="ada", take_over=True, generation=seen)
        assert operated.desired.paused == {"m": "paused by ada"}

    operate(tmp_path, work)


def test_a_file_with_one_bad_model_changes_nothing(tmp_path: Path) -> None:
    async def work(operated: Operated) -> None:
        (tmp_path / "bad.onnx").write_bytes(b"no model")
        with pytest.raises(errors.LoadFailed, match=r"nothing was changed:\nendpoint 'bad' version 1: "):
            await operated.apply("endpoints: {bad: {model: bad.onnx}, m: {model: one.echo}}\n")
        assert operated.manager.records == {}

    operate(tmp_path, work)


def test_what_was_kept_is_what_is_served(tmp_path: Path) -> None:
    async def work(operated: Operated) -> None:
        await operated.apply(TWO)
        await operated.operations.pause("m", "lunch", who="ada")
        assert operated.manager.state is not None
        (kept,) = operated.manager.state.records()
        assert kept == operated.operations.wanted("m")
        await operated.operations.delete("m", who="ada", take_over=True)
        assert operated.manager.state.records() == []

    operate(tmp_path, work, kept=True)


def test_objectives_are_kept_planned_exported_and_published(tmp_path: Path) -> None:
    async def work(operated: Operated) -> None:
        await operated.apply("endpoints: {m: {model: one.echo, slo: {p99_ms: 50}}}\n")
        assert operated.desired.slos["m"] == operated.operations.wanted("m").slo == Slo(p99_ms=50.0)
        text = "endpoints: {m: {model: one.echo, slo: {p99_ms: 80, error_rate: 0.001}}}\n"
        (planned,) = await operated.operations.plan(text, str(operated.folder / "headrace.yaml"))
        assert [(f.path, f.before, f.after) for f in planned.fields] == [
            ("slo.p99_ms", 50, 80),
            ("slo.error_rate", None, 0.001),
        ]
        before = operated.operations.wanted("m").deployments
        await operated.apply(text)
        assert operated.operations.wanted("m").deployments == before, "nothing is started again"
        await operated.operations.scale("m", None, 2, who="ada")
        assert operated.desired.slos["m"] == Slo(80.0, 0.001)
        assert "slo:\n      p99_ms: 80\n      error_rate: 0.001\n" in operated.operations.export()
        assert operated.manager.state is not None
        (kept,) = operated.manager.state.records()
        assert kept.slo == Slo(80.0, 0.001)
        await operated.apply("endpoints: {}\n")
        assert operated.desired.slos == {}

    operate(tmp_path, work, kept=True)


def test_what_is_exported_says_what_is_trusted(tmp_path: Path) -> None:
    """Of files; who trusts versions is known in the registry. What serves already is not asked for again."""
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(DummyRegressor(strategy="mean")))
    digest = f"sha256:{hashlib.sha256((tmp_path / 'model.pkl').read_bytes()).hexdigest()}"
    (tmp_path / "pricer.py").write_text("import headrace\nclass Model(headrace.Model): ...\n")
    config = "endpoints: {m: {model: model.pkl}, p: {model: pricer.py}, one: {model: one.echo}, r: {model: r@1}}\n"

    async def work(operated: Operated) -> None:
        operated.register("r")
        for number in range(2):
            operated.register("m", f"{ECHO}# {number}\n")
        with pytest.raises(errors.LoadFailed, match="a pickle: loading it runs code"):
            await operated.apply(config)
        await operated.apply(f"trust: [{digest}]\n{config}")
        text = operated.operations.export()
        assert yaml.safe_load(text)["trust"] == [digest]
        other = tmp_path / "other"
        other.mkdir()
        fresh = Operated(other)
        fresh.location = operated.location
        fresh.operations = EndpointOperations(fresh.manager, operated.location)
        assert await fresh.apply(text) == ["create m", "create one", "create p", "create r"]
        assert fresh.operations.export() == text
        await fresh.operations.deploy(Deploy("m", "m@2", deployment="next", take_over=True), who="ada")
        (tmp_path / "model.pkl").write_bytes(pickle.dumps(DummyRegressor(strategy="median")))
        with pytest.raises(errors.LoadFailed, match="a pickle: loading it runs code"):
            await fresh.apply(text, take_over=True)

    operate(tmp_path, work)


def test_a_version_is_deployed_replaced_and_put_beside(tmp_path: Path) -> None:
    async def work(operated: Operated) -> None:
        operations = operated.operations
        for number in range(4):
            operated.register("fraud", f"{ECHO}# {number}\n")
        made = await operations.deploy(Deploy("fraud", "fraud@1", replicas=2), who="ada")
        assert (made.kind, made.owner, operations.wanted("fraud").document) == (
            "create",
            MANUAL,
            {"model": "fraud@1", "replicas": 2},
        )
        again = await operations.deploy(Deploy("fraud", "fraud@1"), who="ada")
        assert (again.kind, operations.wanted("fraud").generation) == ("none", 1)
        changed = await operations.deploy(Deploy("fraud", "fraud@2"), who="ada")
        assert [(f.path, f.before, f.after) for f in changed.fields] == [("model", "fraud@1", "fraud@2")]
        assert operated.desired.traffic["fraud"].targets == {"main": "fraud@1"}  # until the new one is ready
        await operated.settle()
        assert operated.desired.traffic["fraud"].targets == {"main": "fraud@2"}
        assert operated.desired.deployments["fraud@2"].replicas == 2
        await operations.deploy(Deploy("fraud", "fraud@3", deployment="next"), who="ada")
        record = operations.wanted("fraud")
        assert (record.traffic.targets, record.traffic.policy.weights) == (
            {"main": "fraud@2", "next": "fraud@3"},
            {"main": 1},
        )
        await operations.deploy(Deploy("fraud", "fraud@4", deployment="main"), who="ada")
        await operated.settle("fraud@4")
        assert operations.wanted("fraud").traffic.targets["main"] == "fraud@2"  # it cannot load

    operate(tmp_path, work)


def test_what_a_file_decides_is_not_deployed_over(tmp_path: Path) -> None:
    async def work(operated: Operated) -> None:
        operated.register("m", f"{ECHO}# pushed\n")
        await operated.apply("endpoints: {m: {model: one.echo, rollout: {canary: 5}}}\n")
        before = operated.operations.wanted("m")
        with pytest.raises(errors.Conflict, match="headrace rollout start m --to m@1"):
            await operated.operations.deploy(Deploy("m", "m@1"), who="ada")
        with pytest.raises(errors.PreconditionFailed):
            await operated.operations.deploy(Deploy("m", "m@1", take_over=True), who="ada", generation=7)
        with pytest.raises(errors.UnknownModel, match="there is no endpoint 'x'"):
            await operated.operations.deploy(Deploy("x", "m@1"), who="ada", generation=1)
        with pytest.raises(errors.UnknownModel):
            await operated.operations.deploy(Deploy("m", "m@9", take_over=True), who="ada")
        assert operated.operations.wanted("m") == before

    operate(tmp_path, work)
