"""Drives rollouts: looks at what gateways count, has it judged, takes the next step, and goes back when harm is proven.

The rules are pure (``control/rollout.py``, ``control/analysis``); here is what they are told and what becomes of their
decisions. A rollout's state is kept with every move, so that a controller that starts again goes on with it.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from headrace.app import events
from headrace.app.endpoints.manager import EndpointManager
from headrace.app.rollouts import measuring
from headrace.app.rollouts.beginning import Beginning
from headrace.app.rollouts.following import AliasFollower
from headrace.app.state.location import Location
from headrace.control import rollout as rules
from headrace.control import rollout_state, rollout_traffic
from headrace.control.analysis import verdict as verdicts
from headrace.control.analysis.settings import MetricSettings
from headrace.control.analysis.verdict import Finding, Verdict
from headrace.control.endpoint_changes import owned_by_another
from headrace.control.golden import GoldenReport
from headrace.control.observed import Desired, Observed
from headrace.control.rollout import Command, Decision, Readiness, Seen
from headrace.control.rollout_plan import RolloutRequest
from headrace.control.rollout_state import Phase
from headrace.control.rollout_story import Rollout, StoryLine
from headrace.control.trial_sums import TrialSums
from headrace.core import errors
from headrace.core.answers import Answer, Answering
from headrace.core.endpoint_records import EndpointRecord, OwnerKind
from headrace.core.endpoints import DeploymentSpec
from headrace.core.load import LoadReport
from headrace.core.replicas import ReplicaState
from headrace.core.tallies import Measurement
from headrace.core.versions import Event
from headrace.telemetry import logging

TICK_S = 0.1
FOLLOW_S = 2.0
"""Between looks at the aliases that are followed."""
LOOK_S = 10.0
"""Between looks at what gateways have counted; shorter where the blocks of the analysis are."""

replace = msgspec.structs.replace


class _Live:
    """What a rollout under way needs beside its own value, in this process only."""

    def __init__(self, rollout: Rollout) -> None:
        self.sums = TrialSums(rollout.endpoint, rollout.spec.new)
        self.looked = time.monotonic()
        self.judged_step = rollout.state.step
        self.asking: asyncio.Task[None] | None = None
        self.measurements: list[Measurement] = []
        """For the next look."""
        self.measuring: list[asyncio.Task[None]] = []


class Rollouts:
    """On the controller's event loop."""

    def __init__(
        self,
        manager: EndpointManager,
        location: Location,
        desired: Desired,
        observed: Observed,
        *,
        loads: Callable[[], list[LoadReport]],
        reachable: Callable[[DeploymentSpec], bool],
        golden: Callable[[Rollout, DeploymentSpec], Awaitable[GoldenReport]],
        say: Callable[[events.Event], None],
        changed: asyncio.Event,
        visible: Callable[[], Awaitable[None]],
    ) -> None:
        self.active: dict[str, Rollout] = {}
        """By endpoint."""
        self._manager = manager
        self._desired = desired
        self._observed = observed
        self._loads = loads
        self._reachable = reachable
        self._golden = golden
        self._say = say
        self._changed = changed
        self._visible = visible
        self._live: dict[str, _Live] = {}
        self._deciding = asyncio.Lock()
        """A command and the loop take turns."""
        self._unkept: dict[str, tuple[Rollout, str, Sequence[Answer]]] = {}
        """Ends that the state could not be told yet, by id, who ended them, and what they were answered."""
        self._ended: dict[str, Rollout] = {}
        """The last one of each endpoint, for servers that keep no state."""
        self._beginning = Beginning(manager, location)
        self._aliases = AliasFollower(self, manager, location)
        self._log = logging.Log("headrace.controller")

    # --- what people ask for; what ``answering`` makes of the rollout is kept with its move ---

    async def earlier(self, key: str) -> Answer | None:
        """What was answered to an idempotency key before. Raises StoreFailed."""
        return await self._manager.earlier(key)

    async def start(self, wanted: RolloutRequest, *, who: str, answering: Answering[Rollout] | None = None) -> Rollout:
        """Begin: the new version starts beside the old one. Raises Conflict, UnknownModel, BadSettings, LoadFailed."""
        manager = self._manager
        async with manager.lock:
            record = manager.require(wanted.endpoint)
            self._check_free(record, take_over=wanted.take_over)
            rollout, new = await self._beginning.rollout(wanted, record, who)
            await manager.change(
                [rollout_traffic.record_of(rollout, record, new)],
                what="rollout.start",
                who=who,
                why=rollout.story[0].reason,
                rollouts=[rollout],
                answering=None if answering is None else lambda _: answering(rollout),
            )
            self._take(rollout)
        self._tell(rollout)
        return rollout

    def _check_free(self, record: EndpointRecord, *, take_over: bool) -> None:
        active = self.active.get(record.name)
        if active is not None:
            raise errors.Conflict(
                f"rollout {active.id} of endpoint {record.name!r} is under way ({active.state.phase});"
                f" headrace rollout abort {record.name} ends it"
            )
        if record.owner.kind in (OwnerKind.ROLLOUT, OwnerKind.EXPERIMENT) and not take_over:
            raise owned_by_another(record.name, record.owner)

    async def command(
        self, endpoint: str, said: Command, *, who: str, answering: Answering[Rollout] | None = None
    ) -> Rollout:
        """Pause, resume, promote, abort. Raises UnknownModel, Conflict with the reason why not."""
        async with self._deciding:
            rollout = self.active.get(endpoint)
            if rollout is None:
                raise errors.UnknownModel(f"no rollout of endpoint {endpoint!r} is under way")
            decision = rules.command(rollout.spec, rollout.state, said, who, time.time())
            if decision.refused:
                raise errors.Conflict(decision.refused)
            await self._follow(rollout, decision, who, answering)
        await self._visible()
        return self.active.get(endpoint) or self._ended[endpoint]

    async def rollout(self, endpoint: str) -> Rollout:
        """The one under way, else the last one. Raises UnknownModel."""
        found = self.active.get(endpoint) or self._ended.get(endpoint)
        if found is None:
            found = next(iter(await self.rollouts(endpoint, 1)), None)
        if found is None:
            raise errors.UnknownModel(f"endpoint {endpoint!r} has had no rollout")
        return found

    async def rollouts(self, endpoint: str | None, limit: int) -> list[Rollout]:
        """Newest first; of one endpoint, or of all."""
        kept = await self._kept(endpoint, limit)
        mine = {r.id: r for r in (*self._ended.values(), *self.active.values()) if endpoint in (None, r.endpoint)}
        found = {r.id: r for r in kept} | mine
        return sorted(found.values(), key=lambda r: -r.started_at)[:limit]

    async def _kept(self, endpoint: str | None, limit: int) -> list[Rollout]:
        state = self._manager.state
        return [] if state is None else await asyncio.to_thread(state.rollouts, endpoint, limit)

    # --- the loop ---

    async def run(self) -> None:
        """Look, decide, act; for as long as the controller runs."""
        followed = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            if time.monotonic() - followed > FOLLOW_S:
                followed = time.monotonic()
                for unkept in list(self._unkept.values()):
                    await self._keep(*unkept)
                await self._aliases.follow()
            for rollout in list(self.active.values()):
                try:
                    async with self._deciding:
                        if (now := self.active.get(rollout.endpoint)) is not None:
                            await self._tick(now)
                except errors.HeadraceError as error:
                    self._log.warning(
                        "a rollout could not go on; trying again",
                        action="rollout_failed",
                        endpoint=rollout.endpoint,
                        reason=error.message,
                    )

    def resume(self, rollouts: list[Rollout]) -> None:
        """Go on with what a controller before this one was doing."""
        for rollout in rollouts:
            known = self._ended.get(rollout.endpoint)
            if known is not None and known.id == rollout.id:
                continue  # it has ended here, and the state is told as soon as that can be
            if not rollout.ended and rollout.endpoint not in self.active:
                self._take(rollout)

    def _take(self, rollout: Rollout) -> None:
        self.active[rollout.endpoint] = rollout
        self._live.setdefault(rollout.endpoint, _Live(rollout))
        self._desired.trials[rollout.endpoint] = rollout_traffic.trial_of(rollout)
        self._desired.awake |= {rollout.spec.old, rollout.spec.new}
        self._changed.set()

    async def _tick(self, rollout: Rollout) -> None:
        record = self._manager.records.get(rollout.endpoint)
        if record is None or record.owner != rollout_traffic.owner_of(rollout):
            owner = "nobody: the endpoint was deleted" if record is None else str(record.owner)
            await self._lost(rollout, f"the traffic was taken over by {owner}")
            return
        rollout = self._look(rollout)
        live = self._live[rollout.endpoint]
        if (
            rollout.golden is None
            and live.asking is None
            and rollout_state.traffic_phase(rollout.state) is Phase.GOLDEN
        ):
            self._ask_golden(rollout)  # a controller before this one had asked
        seen = Seen(
            *self._readiness(rollout), golden=rollout.golden, verdict=rollout.verdict, judged_step=live.judged_step
        )
        decision = rules.decide(rollout.spec, rollout.state, seen, time.time())
        await self._follow(rollout, decision, "headrace")

    def _readiness(self, rollout: Rollout) -> tuple[Readiness, str]:
        new = rollout.spec.new
        failure = self._observed.restarts_of(new).load_failure
        if failure:
            return Readiness.FAILED, failure
        replicas = self._observed.replicas(new)
        ready = any(replica.state is ReplicaState.READY for replica in replicas)
        if rollout.state.phase in (Phase.STARTING, Phase.WARMING):
            # Traffic follows soon: every gateway must reach every replica.
            spec = self._desired.deployments.get(new)
            ready = ready and spec is not None and self._reachable(spec)
        if ready:
            return Readiness.READY, ""
        warming = any(replica.state is not ReplicaState.STARTING for replica in replicas)
        return (Readiness.WARMING if warming else Readiness.STARTING), ""

    # --- judging ---

    def _look(self, rollout: Rollout) -> Rollout:
        """One more interval for the judge, when it is over."""
        live = self._live[rollout.endpoint]
        seconds = time.monotonic() - live.looked
        if rollout.judge is None or seconds < min(LOOK_S, rollout.analysis.block_s / 2):
            return rollout
        live.looked = time.monotonic()
        self._measure(rollout, live)
        at = rollout_state.traffic_phase(rollout.state)
        mirrored = at is Phase.STEP and not rollout_state.share(rollout.spec, rollout.state)
        observation = live.sums.observe(self._loads(), seconds, mirrored=mirrored)
        if observation is None:
            return rollout
        measurements, live.measurements = tuple(live.measurements), []
        found = rollout.judge.look(replace(observation, measurements=measurements))
        if at not in (Phase.STEP, Phase.PROMOTED):
            return rollout  # only what the old version is like was learned
        live.judged_step = rollout.state.step
        looked = replace(rollout, verdict=_without_live(found) if mirrored else found)
        self.active[rollout.endpoint] = looked
        return looked

    def _measure(self, rollout: Rollout, live: _Live) -> None:
        """Begin to measure what is to be asked elsewhere; the next look has the result."""

        async def one(metric: MetricSettings) -> None:
            live.measurements.append(await measuring.measure(metric, rollout))

        live.measuring = [task for task in live.measuring if not task.done()]
        if rollout_state.traffic_phase(rollout.state) in (Phase.STEP, Phase.PROMOTED) and not live.measuring:
            live.measuring = [asyncio.create_task(one(m)) for m in rollout.analysis.metrics if m.query]

    async def measured(
        self, endpoint: str, metric: str, value: float, *, answering: Answering[Rollout] | None = None
    ) -> Rollout:
        """A metric that is posted. Raises UnknownModel when no rollout is under way, or it is not judged by this."""
        rollout = self.active.get(endpoint)
        if rollout is None:
            raise errors.UnknownModel(f"no rollout of endpoint {endpoint!r} is under way")
        posted = [m.name for m in rollout.analysis.metrics if not m.query]
        if metric not in posted:
            raise errors.UnknownModel(
                f"the rollout of {endpoint!r} is not judged by a metric {metric!r} that is posted; it has:"
                f" {', '.join(posted) or 'none'}"
            )
        self._live[endpoint].measurements.append(Measurement(metric, value))
        if answering is not None:
            # Where the measurement is until the next look: either both outlive this process, or neither.
            self._manager.answers.keep(answering(rollout))
        return rollout

    # --- acting ---

    async def _follow(
        self, rollout: Rollout, decision: Decision, who: str, answering: Answering[Rollout] | None = None
    ) -> None:
        """Put a decision into effect, and keep it."""
        before, state = rollout.state, decision.state
        moved = (before.phase, before.step) != (state.phase, state.step)
        made = replace(rollout, state=state)
        if moved:
            share = rollout_state.share(rollout.spec, state)
            line = StoryLine(time.time(), state.phase, state.step, share, state.reason)
            made = replace(made, story=(*rollout.story, line))
        if any(isinstance(action, rules.BeginStep) for action in decision.actions):
            # A copy: when the move cannot be kept it is made again.
            fresh = copy.deepcopy(made.judge)
            if fresh is not None:
                fresh.begin_step()
            made = replace(made, judge=fresh, verdict=None)
        if moved:
            await self._move(made, who, answering)
        elif answering is not None:
            self._manager.answers.keep(answering(made))
        self._arrive(made, decision)

    def _arrive(self, rollout: Rollout, decision: Decision) -> None:
        """The decision is in effect, and kept."""
        current = self.active.get(rollout.endpoint)
        if rollout.ended or current is None:
            return
        asks = any(isinstance(action, rules.AskGolden) for action in decision.actions)
        # Answers may have come while the move was being kept.
        self.active[rollout.endpoint] = replace(rollout, golden=None if asks else current.golden)
        if any(isinstance(action, rules.BeginStep) for action in decision.actions):
            self._live[rollout.endpoint].judged_step = -1
        if asks:
            self._ask_golden(rollout)

    def _ask_golden(self, rollout: Rollout) -> None:
        spec = self._desired.deployments[rollout.spec.new]

        async def ask() -> None:
            try:
                report = await self._golden(rollout, spec)
            except errors.HeadraceError as error:
                report = GoldenReport(Finding.INCONCLUSIVE, error.message)
            current = self.active.get(rollout.endpoint)
            if current is not None and current.id == rollout.id:
                self.active[rollout.endpoint] = replace(current, golden=report)

        self._live[rollout.endpoint].asking = asyncio.create_task(ask())

    async def _move(self, rollout: Rollout, who: str, answering: Answering[Rollout] | None) -> None:
        endpoint, state = rollout.endpoint, rollout.state
        current = self._manager.records[endpoint]
        new = current.deployment(rollout.spec.new)
        if new is None:
            raise errors.Bug(f"rollout {rollout.id} has lost its new version")
        record = rollout_traffic.record_of(rollout, current, new)
        if state.phase in (Phase.ROLLED_BACK, Phase.ABORTED):
            # One routing change, before anything is written: the state may be slow, or gone.
            self._finish(rollout)
            self._manager.force(record, state.reason)
            await self._keep(rollout, who, () if answering is None else (answering(rollout),))
        else:
            async with self._manager.lock:
                await self._manager.change(
                    [record],
                    what=f"rollout.{state.phase}",
                    who=who,
                    why=state.reason,
                    quiet=True,
                    rollouts=[rollout],
                    answering=None if answering is None else lambda _: answering(rollout),
                )
            self._desired.trials[endpoint] = rollout_traffic.trial_of(rollout)
            self._changed.set()
            if rollout.ended:
                self._finish(rollout)
        self._tell(rollout)

    async def _keep(self, rollout: Rollout, who: str, answers: Sequence[Answer] = ()) -> None:
        """Without a change of the record."""
        state = self._manager.state
        if state is None:
            self._remember(answers)
            return
        event = Event(time.time(), who, f"rollout.{rollout.state.phase}", rollout.endpoint, why=rollout.state.reason)
        self._unkept[rollout.id] = rollout, who, answers
        try:
            await asyncio.to_thread(state.change, [], [], [event], [rollout], answers)
            self._unkept.pop(rollout.id, None)
        except errors.HeadraceError as error:
            self._remember(answers)
            self._log.warning(
                "the end of a rollout could not be kept yet; it holds nevertheless",
                action="rollout_unkept",
                endpoint=rollout.endpoint,
                reason=error.message,
            )

    def _remember(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            self._manager.answers.keep(answer)

    async def _lost(self, rollout: Rollout, reason: str) -> None:
        """Somebody else decides now; what they decided stays."""
        ended = replace(rollout, state=rollout_state.move(rollout.state, Phase.ABORTED, reason, time.time()))
        line = StoryLine(time.time(), Phase.ABORTED, ended.state.step, 0.0, reason)
        ended = replace(ended, story=(*rollout.story, line))
        self._finish(ended)
        await self._keep(ended, "headrace")
        self._tell(ended)

    def _finish(self, rollout: Rollout) -> None:
        self.active.pop(rollout.endpoint, None)
        live = self._live.pop(rollout.endpoint, None)
        for task in [] if live is None else [live.asking, *live.measuring]:
            if task is not None:
                task.cancel()
        self._desired.trials.pop(rollout.endpoint, None)
        self._ended[rollout.endpoint] = rollout
        self._changed.set()

    def _tell(self, rollout: Rollout) -> None:
        line = rollout.story[-1]
        self._say(
            events.RolloutMoved(rollout.endpoint, rollout.id, line.phase.value, line.step, line.share, line.reason)
        )


def _without_live(found: Verdict) -> Verdict:
    """Of mirrored requests only what happens to the new version itself can be judged: they wait for idle capacity."""
    live = ("refusals", "rejections", "latency")
    checks = tuple(replace(c, needed=c.needed and not c.check.startswith(live)) for c in found.checks)
    return verdicts.combine(checks)
