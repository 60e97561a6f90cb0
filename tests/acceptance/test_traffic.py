"""Two deployments of one endpoint in real processes: the split, sticky keys, words of callers, and a death."""

from __future__ import annotations

import json
import math
import os
import signal
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headrace.core.traffic import StickyChooser
from tests.acceptance import grpc_calls
from tests.acceptance.load import Answer, Client, Load, infer_body, output, post
from tests.acceptance.processes import pids
from tests.serving import Served, eventually, served

PATH = "/v2/models/fraud/infer"
SETTINGS = """
gateways: 2
endpoints:
  fraud:
    traffic: {champion: 90, challenger: 10}
    sticky: header:x-user-id
    rules:
      - {when: header:x-plan, equals: gold, deployment: challenger}
      - {when: body:plan, in: [gold, silver], deployment: challenger}
    overrides: [X-Headrace-Deployment, azureml-model-deployment]
    deployments:
      champion: {model: champion.py}
      challenger: {model: challenger.py, version: 7}
"""
MODEL = """\
import os

import headrace


class Times(headrace.Model):
    def predict(self, x: headrace.Float32) -> {"y": headrace.Float32, "pid": headrace.Int64}:
        return {"y": x * FACTOR, "pid": (x * 0).astype("int64") + os.getpid()}
"""
CHAMPION, CHALLENGER = "1", "7"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("traffic")
    (directory / "headrace.yaml").write_text(SETTINGS)
    for name, factor in (("champion", "2"), ("challenger", "3")):
        (directory / f"{name}.py").write_text(MODEL.replace("FACTOR", factor))
    with served(directory=directory) as running:
        yield running


def version(answer: Answer) -> str:
    assert answer.status == 200, answer
    found: str = answer.document["model_version"]
    assert output(answer.document) == [2.0 if found == CHAMPION else 3.0]
    assert answer.headers["x-headrace-deployment"] == ("champion" if found == CHAMPION else "challenger")
    return found


def asked(server: Served, **headers: str) -> Answer:
    return post(server.address, PATH, infer_body(1.0), {k.replace("_", "-"): v for k, v in headers.items()})


def managed(server: Served) -> Any:
    with urllib.request.urlopen(f"{server.management_url}/api/v1/endpoints/fraud") as answer:
        return json.load(answer)


@pytest.mark.xdist_group("traffic")
def test_ten_thousand_requests_match_the_weights(server: Served) -> None:
    """Chance decides in both gateways; five standard deviations are passed by one run in a million."""
    with Load(server.address, "fraud", clients=4, count=10_000, value=lambda _: 1.0) as load:
        load.join()
    found = Counter(version(answer) for answer in load.answers)
    assert found.total() == 10_000
    assert abs(found[CHALLENGER] - 1000) < 5 * math.sqrt(10_000 * 0.1 * 0.9)


@pytest.mark.xdist_group("traffic")
def test_sticky_keys_go_where_every_process_sends_them(server: Served) -> None:
    expected = StickyChooser("fraud", {"champion": 0.9, "challenger": 0.1})
    versions = {"champion": CHAMPION, "challenger": CHALLENGER}
    for user in (f"user-{n}" for n in range(60)):
        assert version(asked(server, x_user_id=user)) == versions[expected.choose(user.encode())]


@pytest.mark.xdist_group("traffic")
def test_callers_and_rules_choose(server: Served) -> None:
    assert version(asked(server, x_plan="gold")) == CHALLENGER
    assert version(asked(server, x_plan="gold", X_Headrace_Deployment="champion")) == CHAMPION
    assert version(asked(server, azureml_model_deployment="challenger")) == CHALLENGER
    body = {**json.loads(infer_body(1.0)), "parameters": {"plan": "silver"}}
    assert version(post(server.address, PATH, json.dumps(body).encode())) == CHALLENGER
    by_version = post(server.address, "/v2/models/fraud/versions/1/infer", infer_body(1.0), {"x-plan": "gold"})
    assert version(by_version) == CHAMPION
    nobody = asked(server, X_Headrace_Deployment="nobody")
    assert (nobody.status, "it has: challenger, champion" in nobody.message) == (404, True)
    refused = asked(server, X_Amzn_SageMaker_Target_Variant="champion")
    assert (refused.status, "may not choose" in refused.message) == (400, True)


@pytest.mark.xdist_group("traffic")
def test_metadata_of_grpc_counts_as_headers(server: Served) -> None:
    with grpc_calls.stub(server.address) as stub:
        for metadata, expected in (
            ((("x-plan", "gold"),), CHALLENGER),
            ((("x-headrace-deployment", "champion"), ("x-plan", "gold")), CHAMPION),
        ):
            answer = stub.ModelInfer(grpc_calls.request("fraud", 1.0), metadata=metadata)
            assert answer.model_version == expected
            (streamed,) = stub.ModelStreamInfer(iter([grpc_calls.request("fraud", 1.0)]), metadata=metadata)
            assert streamed.infer_response.model_version == expected


@pytest.mark.xdist_group("traffic")
def test_a_dead_deployment_gets_no_traffic_that_the_other_can_take(server: Served) -> None:
    champion = output(asked(server, X_Headrace_Deployment="champion").document, "pid")[0]
    with Load(server.address, "fraud", clients=2, value=lambda _: 1.0, pause=0.002) as load:
        load.wait_for(50)
        os.kill(champion, signal.SIGKILL)
        shifted = server.wait_event("TrafficShifted", where=lambda event: "champion" in event["waiting"])
        assert shifted["shares"] == {"challenger": 1.0}
        back = server.wait_event("TrafficShifted", where=lambda event: not event["waiting"])
        assert back["shares"] == {"champion": 0.9, "challenger": 0.1}
        eventually(lambda: {d["name"]: d["traffic"] for d in managed(server)["deployments"]}["champion"] == 0.9)
        load.wait_for(50)
    assert not load.failed(), load.failed()[:3]
    client = Client(server.address)
    assert eventually(lambda: version(client.post(PATH, infer_body(1.0))) == CHAMPION)
    client.close()


FALLBACK = """
gateways: 1
logs: {format: json}
endpoints:
  guarded:
    traffic: {champion: 100}
    fallback: [{deployment: spare}, {constant: {y: -1}}]
    deployments:
      champion: {model: moody.py}
      spare: {model: spare.py}
  once:
    deployments: {main: {model: moody.py, idempotent: false}}
    fallback: [{constant: {y: -1}}]
"""
MOODY = """\
import os

import headrace


class Moody(headrace.Model):
    def predict(self, x: headrace.Float32) -> {"y": headrace.Float32}:
        if x[0] == 13:
            raise ValueError("no thirteen")
        if x[0] == 666:
            os._exit(1)
        return {"y": x * 2}
"""


def test_another_deployment_answers_for_one_that_raises_and_a_constant_for_a_killer(tmp_path: Path) -> None:
    (tmp_path / "headrace.yaml").write_text(FALLBACK)
    (tmp_path / "moody.py").write_text(MOODY)
    (tmp_path / "spare.py").write_text(MOODY.replace("== 13", "== 14").replace("x * 2", "x * 3"))
    with served(directory=tmp_path) as server:
        path = "/v2/models/guarded/infer"
        own, spare = post(server.address, path, infer_body(1.0)), post(server.address, path, infer_body(13.0))
        assert (output(own.document), own.headers.get("x-headrace-fallback")) == ([2.0], None)
        assert (output(spare.document), spare.headers["x-headrace-fallback"]) == ([39.0], "spare")
        assert spare.headers["x-headrace-deployment"] == "spare"
        killer = post(server.address, path, infer_body(666.0))
        assert (output(killer.document), killer.headers["x-headrace-fallback"]) == ([-1.0], "constant")
        once = post(server.address, "/v2/models/once/infer", infer_body(13.0))
        assert (once.status, "no thirteen" in once.message) == (500, True)
        eventually(lambda: fallbacks(server) == {"deployment": 1, "constant": 1})


def fallbacks(server: Served) -> dict[str, float]:
    """What answered instead of the first version of ``guarded``, and how often."""
    with urllib.request.urlopen(f"{server.management_url}/metrics") as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {
        sample.labels["fallback"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == "headrace_fallbacks_total"
        and (sample.labels["model"], sample.labels["version"]) == ("guarded", "1")
    }


SHADOW = """
gateways: 1
endpoints:
  fraud:
    traffic: {champion: 1}
    shadow: {next: 100}
    deployments: {champion: {model: champion.py}, next: {model: next.py}}
"""
NEXT = """\
import headrace


class Next(headrace.Model):
    def predict(self, x: headrace.Float32) -> {"y": headrace.Float32}:
        if x[0] == 13:
            raise ValueError("no thirteen")
        return {"y": x * FACTOR + (x == 7)}
"""


def test_a_shadow_is_compared_and_callers_do_not_notice(tmp_path: Path) -> None:
    (tmp_path / "headrace.yaml").write_text(SHADOW)
    (tmp_path / "champion.py").write_text(NEXT.replace("FACTOR", "2").replace("+ (x == 7)", "").replace("13", "-1"))
    (tmp_path / "next.py").write_text(NEXT.replace("FACTOR", "2"))
    with served(directory=tmp_path) as server:

        def shadow() -> Any:
            return next(d["shadow"] for d in managed(server)["deployments"] if d["name"] == "next")

        def seen() -> int:
            found = shadow()
            return sum(found[key] for key in ("agreed", "disagreed", "failed", "dropped"))

        for number, value in enumerate((1.0, 2.0, 7.0, 13.0), start=1):
            answer = asked_once(server, value)
            assert (answer.status, output(answer.document)) == (200, [value * 2])
            assert answer.headers["x-headrace-deployment"] == "champion"
            eventually(lambda number=number: seen() == number)  # type: ignore[misc]
        found = shadow()
        assert [found[key] for key in ("agreed", "disagreed", "failed", "dropped")] == [2, 1, 1, 0]
        assert (found["max_absolute"], found["max_relative"]) == (1.0, pytest.approx(1 / 14))
        assert found["live_ms"] > 0
        assert found["shadow_ms"] > 0
        (told,) = found["sample"]
        assert (told["request_id"], told["live"], told["shadow"]) == ("r-7", "[1]: 14.0", "[1]: 15.0")


def policies(server: Served) -> list[int]:
    """How the kernel schedules each worker."""
    return sorted(os.sched_getscheduler(pid) for pid in pids(server, "replica.worker"))


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="only Linux has this policy")
def test_a_shadow_yields_to_everybody_until_it_gets_traffic(tmp_path: Path) -> None:
    (tmp_path / "headrace.yaml").write_text(SHADOW)
    for name in ("champion", "next"):
        (tmp_path / f"{name}.py").write_text(NEXT.replace("FACTOR", "2"))
    with served(directory=tmp_path) as server:
        before = pids(server, "replica.worker")
        assert policies(server) == [os.SCHED_OTHER, os.SCHED_IDLE]
        config = SHADOW.replace("{champion: 1}", "{champion: 1, next: 1}").replace("    shadow: {next: 100}\n", "")
        applied = post(
            server.management_url.partition("//")[2],
            "/api/v1/apply",
            json.dumps({"config": config, "path": str(tmp_path / "headrace.yaml")}).encode(),
        )
        assert applied.status == 200, applied
        assert eventually(lambda: policies(server) == [os.SCHED_OTHER, os.SCHED_OTHER])
        assert len(pids(server, "replica.worker") & before) == 1, "the champion's worker stays"
        answers = Counter(asked_once(server, 2.0).headers["x-headrace-deployment"] for _ in range(40))
        assert set(answers) == {"champion", "next"}


def asked_once(server: Served, value: float) -> Answer:
    return post(server.address, PATH, infer_body(value), {"x-request-id": f"r-{value:g}"})
