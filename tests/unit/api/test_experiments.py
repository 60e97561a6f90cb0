"""/api/v1/experiments, and the client in front of it: what is asked arrives, and what is answered is understood."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.api.app import create_app
from headrace.client.experiments import AsyncExperiments
from headrace.client.management import Management
from headrace.control.experiments.report import ExperimentReport, report
from headrace.core import errors
from headrace.core.experiments import BanditSettings, Experiment, HourTally, Joined, Outcome, Receipt

EXPERIMENT = Experiment(
    "x1", "org/fraud", ("a", "b"), 1.5, "ada", "clicks", BanditSettings(floor=0.1), 0.9, 3.0, "done"
)
HOURS = [
    HourTally(200, 0.1, 18.0, 0, arm="a", hour=1, requests=400, expected=400),
    HourTally(1, 1.0, 0.0, 0, arm="b", hour=1, requests=400, expected=400),
]


class FakeExperiments:
    """Implements ExperimentCommands; notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def all(self) -> list[Experiment]:
        return [EXPERIMENT]

    async def start(self, endpoint: str, arms: Sequence[str], **more: Any) -> ExperimentReport:
        self.asked.append((endpoint, list(arms), more))
        if "nobody" in arms:
            raise errors.Conflict("belongs to the file")
        return await self.report(endpoint)

    async def stop(self, endpoint: str, *, who: str, generation: int | None) -> ExperimentReport:
        self.asked.append(("stop", endpoint, who, generation))
        return await self.report(endpoint)

    async def report(self, endpoint: str) -> ExperimentReport:
        if endpoint != "org/fraud":
            raise errors.UnknownExperiment(f"endpoint {endpoint!r} has had no experiment")
        return report(EXPERIMENT, HOURS, {"a": 0.25, "b": 0.75}, ["beware"])

    async def feedback(self, endpoint: str, outcomes: Sequence[Outcome]) -> list[Receipt]:
        self.asked.append((endpoint, list(outcomes)))
        return [Receipt(o.request_id, Joined.JOINED if o.reward else Joined.UNKNOWN, "a") for o in outcomes]


@pytest.fixture
def commands() -> FakeExperiments:
    return FakeExperiments()


@pytest.fixture
def app(commands: FakeExperiments, controller: Any, tmp_path: Path) -> Any:
    return create_app(controller, metrics_directory=tmp_path, experiments=commands)


def sent(app: Any, method: str, path: str, json: Any = None, **headers: str) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:9000") as client:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            return await client.request(method, f"/api/v1/experiments{path}", json=json, headers=given)

    return asyncio.run(send())


def called(app: Any, call: Callable[[AsyncExperiments], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        management = Management("http://localhost:9000", transport=httpx.ASGITransport(app), retries=0)
        try:
            return await call(AsyncExperiments(management))
        finally:
            await management.close()

    return asyncio.run(main())


def test_a_start_in_full(app: Any, commands: FakeExperiments) -> None:
    body = {
        "arms": ["a", "b"],
        "weights": {"a": 1, "b": 2},
        "bandit": {"floor": 0.1, "minimum": 5, "every_s": 2, "least_move": 0.5},
        "metric": "clicks",
        "confidence": 0.9,
        "take_over": True,
    }
    answer = sent(app, "PUT", "/org/fraud", body, if_match='"7"', x_headrace_user="ada@laptop")
    assert answer.status_code == 200, answer.text
    assert commands.asked == [
        (
            "org/fraud",
            ["a", "b"],
            {
                "weights": {"a": 1, "b": 2},
                "bandit": BanditSettings(0.1, 5, 2, 0.5),
                "metric": "clicks",
                "confidence": 0.9,
                "who": "ada@laptop",
                "take_over": True,
                "generation": 7,
            },
        )
    ]
    document = answer.json()
    assert document["experiment"] == {
        "id": "x1",
        "endpoint": "org/fraud",
        "arms": ["a", "b"],
        "metric": "clicks",
        "bandit": {"floor": 0.1, "minimum": 50, "every_s": 10.0, "least_move": 0.02},
        "confidence": 0.9,
        "started": 1.5,
        "started_by": "ada",
        "ended": 3.0,
        "why": "done",
    }
    assert document["arms"][0]["lift"] is None
    assert document["arms"][1]["sequential"]["absolute"] == {"estimate": 0.9, "low": None, "high": None}
    assert document["notes"][-1] == "beware"
    assert sent(app, "GET", "/org/fraud").json() == document
    assert sent(app, "GET", "").json()["experiments"] == [document["experiment"]]


def test_feedback_for_one_and_for_many(app: Any, commands: FakeExperiments) -> None:
    one = sent(app, "POST", "/org/fraud/feedback", {"request_id": "r1", "reward": 1, "at": 12.5})
    assert one.json() == {"receipts": [{"request_id": "r1", "status": "joined", "arm": "a"}]}
    many = sent(
        app,
        "POST",
        "/org/fraud/feedback",
        {"outcomes": [{"request_id": f"r{n}", "reward": n % 2} for n in range(3000)]},
    )
    assert [receipt["status"] for receipt in many.json()["receipts"][:2]] == ["unknown", "joined"]
    assert commands.asked[0] == ("org/fraud", [Outcome("r1", 1.0, 12.5)])
    assert len(commands.asked[1][1]) == 3000


@pytest.mark.parametrize(
    "body",
    [
        {"request_id": "r1"},
        {"request_id": "r1", "reward": "much"},
        {"request_id": "r1", "reward": 1, "extra": 2},
        {"outcomes": [{"request_id": "r1", "reward": 1}, {"reward": 1}]},
        {"outcomes": [{"request_id": "r", "reward": 1}] * 10_001},
        {"request_id": "r" * 2000, "reward": 1},
    ],
)
def test_what_is_no_feedback(app: Any, commands: FakeExperiments, body: Mapping[str, Any]) -> None:
    answer = sent(app, "POST", "/org/fraud/feedback", body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert not commands.asked


@pytest.mark.parametrize("reward", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_rewards_are_finite(app: Any, commands: FakeExperiments, reward: str) -> None:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:9000") as client:
            content = f'{{"request_id": "r1", "reward": {reward}}}'
            path = "/api/v1/experiments/org/fraud/feedback"
            return await client.post(path, content=content, headers={"content-type": "application/json"})

    assert asyncio.run(send()).status_code == 422
    assert not commands.asked


def test_errors_are_problems(app: Any) -> None:
    unknown = sent(app, "GET", "/other")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_experiment")
    conflict = sent(app, "PUT", "/org/fraud", {"arms": ["a", "nobody"]})
    assert (conflict.status_code, conflict.json()["code"]) == (409, "conflict")


def test_the_client_says_it_all(app: Any, commands: FakeExperiments) -> None:
    report = called(
        app, lambda c: c.start("org/fraud", ["a", "b"], bandit={"floor": 0.2}, weights={"a": 1, "b": 1}, generation=3)
    )
    assert commands.asked[0][2]["bandit"] == BanditSettings(floor=0.2)
    assert commands.asked[0][2]["generation"] == 3
    assert report.experiment.arms == ("a", "b")
    assert report.arms[1].lift is not None
    assert report.arms[1].sequential.absolute.low is None
    assert math.isclose(report.arms[0].mean, 0.1)
    called(app, lambda c: c.start("org/fraud", ["a", "b"], bandit=True))
    called(app, lambda c: c.start("org/fraud", ["a", "b"]))
    assert [asked[2]["bandit"] for asked in commands.asked[1:]] == [BanditSettings(), None]
    assert called(app, lambda c: c.report("org/fraud")) == report
    assert called(app, lambda c: c.list()) == [report.experiment]
    assert called(app, lambda c: c.stop("org/fraud")) == report
    with pytest.raises(errors.UnknownExperiment, match="'other' has had no experiment"):
        called(app, lambda c: c.report("other"))


def test_the_client_sends_any_number_of_outcomes(app: Any, commands: FakeExperiments) -> None:
    receipts = called(app, lambda c: c.feedback("org/fraud", {f"r{n}": 1.0 for n in range(12_000)}))
    assert [receipt.request_id for receipt in receipts] == [f"r{n}" for n in range(12_000)]
    assert [len(outcomes) for _, outcomes in commands.asked] == [5000, 5000, 2000]
    (receipt,) = called(app, lambda c: c.feedback("org/fraud", iter([Outcome("r", 0.0, 5.0)])))
    assert (receipt.status, commands.asked[-1][1]) == ("unknown", [Outcome("r", 0.0, 5.0)])
