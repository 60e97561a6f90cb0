"""The controller in the test's process: what it orders, publishes and announces for what it hears."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.app import events, orders, sources
from headrace.app.controller.controller import Controller
from headrace.app.controller.role import ControllerRole
from headrace.app.settings.serve_settings import DeploymentSettings, EndpointSettings, ServeSettings
from headrace.app.sources import Candidate, Failure
from headrace.app.watching import Change
from headrace.control.observed import ObservedEnvironment
from headrace.core import errors
from headrace.core.endpoints import DeploymentSpec
from headrace.core.envelope import Splitter
from headrace.core.environments import EnvironmentSpec
from headrace.core.keys import KeySet, Scope
from headrace.core.load import DeploymentLoad, LoadReport
from headrace.core.models import Artifact, Format, LoadedModel
from headrace.core.replicas import ReplicaState
from headrace.core.traffic import TrafficPolicy
from headrace.gateway.settings import GatewaySettings
from tests.fakes import ROWS
from tests.issued import key, key_set

MODEL = LoadedModel("onnx_onnxv1", ROWS)
TRACE = "Traceback: it broke"


class Link:
    """A connected gateway, as the controller's server for gateways knows it."""

    def __init__(self, gateway: int) -> None:
        self.gateway = gateway

    def push(self, message: bytes) -> None: ...


class World:
    """A controller, and the test in the places of its supervisor, gateways and inspector."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, *, gateways: int = 1, **settings: Any) -> None:
        (directory / "metrics").mkdir(exist_ok=True)
        self._directory = directory
        self._patch = monkeypatch
        self._settings = ServeSettings(models=(), gateway=GatewaySettings(gateways=gateways), **settings)
        self.specs: list[DeploymentSpec | Failure] = []
        self.names: dict[str, str] = {}
        """Deployments by version; ``main`` for the others."""
        self.began = time.monotonic()
        self.now = time.monotonic()
        monkeypatch.setattr(sources, "discover", self._discover)
        monkeypatch.setattr(sources, "inspect", self._inspect)
        self.gateways = gateways
        self.start()

    def start(self) -> None:
        """A controller process begins (again)."""
        # Its predecessor is dead, only this process of the test is not.
        (self._directory / "metrics" / "controller.page").unlink(missing_ok=True)
        role = ControllerRole(self._settings, str(self._directory), -1, -1, "http://i", "http://m", self.began)
        self.controller = Controller(role)
        self._supervisor, self._link = socket.socketpair()
        self.controller.supervisor.attach(self._link)
        self._supervisor.setblocking(False)
        self._splitter = Splitter()
        for gateway in range(self.gateways):
            self.controller.routing.gateways._links.add(Link(gateway))  # type: ignore[arg-type]

    def stop(self) -> None:
        self._supervisor.close()
        self._link.close()

    def _discover(self, settings: ServeSettings) -> tuple[list[Candidate], list[Failure]]:
        return [candidate(s.endpoint, s.version, self.names.get(s.version, "main")) for s in self.specs], []

    async def _inspect(self, found: list[Candidate], trusted: object) -> list[DeploymentSpec | Failure]:
        wanted = {(s.endpoint, s.version): s for s in self.specs}
        return [wanted[c.endpoint, c.version] for c in found]

    def serve(self, *specs: DeploymentSpec | Failure) -> list[orders.Order]:
        """What was named is inspected; the first pass of the loop."""
        self.specs = list(specs)
        self.controller.hear(orders.Adopted(False, self.gateways))
        asyncio.run(self.controller.named.inspect())
        return self.reconcile()

    def reconcile(self, seconds: float = 0.0) -> list[orders.Order]:
        self.now += seconds
        self.controller.reconcile(self.now)
        return self.sent()

    def sent(self) -> list[orders.Order]:
        try:
            data = self._supervisor.recv(1 << 20)
        except BlockingIOError:
            return []
        return [msgspec.msgpack.decode(m, type=orders.Order) for m in self._splitter.feed(data)]

    def report(self, order: orders.StartWorker, state: ReplicaState, index: int = 0, reason: str = "") -> None:
        model = MODEL if state is ReplicaState.READY else None
        self.controller.hear(orders.ReplicaReport(order.worker, index, state, model, ((1, 0.1),), reason, TRACE))

    def ready(self, *started: orders.StartWorker) -> None:
        for order in started:
            for index in range(len(order.replicas)):
                for state in (ReplicaState.LOADING, ReplicaState.WARMING, ReplicaState.READY):
                    self.report(order, state, index)

    def exited(self, order: orders.StartWorker, reason: str = "signal", completed: int = 0) -> None:
        self.controller.hear(orders.WorkerExited(order.worker, reason, "the process died", completed, "last words"))

    def load(
        self, version: int | None = None, *, busy: tuple[str, ...] = (), unreachable: tuple[str, ...] = ()
    ) -> None:
        """Every gateway reports; it has the current table unless said otherwise."""
        known = self.controller.routes().version if version is None else version
        deployments = tuple(DeploymentLoad(d, 0, 0, 1, 5, 0, 1.0, 0.1, 64, "up to 64 rows: 1 ms") for d in busy)
        for gateway in range(self.gateways):
            report = LoadReport(gateway, known, False, deployments, unreachable)
            self.controller.routing.gateways.reported(report)

    def states(self) -> dict[str, list[str]]:
        """Replica states by deployment, as published."""
        table = self.controller.routes()
        return {d.id: [r.state.value for r in d.replicas] for e in table.endpoints for d in e.deployments}


def candidate(endpoint: str, version: str, deployment: str = "main") -> Candidate:
    return Candidate(endpoint, version, f"/{endpoint}", None, True, True, DeploymentSettings(), deployment)


def spec(endpoint: str = "m", version: str = "1", digest: str = "d1", **fields: Any) -> DeploymentSpec:
    return DeploymentSpec(endpoint, version, Artifact(f"/{endpoint}", Format.ONNX, "onnx", digest), **fields)


def starts(sent: list[orders.Order]) -> list[orders.StartWorker]:
    return [o for o in sent if isinstance(o, orders.StartWorker)]


def told(sent: list[orders.Order], kind: type[Any]) -> list[Any]:
    return [o.event for o in sent if isinstance(o, orders.Notify) and isinstance(o.event, kind)]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    worlds: list[World] = []

    def build(**settings: Any) -> World:
        worlds.append(World(tmp_path, monkeypatch, **settings))
        return worlds[-1]

    yield build
    for world in worlds:
        world.stop()


Make = Callable[..., World]


def test_from_inspection_to_serving(make: Make) -> None:
    world = make(gateways=2)
    sent = world.serve(spec(replicas=2), spec("n"))
    assert [e.endpoint for e in told(sent, events.ModelInspected)] == ["m", "n"]
    started = starts(sent)
    assert [o.deployments for o in started] == [("m@1",), ("m@1",), ("n@1",)]
    assert len({o.token for o in started}) == len({o.worker for o in started}) == 3
    assert len({r.id for o in started for r in o.replicas}) == 3
    assert world.reconcile() == []
    assert world.states() == {"m@1": ["starting", "starting"], "n@1": ["starting"]}
    world.ready(*started)
    assert told(world.reconcile(), events.Serving) == []
    version = world.controller.routes().version
    world.load(version - 1)
    assert told(world.reconcile(), events.Serving) == [], "gateways do not know the table yet"
    world.load(unreachable=("m@1#x",))
    assert told(world.reconcile(), events.Serving) == [], "a gateway cannot reach a replica"
    world.load()
    (serving,) = told(world.reconcile(), events.Serving)
    assert (serving.url, serving.gateways, [e.name for e in serving.endpoints]) == ("http://i", 2, ["m", "n"])
    assert world.controller.ready()
    world.load()
    assert world.reconcile(1.0) == [], "it is told once, and nothing is left to do"


def test_nothing_is_published_before_inspection(make: Make) -> None:
    """An empty table would make every gateway answer 404 for models that it serves."""
    world = make()
    world.controller.hear(orders.Adopted(True, 1))
    assert world.reconcile() == []
    assert world.controller.routes().version == 0


def test_table_changes_its_version_only_when_it_changes(make: Make) -> None:
    world = make()
    (order,) = starts(world.serve(spec()))
    before = world.controller.routes().version
    world.reconcile(1.0)
    assert world.controller.routes().version == before
    world.ready(order)
    world.reconcile()
    assert world.controller.routes().version == before + 1
    assert world.controller.routes().endpoints[0].deployments[0].warmup == ((1, 0.1),)


def test_death_restarts_at_once_and_then_more_and_more_slowly(make: Make) -> None:
    world = make()
    (order,) = starts(world.serve(spec()))
    world.ready(order)
    world.reconcile()
    delays = []
    for _ in range(4):
        world.exited(order)
        restarted = told(world.sent(), events.ReplicaRestarted)
        assert [e.reason for e in restarted] == ["the process died"]
        died = world.now = time.monotonic()
        while not (again := starts(world.reconcile())):
            world.now += 0.1
        delays.append(round(world.now - died, 1))
        (order,) = again
        world.ready(order)
    assert delays == [0.0, pytest.approx(0.5, abs=0.2), pytest.approx(1.0, abs=0.2), pytest.approx(2.0, abs=0.2)]
    world.exited(order, completed=1)
    world.now = time.monotonic()
    assert starts(world.reconcile()), "it had computed something: no backoff"


def test_model_that_dies_while_loading_is_given_up_with_its_last_words(make: Make) -> None:
    world = make()
    (order,) = starts(world.serve(spec(), spec("other")))[:1]
    for _ in range(4):
        world.report(order, ReplicaState.LOADING)
        world.exited(order)
        world.now = time.monotonic() + 100
        (order,) = [o for o in starts(world.reconcile()) if o.deployments == ("m@1",)]
    world.sent()
    world.exited(order)
    (failed,) = told(world.sent(), events.ModelFailed)
    assert "while loading, 5 times in a row" in failed.reason
    assert failed.log_tail == "last words"
    world.now += 1000
    assert starts(world.reconcile()) == []
    (m, other) = world.controller.routes().endpoints
    assert (m.deployments[0].failed, other.deployments[0].failed) == (True, False)


def test_model_that_fails_to_load_leaves_the_others_serving_and_is_told(make: Make) -> None:
    world = make()
    bad, good = starts(world.serve(spec("bad"), spec("good"), Failure("ugly", "1", "it is a pickle")))
    world.ready(good)
    world.report(bad, ReplicaState.LOADING)
    world.report(bad, ReplicaState.FAILED, reason="no such file")
    sent = world.reconcile()
    (failed,) = told(sent, events.ModelFailed)
    assert (failed.endpoint, failed.reason, failed.log_tail) == ("bad", "no such file", TRACE)
    world.load()
    sent = world.reconcile()
    assert told(sent, events.Serving), "all that could start has started"
    assert [o.worker for o in sent if isinstance(o, orders.StopWorker)] == [bad.worker]
    assert not world.controller.ready()
    reasons = {e.name: e.deployments[0].reason for e in world.controller.routes().endpoints}
    assert reasons == {"bad": "no such file", "good": "", "ugly": "it is a pickle"}
    world.exited(bad, reason="exit")
    assert starts(world.reconcile(100.0)) == []


def test_sibling_that_cannot_load_any_more_does_not_take_the_serving_replica_along(make: Make) -> None:
    world = make()
    first, second = starts(world.serve(spec(replicas=2)))
    world.ready(first, second)
    world.load()
    world.reconcile()
    world.exited(second, completed=9)
    world.now = time.monotonic()
    (again,) = starts(world.reconcile())
    world.report(again, ReplicaState.LOADING)
    world.report(again, ReplicaState.FAILED, reason="the file is gone")
    for _ in range(3):
        world.load()
        sent = world.reconcile(1.0)
        assert first.worker not in [o.worker for o in sent if isinstance(o, orders.StopWorker)]
    assert "ready" in world.states()["m@1"]


def test_new_controller_goes_on_with_the_workers_that_live(make: Make) -> None:
    world = make()
    started = starts(world.serve(spec(replicas=2)))
    world.ready(*started)
    world.load()
    world.reconcile()
    table = world.controller.routes()
    lives = [
        orders.LiveWorker(o, "unix:/x", "/s", (orders.ReplicaReport(o.worker, 0, ReplicaState.READY, MODEL),))
        for o in started[:1]
    ]
    world.stop()
    world.start()
    assert world.controller.routes().epoch >= table.epoch
    for live in lives:
        world.controller.hear(live)
    world.controller.hear(orders.Adopted(True, 1))
    world.specs = []
    sent = world.reconcile()
    assert [o.deployments for o in starts(sent)] == [("m@1",)], "only the one that died meanwhile is replaced"
    assert not [o for o in sent if isinstance(o, orders.StopWorker)]
    assert sorted(world.states()["m@1"]) == ["ready", "starting"]
    world.ready(*starts(sent))
    world.load()
    assert told(world.reconcile(), events.Serving) == [], "that was announced by its predecessor"


def test_another_run_does_not_take_the_state_over(make: Make) -> None:
    world = make()
    world.serve(spec())
    world.stop()
    world.began += 1
    world.start()
    assert not world.controller.named.inspected


def change(endpoint: str, version: str, replaces: str | None, deployment: str = "main") -> Change:
    return Change(candidate(endpoint, version, deployment), replaces)


def test_new_version_takes_over_when_every_gateway_can_reach_it(make: Make) -> None:
    world = make(gateways=2)
    (old,) = starts(world.serve(spec()))
    world.ready(old)
    world.load()
    world.reconcile()
    world.specs.append(spec(version="2", digest="d2"))
    asyncio.run(world.controller.named.deploy(change("m", "2", "1")))
    (new,) = starts(world.reconcile())
    assert world.controller.routes().endpoints[0].traffic == {"m@1": 1.0}
    world.ready(new)
    world.reconcile()
    world.load(unreachable=(new.replicas[0].id,))
    world.reconcile()
    assert world.controller.routes().endpoints[0].traffic == {"m@1": 1.0}
    world.load(busy=("m@1",))
    world.reconcile()
    assert world.controller.routes().endpoints[0].traffic == {"m@2": 1.0}
    world.load(busy=("m@1",))
    sent = world.reconcile(1.0)
    assert [(e.version, e.replaced) for e in told(sent, events.VersionLoaded)] == [("2", "1")]
    assert not [o for o in sent if isinstance(o, orders.StopWorker)], "the old version still has work"
    world.load()
    assert [o.worker for o in world.reconcile(1.0) if isinstance(o, orders.StopWorker)] == [old.worker]
    world.exited(old, reason="exit")
    assert told(world.reconcile(1.0), events.ReplicaRestarted) == []
    assert world.states() == {"m@2": ["ready"]}


@pytest.mark.parametrize("how", ["inspection", "load"])
def test_bad_new_version_leaves_the_old_one_serving_and_says_why(make: Make, how: str) -> None:
    world = make()
    (old,) = starts(world.serve(spec()))
    world.ready(old)
    world.load()
    world.reconcile()
    bad: DeploymentSpec | Failure = spec(version="2", digest="d2") if how == "load" else Failure("m", "2", "broken")
    world.specs.append(bad)
    asyncio.run(world.controller.named.deploy(change("m", "2", "1")))
    sent = world.reconcile()
    if how == "load":
        (new,) = starts(sent)
        world.report(new, ReplicaState.FAILED, reason="broken")
        sent = world.reconcile()
    assert [e.reason for e in told(sent, events.ModelFailed)] == ["broken"]
    world.load()
    sent = world.reconcile(1.0)
    assert old.worker not in [o.worker for o in sent if isinstance(o, orders.StopWorker)]
    assert world.controller.routes().endpoints[0].traffic == {"m@1": 1.0}
    assert world.states()["m@1"] == ["ready"]


def test_drain_ends_after_a_while_whatever_gateways_say(make: Make) -> None:
    world = make()
    (order,) = starts(world.serve(spec()))
    world.ready(order)
    world.load()
    world.reconcile()
    world.controller._desired.deployments.clear()
    world.controller._desired.traffic.clear()
    world.reconcile()
    world.load(busy=("m@1",))
    assert not [o for o in world.reconcile(59.0) if isinstance(o, orders.StopWorker)]
    world.load(busy=("m@1",))
    assert [o for o in world.reconcile(2.0) if isinstance(o, orders.StopWorker)]


def test_explained_batching_is_told_when_the_verdict_changes(make: Make) -> None:
    world = make(explain_batching=True)
    (order,) = starts(world.serve(spec()))
    world.ready(order)
    world.reconcile()
    for _ in range(3):
        world.load(busy=("m@1",))
    (explained,) = told(world.sent(), events.BatchingExplained)
    assert (explained.deployment, explained.explanation) == ("m@1", "up to 64 rows: 1 ms")


def test_reports_about_workers_that_are_gone_are_ignored(make: Make) -> None:
    world = make()
    (order,) = starts(world.serve(spec()))
    world.exited(order)
    world.sent()
    world.report(order, ReplicaState.READY)
    world.exited(order)
    assert world.sent() == []


def test_what_the_management_api_reads(make: Make) -> None:
    world = make()
    (order,) = starts(world.serve(spec()))
    replica = order.replicas[0].id
    world.load()
    assert len(world.controller.loads()) == 1
    assert world.controller.log_tail(replica) == ""
    world.controller.hear(orders.WorkerLog(order.worker, "printed"))
    assert world.controller.log_tail(replica) == "printed"
    with pytest.raises(errors.UnknownModel):
        world.controller.log_tail("nobody")
    assert world.controller.events(10)[0]["type"] == "ModelInspected"
    assert world.controller.events(0) == []


SPLIT = {"m": EndpointSettings(TrafficPolicy({"champion": 3.0, "challenger": 1.0}))}


def split(make: Make, **settings: Any) -> tuple[World, orders.StartWorker, orders.StartWorker]:
    """A champion (version 1) and a challenger (2) that are asked for and start."""
    world = make(endpoints=SPLIT, **settings)
    world.names = {"1": "champion", "2": "challenger", "3": "challenger"}
    champion, challenger = starts(world.serve(spec(), spec(version="2", digest="d2")))
    return world, champion, challenger


def traffic(world: World) -> dict[str, float]:
    return world.controller.routes().endpoints[0].traffic


def test_a_deployment_that_starts_late_gets_its_share_when_it_is_ready(make: Make) -> None:
    world, champion, challenger = split(make)
    assert traffic(world) == {"m@1": 0.75, "m@2": 0.25}
    world.ready(champion)
    assert told(world.reconcile(), events.TrafficShifted) == []
    assert traffic(world) == {"m@1": 1.0}
    world.ready(challenger)
    world.reconcile()
    world.load()
    sent = world.reconcile()
    assert (told(sent, events.TrafficShifted), len(told(sent, events.Serving))) == ([], 1)
    assert traffic(world) == {"m@1": 0.75, "m@2": 0.25}


def test_who_takes_the_traffic_of_a_dead_deployment_is_told_once_and_when_it_is_over(make: Make) -> None:
    world, champion, challenger = split(make)
    world.ready(champion, challenger)
    world.reconcile()
    world.load()
    world.reconcile()
    world.exited(champion, completed=1)
    sent = world.reconcile(1.0)
    assert told(sent, events.TrafficShifted) == [events.TrafficShifted("m", ("champion",), {"challenger": 1.0})]
    assert told(world.reconcile(), events.TrafficShifted) == []
    (again,) = starts(sent)
    world.ready(again)
    (back,) = told(world.reconcile(), events.TrafficShifted)
    assert back == events.TrafficShifted("m", (), {"champion": 0.75, "challenger": 0.25})


def test_a_deployment_that_cannot_load_is_said_to_be_out_and_the_server_is_not_ready(make: Make) -> None:
    world, champion, challenger = split(make)
    world.ready(champion)
    world.report(challenger, ReplicaState.FAILED, reason="no weights")
    world.reconcile()
    world.load()
    sent = world.reconcile()
    assert len(told(sent, events.Serving)) == 1
    assert told(sent, events.TrafficShifted) == [events.TrafficShifted("m", ("challenger",), {"champion": 1.0})]
    assert not world.controller.ready()


def test_a_deployment_whose_file_is_bad_keeps_its_name(make: Make) -> None:
    world = make(endpoints=SPLIT)
    world.names = {"1": "champion", "2": "challenger"}
    (champion,) = starts(world.serve(spec(), Failure("m", "2", "no model")))
    world.ready(champion)
    world.reconcile()
    endpoint = world.controller.routes().endpoints[0]
    assert [(d.name, d.failed) for d in endpoint.deployments] == [("champion", False), ("challenger", True)]
    assert endpoint.traffic == {"m@1": 1.0}
    world.specs.append(spec(version="3", digest="d3"))
    asyncio.run(world.controller.named.deploy(change("m", "3", "2", "challenger")))
    (mended,) = starts(world.reconcile())
    world.ready(mended)
    world.reconcile()
    assert traffic(world) == {"m@1": 0.75, "m@3": 0.25}


def test_a_change_switches_its_own_deployment_only_also_after_a_restart(make: Make) -> None:
    world, champion, challenger = split(make)
    world.ready(champion, challenger)
    world.reconcile()
    world.load()
    world.reconcile()
    world.specs.append(spec(version="3", digest="d3"))
    asyncio.run(world.controller.named.deploy(change("m", "3", "2", "challenger")))
    (new,) = starts(world.reconcile())
    assert traffic(world) == {"m@1": 0.75, "m@2": 0.25}
    assert [(s.deployment, s.new, s.old) for s in world.controller._switches.values()] == [("challenger", "m@3", "m@2")]
    saved = world.controller._memory._saved
    world.stop()
    world.start()
    assert world.controller._switches.keys() == {("m", "challenger")}
    assert saved is not None
    assert world.controller._desired.traffic == saved.traffic
    live = [orders.LiveWorker(o, f"unix:/{o.worker}", "", ()) for o in (champion, challenger, new)]
    for worker in live:
        world.controller.hear(worker)
    world.controller.hear(orders.Adopted(True, 1))
    world.ready(champion, challenger, new)
    world.reconcile()
    world.load()
    sent = world.reconcile()
    assert traffic(world) == {"m@1": 0.75, "m@3": 0.25}
    world.load()
    sent += world.reconcile()
    assert [(e.version, e.replaced) for e in told(sent, events.VersionLoaded)] == [("3", "2")]


# --- environments of versions ---

ENVIRONMENT = EnvironmentSpec("k" * 64, ("numpy==1.26.4",), ())


class Environments:
    """Takes the controller's wishes and builds nothing."""

    def __init__(self, world: World, python: str = "/envs/kk/bin/python") -> None:
        self.asked: list[EnvironmentSpec] = []
        self.kept: list[set[str]] = []
        self._python = python
        self.observed = world.controller._observed.environments
        world.controller.workers._environments = self  # type: ignore[assignment]

    def ensure(self, spec: EnvironmentSpec) -> None:
        self.asked.append(spec)
        self.observed[spec.key] = ObservedEnvironment(reason="building its environment")

    def python(self, spec: EnvironmentSpec) -> str:
        return self._python

    def keep_only(self, keys: set[str]) -> None:
        self.kept.append(keys)


def test_a_version_starts_when_its_environment_is_built(make: Make) -> None:
    world = make()
    environments = Environments(world)
    (plain,) = starts(world.serve(spec("old", environment=ENVIRONMENT), spec("new")))
    assert (plain.deployments, plain.python) == (("new@1",), None)
    assert environments.asked == [ENVIRONMENT]
    route = world.controller.routes().endpoints[1].deployments[0]
    assert (route.reason, route.failed) == ("building its environment", False)
    world.ready(plain)
    world.load()
    assert told(world.reconcile(), events.Serving) == [], "it is not settled"
    assert world.controller.workers.deployments_in(ENVIRONMENT.key) == ("old@1",)
    environments.observed[ENVIRONMENT.key] = ObservedEnvironment(python="/envs/kk/bin/python")
    (old,) = starts(world.reconcile())
    assert (old.deployments, old.python) == (("old@1",), "/envs/kk/bin/python")
    world.reconcile()
    assert environments.kept[-1] == {ENVIRONMENT.key, "kk"}, "what is wanted, and what a worker runs in"


def test_an_environment_that_cannot_be_built_fails_its_deployments_only(make: Make) -> None:
    world = make()
    Environments(world)
    (plain,) = starts(world.serve(spec("old", environment=ENVIRONMENT), spec("new")))
    world.ready(plain)
    world.controller.workers.environment_failed(ENVIRONMENT.key, "there is no such package", "uv said so")
    (failed,) = told(world.reconcile(), events.ModelFailed)
    assert (failed.endpoint, failed.reason, failed.log_tail) == ("old", "there is no such package", "uv said so")
    route = world.controller.routes().endpoints[1].deployments[0]
    assert (route.reason, route.failed) == ("there is no such package", True)
    world.load()
    assert told(world.reconcile(), events.Serving) != []


def test_other_packages_are_another_version_unless_it_could_not_be_served(make: Make) -> None:
    world = make()
    Environments(world)
    world.serve(spec(environment=ENVIRONMENT))
    other = EnvironmentSpec("o" * 64, ("numpy==1.26.3",), ())
    world.specs = [spec(environment=other)]
    asyncio.run(world.controller.named.deploy(change("m", "1", None)))
    (failed,) = told(world.sent(), events.ModelFailed)
    assert "a version that is served does not change" in failed.reason
    world.controller.workers.environment_failed(ENVIRONMENT.key, "there is no such package", "")
    asyncio.run(world.controller.named.deploy(change("m", "1", None)))
    world.reconcile()
    assert world.controller.workers.deployments_in(other.key) == ("m@1",)


class Recorder(Link):
    """A gateway that keeps what it is pushed."""

    def __init__(self, pushed: list[bytes]) -> None:
        super().__init__(0)
        self.push = pushed.append  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("gateway", "stored", "required"),
    [
        (GatewaySettings(), key_set(required=False), False),
        (GatewaySettings(), key_set(key("ci", Scope.ADMIN)), True),
        (GatewaySettings(host="0.0.0.0"), key_set(required=False), True),
        (GatewaySettings(host="0.0.0.0", no_auth=True), key_set(required=False), False),
        (GatewaySettings(no_auth=True), key_set(key("ci", Scope.ADMIN)), False),
    ],
)
def test_when_keys_are_asked_for(tmp_path: Path, gateway: GatewaySettings, stored: KeySet, required: bool) -> None:
    (tmp_path / "metrics").mkdir()
    settings = ServeSettings(models=(), gateway=gateway)
    controller = Controller(ControllerRole(settings, str(tmp_path), -1, -1, "http://i", "http://m", 0.0))
    pushed: list[bytes] = []
    controller.routing.gateways.joined(Recorder(pushed))  # type: ignore[arg-type]
    with pytest.raises(errors.NotReady):
        controller._guard.identify({})
    controller._take_keys(stored)
    if required:
        with pytest.raises(errors.Unauthorized):
            controller._guard.identify({})
    else:
        controller._guard.identify({})
    (message,) = pushed
    (body,) = Splitter().feed(message)
    assert msgspec.msgpack.decode(body, type=KeySet) == msgspec.structs.replace(stored, required=required)
