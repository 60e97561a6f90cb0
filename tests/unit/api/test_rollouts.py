"""/api/v1/rollouts over a driver that keeps what it is told and decides commands as the real one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from headrace.api.app import create_app
from headrace.control.analysis.settings import AnalysisSettings, LatencySettings
from headrace.control.rollout_plan import RolloutRequest
from headrace.control.rollout_state import Phase, RolloutState
from headrace.core import errors
from headrace.core.keys import Scope
from headrace.pipeline.auth import Guard
from tests import rollouts
from tests.issued import key, key_set
from tests.rollout_driver import FakeRollouts

Ask = Callable[..., httpx.Response]
MANAGER, SCRAPER = key("ci", Scope.MANAGE), key("scraper", Scope.METRICS)


@pytest.fixture
def driver() -> FakeRollouts:
    return FakeRollouts(clock=lambda: rollouts.STARTED)


def asking(driver: FakeRollouts | None, controller: Any, metrics: Path, guard: Guard | None = None) -> Ask:
    app = create_app(controller, metrics_directory=metrics, rollouts=driver, guard=guard)

    def call(method: str, path: str, **more: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost:9000") as client:
                return await client.request(method, f"/api/v1{path}", **more)

        return asyncio.run(send())

    return call


@pytest.fixture
def ask(driver: FakeRollouts, controller: Any, tmp_path: Path) -> Ask:
    return asking(driver, controller, tmp_path)


def test_starting_one_hands_on_everything_that_was_asked_for(ask: Ask, driver: FakeRollouts) -> None:
    body = {
        "endpoint": "org/fraud",
        "to": "fraud@8",
        "deployment": "champion",
        "canary": "5,50",
        "shadow_first": True,
        "bake_s": 60,
        "final_bake_s": 5,
        "max_step_s": 900,
        "analysis": {"latency": {"margin": 1.1}},
        "take_over": True,
    }
    answer = ask("POST", "/rollouts", json=body, headers={"X-Headrace-User": "ada@laptop"})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == "/api/v1/rollouts/of/org/fraud"
    [(wanted, who)] = driver.asked
    analysis = AnalysisSettings(latency=LatencySettings(margin=1.1))
    assert wanted == RolloutRequest(
        "org/fraud", "fraud@8", "champion", "5,50", "", False, True, 60.0, 5.0, 900.0, analysis, True
    )
    assert who == "ada@laptop"
    document = answer.json()
    assert (document["endpoint"], document["phase"], document["step"], document["who"]) == (
        "org/fraud",
        "starting",
        0,
        "ada@laptop",
    )
    assert [step["traffic"] for step in document["steps"]] == [0.0, 0.05, 0.5]
    assert document["analysis"]["latency"]["margin"] == 1.1
    assert ask("GET", answer.headers["location"].removeprefix("/api/v1")).json() == document


def test_what_is_left_out_has_its_default(ask: Ask, driver: FakeRollouts) -> None:
    assert ask("POST", "/rollouts", json={"endpoint": "fraud", "to": "8"}).status_code == 201
    assert driver.asked[0][0] == RolloutRequest("fraud", "8")


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"to": "8"}, 422, "endpoint"),
        ({"endpoint": "fraud", "to": "8", "canari": "5"}, 422, "canari"),
        ({"endpoint": "fraud", "to": "8", "bake_s": -1}, 422, "bake_s"),
        ({"endpoint": "fraud", "to": "8", "canary": "5", "linear": "10/2m"}, 400, "one strategy"),
        ({"endpoint": "fraud", "to": "8", "analysis": {"latncy": {}}}, 400, "did you mean 'latency'?"),
        ({"endpoint": "nobody", "to": "8"}, 404, "no endpoint 'nobody'"),
    ],
)
def test_what_is_wrong_is_a_problem_that_says_so(ask: Ask, body: dict[str, Any], status: int, says: str) -> None:
    answer = ask("POST", "/rollouts", json=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert says in answer.json()["detail"]


def test_the_whole_document_of_a_judged_step(ask: Ask, driver: FakeRollouts) -> None:
    driver.put(rollouts.judged())
    document = ask("GET", "/rollouts/of/fraud").json()
    assert (document["old"], document["new"]) == ("fraud@7", "fraud@8")
    assert (document["phase"], document["step"], document["share"], document["shadow"]) == ("step", 2, 0.05, 0.0)
    assert (document["since"], document["reason"]) == (rollouts.STARTED + 100, "8 checks passed")
    assert document["next"] == {
        "what": "step 3 of 3: 50 % of the requests",
        "when": "every gate that is needed has passed in this step",
        "earliest": rollouts.STARTED + 160,
        "otherwise": "it pauses and asks a person",
        "latest": rollouts.STARTED + 3700,
    }
    checks = {check["check"]: check for check in document["verdict"]["checks"]}
    assert {"errors", "refusals", "latency p50", "latency p95", "compute", "metric loss"} <= checks.keys()
    assert all(check["reason"] for check in checks.values())
    assert (checks["predictions"]["gate"], checks["errors"]["gate"], checks["compute"]["needed"]) == (
        False,
        True,
        False,
    )
    assert document["golden"] == {"finding": "pass", "reason": "20 answered as recorded", "differences": []}
    assert [(line["phase"], line["step"], line["share"]) for line in document["story"]] == [
        ("starting", 0, 0.0),
        ("step", 2, 0.05),
    ]
    assert "judge" not in document


def test_the_list_is_the_newest_first(ask: Ask, driver: FakeRollouts) -> None:
    done = RolloutState(Phase.DONE, 5.0, 3, "the bake time is over")
    for number in range(3):
        driver.put(rollouts.rollout(f"r{number}", state=done, started_at=float(number)))
    driver.put(rollouts.rollout("o", "org/other", started_at=9.0))

    def listed(query: str) -> list[str]:
        return [one["id"] for one in ask("GET", f"/rollouts{query}").json()["rollouts"]]

    assert listed("") == ["o", "r2", "r1", "r0"]
    assert listed("?endpoint=fraud&limit=2") == ["r2", "r1"]
    assert ask("GET", "/rollouts?limit=0").status_code == 422
    last = ask("GET", "/rollouts/of/fraud").json()
    assert (last["id"], last["ended"], last["share"], last["next"]["what"]) == ("r2", True, 1.0, "")


def test_commands_move_it_or_say_why_not(ask: Ask, driver: FakeRollouts) -> None:
    driver.put(rollouts.rollout("r1", "org/fraud", state=RolloutState(Phase.STEP, 1.0, 1)))

    def say(verb: str) -> httpx.Response:
        return ask("POST", f"/rollouts/{verb}/org/fraud", headers={"X-Headrace-User": "ada"})

    paused = say("pause").json()
    assert (paused["phase"], paused["paused_in"], paused["share"]) == ("paused", "step", 0.05)
    assert paused["reason"] == "paused by ada"
    assert paused["next"]["when"] == "a person says resume, promote or abort"
    refused = say("pause")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert "paused already" in refused.json()["detail"]
    assert say("resume").json()["phase"] == "step"
    promoted = say("promote").json()
    assert (promoted["step"], promoted["share"], promoted["reason"]) == (3, 0.5, "promoted by ada")
    aborted = say("abort").json()
    assert (aborted["phase"], aborted["share"], aborted["ended"]) == ("aborted", 0.0, True)
    assert [line["phase"] for line in aborted["story"]] == ["paused", "step", "step", "aborted"]
    assert say("promote").status_code == 409
    assert say("explode").status_code == 404
    assert ask("POST", "/rollouts/pause/nobody").status_code == 404


def test_what_is_sent_again_is_answered_again(ask: Ask, driver: FakeRollouts) -> None:
    def keyed(path: str, key: str, body: Any = None) -> httpx.Response:
        return ask("POST", f"/rollouts{path}", json=body, headers={"Idempotency-Key": key})

    def twice(path: str, key: str, body: Any = None) -> httpx.Response:
        first, again = keyed(path, key, body), keyed(path, key, body)
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert again.headers["idempotency-replayed"] == "true"
        return again

    wanted = {"endpoint": "org/fraud", "to": "8", "canary": "5,50"}
    started = twice("", "1", wanted)
    assert (started.status_code, started.headers["location"]) == (201, "/api/v1/rollouts/of/org/fraud")
    assert len(driver.kept) == 1
    reused = keyed("", "1", {**wanted, "to": "9"})
    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")
    twice("/measure/org/fraud", "2", {"metric": "loss", "value": 0.1})
    assert driver.measured_values == [("org/fraud", "loss", 0.1)]
    assert twice("/pause/org/fraud", "3").json()["phase"] == "paused"
    assert twice("/resume/org/fraud", "4").json()["phase"] == "starting"
    assert twice("/abort/org/fraud", "5").json()["phase"] == "aborted"
    assert keyed("/pause/org/fraud", "5").json()["code"] == "idempotency_key_reused"


def test_the_way_back_does_not_wait_to_know_whether_it_was_asked_for_before(
    ask: Ask, driver: FakeRollouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(_: str) -> None:
        raise errors.StoreFailed("the database is down")

    async def hangs(_: str) -> None:
        await asyncio.Event().wait()

    headers = {"Idempotency-Key": "1"}
    driver.put(rollouts.rollout(state=RolloutState(Phase.STEP, 1.0, 1)))
    monkeypatch.setattr(driver, "earlier", down)
    assert ask("POST", "/rollouts/pause/fraud", headers=headers).json()["code"] == "store_failed"
    assert ask("POST", "/rollouts/abort/fraud", headers=headers).json()["phase"] == "aborted"
    driver.put(rollouts.rollout(state=RolloutState(Phase.STEP, 1.0, 1)))
    monkeypatch.setattr(driver, "earlier", hangs)
    assert ask("POST", "/rollouts/abort/fraud", headers=headers).json()["phase"] == "aborted"


def test_a_second_one_is_refused(ask: Ask, driver: FakeRollouts) -> None:
    driver.put(rollouts.rollout())
    answer = ask("POST", "/rollouts", json={"endpoint": "fraud", "to": "9"})
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_keys_decide_and_are_named(driver: FakeRollouts, controller: Any, tmp_path: Path) -> None:
    guard = Guard()
    guard.follow(key_set(MANAGER, SCRAPER))
    ask = asking(driver, controller, tmp_path, guard)
    body = {"endpoint": "fraud", "to": "8"}
    for headers, status in (({}, 401), ({"x-api-key": SCRAPER.token}, 403)):
        assert ask("POST", "/rollouts", json=body, headers=headers).status_code == status
        assert ask("POST", "/rollouts/abort/fraud", headers=headers).status_code == status
        assert ask("GET", "/rollouts", headers=headers).status_code == status
    started = ask("POST", "/rollouts", json=body, headers={"x-api-key": MANAGER.token, "X-Headrace-User": "eve"})
    assert started.json()["who"] == "key:ci"


def test_a_server_without_rollouts_has_no_such_routes(controller: Any, tmp_path: Path) -> None:
    ask = asking(None, controller, tmp_path)
    assert ask("GET", "/rollouts").status_code == 404
    assert "rollouts" not in ask("GET", "/../../").json()["links"]


def test_the_index_says_where_they_are(ask: Ask) -> None:
    assert ask("GET", "/../../").json()["links"]["rollouts"] == "/api/v1/rollouts"


def test_the_description_names_every_route(ask: Ask) -> None:
    paths = ask("GET", "/openapi.json").json()["paths"]
    commands = {f"/api/v1/rollouts/{verb}/{{name}}" for verb in ("pause", "resume", "promote", "abort")}
    assert {"/api/v1/rollouts", "/api/v1/rollouts/of/{name}", *commands} <= paths.keys()


def test_documents_are_made_of_any_phase(ask: Ask, driver: FakeRollouts) -> None:
    for phase in Phase:
        state = RolloutState(phase, 1.0, 1, paused_in=Phase.STEP if phase is Phase.PAUSED else None)
        driver.put(msgspec.structs.replace(rollouts.rollout(), state=state))
        assert ask("GET", "/rollouts/of/fraud").json()["phase"] == phase
