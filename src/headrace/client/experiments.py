"""``client.experiments``: experiments on endpoints of a running server, over its management port."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec

from headrace.client.management import Management, in_path
from headrace.client.running import Run
from headrace.core.experiments import MAX_OUTCOMES, Outcome, Receipt

_AT_ONCE = min(MAX_OUTCOMES, 5000)


class Bounds(msgspec.Struct, frozen=True):
    """A confidence interval; None: without bound."""

    estimate: float
    low: float | None
    high: float | None


class Comparison(msgspec.Struct, frozen=True):
    """An arm's mean less the control's. ``relative`` is in parts of the control's mean; None where that is not above
    0."""

    method: str
    absolute: Bounds
    relative: Bounds | None


class ArmReport(msgspec.Struct, frozen=True):
    """``lift`` is for a single look, ``sequential`` holds however often one looks; None for the control."""

    arm: str
    share: float
    requests: int
    outcomes: int
    mean: float
    deviation: float
    probability_best: float
    lift: Comparison | None
    sequential: Comparison | None


class Experiment(msgspec.Struct, frozen=True):
    """Times are seconds since 1970 (UTC). ``why`` it ended."""

    id: str
    endpoint: str
    arms: tuple[str, ...]
    metric: str
    bandit: dict[str, Any] | None
    confidence: float
    started: float
    started_by: str
    ended: float | None
    why: str


class Report(msgspec.Struct, frozen=True):
    """What an experiment has shown so far. ``notes``: what to know before one believes the numbers."""

    experiment: Experiment
    arms: tuple[ArmReport, ...]
    sample_ratio_p: float
    sample_ratio_mismatch: bool
    needed_per_arm: int | None
    notes: tuple[str, ...]


class _Listed(msgspec.Struct):
    experiments: list[Experiment]


class _Receipts(msgspec.Struct):
    receipts: list[Receipt]


class AsyncExperiments:
    """Who gets which requests is decided by an experiment from ``start`` to ``stop``; ``feedback`` tells what came of
    them. Its key needs ``predict`` of the endpoint only."""

    def __init__(self, management: Management) -> None:
        self._management = management

    async def list(self) -> builtins.list[Experiment]:
        """All there have been, newest first."""
        response = await self._management.get("/experiments")
        return msgspec.json.decode(response.content, type=_Listed).experiments

    async def start(
        self,
        endpoint: str,
        arms: Sequence[str],
        *,
        weights: Mapping[str, float] | None = None,
        bandit: bool | Mapping[str, float] = False,
        metric: str = "reward",
        confidence: float = 0.95,
        take_over: bool = False,
        generation: int | None = None,
    ) -> Report:
        """Spread the requests over ``arms``, the control first; every request that is answered afterwards can be given
        an outcome. ``bandit``: shares follow the outcomes; its settings are ``floor``, ``minimum``, ``every_s`` and
        ``least_move``. Raises Conflict when somebody else decides the traffic, BadSettings, UnknownModel."""
        body = {
            "arms": list(arms),
            "weights": None if weights is None else dict(weights),
            "bandit": (dict(bandit) if isinstance(bandit, Mapping) else {}) if bandit is not False else None,
            "metric": metric,
            "confidence": confidence,
            "take_over": take_over,
        }
        headers = {} if generation is None else {"if-match": f'"{generation}"'}
        response = await self._management.call("PUT", _path(endpoint), body=body, headers=headers)
        return msgspec.json.decode(response.content, type=Report)

    async def report(self, endpoint: str) -> Report:
        """Of the last experiment on an endpoint, running or not. Raises UnknownExperiment."""
        response = await self._management.get(_path(endpoint))
        return msgspec.json.decode(response.content, type=Report)

    async def stop(self, endpoint: str) -> Report:
        """End it; the shares stay. Raises UnknownExperiment when none runs."""
        response = await self._management.call("DELETE", _path(endpoint))
        return msgspec.json.decode(response.content, type=Report)

    async def feedback(
        self, endpoint: str, outcomes: Mapping[str, float] | Iterable[Outcome]
    ) -> builtins.list[Receipt]:
        """What came of requests: rewards by request id, or ``Outcome``s. Of several for one request the latest counts;
        sending one again changes nothing. One receipt for each, in order."""
        pairs = outcomes.items() if isinstance(outcomes, Mapping) else None
        waiting = iter(outcomes if pairs is None else [Outcome(request_id, reward) for request_id, reward in pairs])
        receipts: builtins.list[Receipt] = []
        while batch := builtins.list(islice(waiting, _AT_ONCE)):
            response = await self._management.post(f"{_path(endpoint)}/feedback", {"outcomes": batch})
            receipts += msgspec.json.decode(response.content, type=_Receipts).receipts
        return receipts


class Experiments:
    """The same for the synchronous client; see ``AsyncExperiments``."""

    def __init__(self, experiments: AsyncExperiments, run: Run) -> None:
        self._async = experiments
        self._run = run

    def list(self) -> builtins.list[Experiment]:
        return self._run(self._async.list())

    def start(
        self,
        endpoint: str,
        arms: Sequence[str],
        *,
        weights: Mapping[str, float] | None = None,
        bandit: bool | Mapping[str, float] = False,
        metric: str = "reward",
        confidence: float = 0.95,
        take_over: bool = False,
        generation: int | None = None,
    ) -> Report:
        return self._run(
            self._async.start(
                endpoint,
                arms,
                weights=weights,
                bandit=bandit,
                metric=metric,
                confidence=confidence,
                take_over=take_over,
                generation=generation,
            )
        )

    def report(self, endpoint: str) -> Report:
        return self._run(self._async.report(endpoint))

    def stop(self, endpoint: str) -> Report:
        return self._run(self._async.stop(endpoint))

    def feedback(self, endpoint: str, outcomes: Mapping[str, float] | Iterable[Outcome]) -> builtins.list[Receipt]:
        return self._run(self._async.feedback(endpoint, outcomes))


def _path(endpoint: str) -> str:
    return f"/experiments/{in_path(endpoint)}"
