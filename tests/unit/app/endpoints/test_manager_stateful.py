"""Changes, failures and restarts in any order: what serves was ready once, and what is kept is what serves in the end.

The manager, the keeper of the state and the switching are the real ones; the state is in memory, can be unreachable,
and may keep a change and not say so. Workers load when the test says so; some versions never can."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import hypothesis.strategies as st
import msgspec
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headrace.app.controller.state import ControllerState, LoadFailure, Switch
from headrace.app.controller.switching import move_when_ready
from headrace.app.endpoints.manager import EndpointManager
from headrace.app.state.keeper import StateKeeper
from headrace.app.state.location import Location
from headrace.app.state.owned_state import RENEW_EVERY_S, OwnedState
from headrace.control.observed import Desired, Observed
from headrace.control.rollout_story import Rollout
from headrace.core import errors
from headrace.core.answers import Answer
from headrace.core.endpoint_records import EndpointRecord
from headrace.core.endpoints import DeploymentSpec
from headrace.core.models import Artifact, Format
from headrace.core.traffic import MAIN, EndpointTraffic
from headrace.core.versions import Event

replace = msgspec.structs.replace
HERE = str(Path(__file__).parent)


class FakeState:
    """What ``OwnedState`` keeps, in memory, under the same rule: a generation follows the one before it."""

    def __init__(self) -> None:
        self.kept: dict[str, EndpointRecord] = {}
        self.told: list[Event] = []
        self.answers: dict[str, Answer] = {}
        self.reachable = True
        self.loses_answers = False
        self.registry = None

    def records(self) -> list[EndpointRecord]:
        self._reach()
        return list(self.kept.values())

    def active_rollouts(self) -> list[Rollout]:
        self._reach()
        return []

    def change(
        self,
        records: Sequence[EndpointRecord],
        deleted: Sequence[EndpointRecord],
        tell: Sequence[Event],
        rollouts: Sequence[Rollout] = (),
        answers: Sequence[Answer] = (),
    ) -> None:
        self._reach()
        for record in records:
            there = self.kept.get(record.name)
            if record.generation != (1 if there is None else there.generation + 1):
                raise errors.PreconditionFailed("changed by somebody else")
        for record in deleted:
            if self.kept[record.name].generation != record.generation:
                raise errors.PreconditionFailed("changed by somebody else")
        self.kept |= {record.name: record for record in records}
        for record in deleted:
            del self.kept[record.name]
        self.told += tell
        self.answers |= {answer.key: answer for answer in answers}
        if self.loses_answers:
            raise errors.StoreFailed("the connection was lost")

    def answer(self, key: str) -> Answer | None:
        self._reach()
        return self.answers.get(key)

    def renew(self) -> None:
        self._reach()

    def close(self) -> None:
        pass

    def _reach(self) -> None:
        if not self.reachable:
            raise errors.StoreFailed("the database is down")


class Controller:
    """One process: what the real controller does around the manager, without workers and gateways."""

    def __init__(self, state: FakeState, loop: asyncio.AbstractEventLoop, saved: ControllerState | None) -> None:
        self.desired, self.observed = Desired(), Observed()
        self.switches: dict[tuple[str, str], Switch] = {}
        self.now = 0.0
        self.loop = loop
        recorder = SimpleNamespace(set_state_reachable=lambda reachable: None)

        async def build() -> None:
            self.manager = EndpointManager(
                Path(HERE), self.desired, self.observed, self.switches, say=lambda event: None, changed=asyncio.Event()
            )
            if saved is not None:
                self._restore(saved)
            self.keeper = StateKeeper(
                self.manager,
                cast(Any, SimpleNamespace(resume=lambda rollouts: None)),
                Location(Path(HERE), None, HERE),
                cast(Any, recorder),
                "",
                open_state=lambda location, url: cast(OwnedState, opened(state)),
                clock=lambda: self.now,
            )
            await self.keeper.begin(patiently=saved is not None)

        def opened(state: FakeState) -> FakeState:
            state.renew()
            return state

        loop.run_until_complete(build())

    def _restore(self, saved: ControllerState) -> None:
        self.desired.deployments = {spec.id: spec for spec in saved.deployments}
        self.desired.traffic = dict(saved.traffic)
        self.switches.update({(s.endpoint, s.deployment): s for s in saved.switches})
        self.manager.records = {record.name: record for record in saved.records}
        self.desired.paused = {record.name: record.paused for record in saved.records if record.paused}
        for deployment, failure in saved.load_failures.items():
            self.observed.restarts_of(deployment).load_failure = failure.reason

    def save(self) -> ControllerState:
        failures = {d: LoadFailure(r.load_failure, "") for d, r in self.observed.restarts.items() if r.load_failure}
        return ControllerState(
            began=0.0,
            deployments=tuple(self.desired.deployments.values()),
            traffic=dict(self.desired.traffic),
            failures=(),
            switches=tuple(self.switches.values()),
            load_failures=failures,
            watched=None,
            records=tuple(self.manager.records.values()),
        )

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def renew(self) -> None:
        self.now += RENEW_EVERY_S
        self.run(self.keeper.renew())


class Serving(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.state = FakeState()
        self.ready: set[str] = set()
        """Versions whose workers are ready now."""
        self.was_ready: dict[str, set[str]] = {}
        """Versions that were, by endpoint, since it began to be served."""
        self.bad: set[str] = set()
        self.numbers = itertools.count(1)
        self.asked: list[str] = []
        """Idempotency keys of all changes."""
        self.controller = Controller(self.state, self.loop, None)
        self.saved = self.controller.save()

    def teardown(self) -> None:
        self.loop.close()

    # --- what people do ---

    def change(self, record: EndpointRecord, what: str, deleted: Sequence[str] = ()) -> None:
        manager = self.controller.manager
        key = f"key {next(self.numbers)}"
        self.asked.append(key)

        async def make() -> None:
            async with manager.lock:
                await manager.change(
                    [] if deleted else [record],
                    deleted=deleted,
                    what=what,
                    who="ada",
                    why=key,
                    answering=lambda made: Answer(key, what, 200, {}, str(len(made)), 0.0),
                )

        try:
            self.controller.run(make())
        except (errors.StoreFailed, errors.PreconditionFailed):
            # Or it was out of reach, and nobody has looked again.
            assert not self.state.reachable or self.state.loses_answers or manager.doubtful or manager.state is None
        else:
            for name in deleted:
                self.was_ready.pop(name, None)

    @rule(name=st.sampled_from("ab"), good=st.booleans())
    def apply(self, name: str, good: bool) -> None:
        spec = DeploymentSpec(name, str(next(self.numbers)), Artifact(HERE, Format.ONNX, "onnx", "sha256:aa"))
        if not good:
            self.bad.add(spec.id)
        known = self.controller.manager.records.get(name)
        paused = known.paused if known is not None else ""
        traffic = EndpointTraffic().aimed(MAIN, spec.id)
        self.change(EndpointRecord(name, {"model": spec.version}, (spec,), traffic, paused=paused), "endpoint.apply")

    @rule(name=st.sampled_from("ab"), what=st.sampled_from(["pause", "resume", "scale", "back", "delete"]))
    def by_hand(self, name: str, what: str) -> None:
        record = self.controller.manager.records.get(name)
        if record is None:
            return
        match what:
            case "pause" | "resume":
                self.change(replace(record, paused="lunch" if what == "pause" else ""), what)
            case "scale":
                (spec,) = record.deployments
                self.change(replace(record, deployments=(replace(spec, replicas=spec.replicas + 1),)), what)
            case "back" if record.before is not None:
                self.change(record.before, what)
            case "delete":
                self.change(record, what, deleted=[name])

    # --- what happens ---

    @rule(pick=st.integers(0, 9))
    def load(self, pick: int) -> None:
        """A version that is wanted becomes ready, or fails."""
        observed = self.controller.observed
        started = {spec.id for spec in self.saved.deployments}  # by a reconcile, which saves
        loading = [
            id
            for id in self.controller.desired.deployments
            if id in started and id not in self.ready and not observed.restarts_of(id).load_failure
        ]
        if not loading:
            return
        id = loading[pick % len(loading)]
        if id in self.bad:
            observed.restarts_of(id).load_failure = "it has no weights"
        else:
            self.ready.add(id)

    @rule()
    def reconcile(self) -> None:
        controller = self.controller
        move_when_ready(
            controller.desired,
            controller.observed,
            controller.switches,
            reachable=lambda spec: spec.id in self.ready,
            ended=controller.manager.switched,
        )
        self.ready &= controller.desired.deployments.keys()
        self.saved = controller.save()

    @rule()
    def settle(self) -> None:
        self.controller.run(self.controller.manager.settle())

    @rule()
    def renew(self) -> None:
        self.controller.renew()

    @rule()
    def controller_dies(self) -> None:
        """Its workers live on, and the next one goes on from what was saved at the last reconcile."""
        self.controller = Controller(self.state, self.loop, self.saved)

    @rule()
    def everything_dies(self) -> None:
        if self.state.reachable:
            self.ready.clear()
            self.was_ready.clear()
            self.controller = Controller(self.state, self.loop, None)
            self.saved = self.controller.save()

    @rule(reachable=st.booleans(), loses_answers=st.booleans())
    def network(self, reachable: bool, loses_answers: bool) -> None:
        self.state.reachable, self.state.loses_answers = reachable, loses_answers

    # --- what holds ---

    def serving(self) -> dict[str, str]:
        return {name: t.targets[MAIN] for name, t in self.controller.desired.traffic.items()}

    @invariant()
    def what_serves_was_ready(self) -> None:
        if not hasattr(self, "controller"):
            return
        for name, target in self.serving().items():
            assert target in self.controller.desired.deployments, "what serves is not kept running"
            seen = self.was_ready.setdefault(name, set())
            if target in self.ready:
                seen.add(target)
            assert not seen or target in seen, f"{target} serves and was never ready; before it {seen} did"
        for name in self.was_ready.keys() - self.serving().keys():
            del self.was_ready[name]

    @invariant()
    def paused_is_what_the_record_says(self) -> None:
        if hasattr(self, "controller"):
            paused = {name: r.paused for name, r in self.controller.manager.records.items() if r.paused}
            assert self.controller.desired.paused == paused

    @rule()
    def whoever_asks_again_hears_what_was_kept(self) -> None:
        if not self.state.reachable or self.controller.manager.state is None:
            return
        done = {event.why for event in self.state.told}
        for key in self.asked:
            earlier = self.controller.run(self.controller.manager.earlier(key))
            assert (earlier is not None) == (key in done)

    @rule()
    def what_is_kept_is_what_serves_in_the_end(self) -> None:
        """With the network back, and time for everything to load."""
        self.network(True, False)
        for _ in range(6):
            self.renew()
            self.reconcile()
            for _ in range(4):
                self.load(0)
            self.reconcile()
            self.settle()
            self.what_serves_was_ready()
        assert not self.controller.switches
        kept = self.state.kept
        assert kept == self.controller.manager.records
        assert {name: record.traffic.targets[MAIN] for name, record in kept.items()} == self.serving()
        for name, record in kept.items():
            assert record.before is None
            ever_worked = any(id not in self.bad for id in self.was_ready.get(name, ()))
            assert not ever_worked or record.traffic.targets[MAIN] not in self.bad, "a version that cannot load is kept"


TestServing = Serving.TestCase
TestServing.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
