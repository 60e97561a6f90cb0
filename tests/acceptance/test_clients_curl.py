"""curl, the binary: the forms that README and documentation show, and what a shell user sees when they go wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.acceptance.conftest import MAX_BODY, SLOW_S, Rest
from tests.serving import eventually

pytestmark = [
    pytest.mark.xdist_group("clients"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="needs the curl binary"),
]


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def curl(url: str, *arguments: str, body: str | bytes | None = None) -> Answer:
    command = ["curl", "-sS", "-i", "--max-time", "60", url, *arguments]
    if body is not None:
        command += ["--data-binary", "@-"]
    given = body.encode() if isinstance(body, str) else body
    done = subprocess.run(command, input=given, capture_output=True, timeout=90)
    assert done.returncode == 0, done.stderr.decode()
    head, _, rest = done.stdout.decode().partition("\r\n\r\n")
    while " 100" in head.partition("\r\n")[0]:
        head, _, rest = rest.partition("\r\n\r\n")
    lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return Answer(int(lines[0].split()[1]), headers, rest)


def test_rows_by_column_name(rest: Rest) -> None:
    """The README's request, without a Content-Type that is right: curl -d says it sends a form."""
    first = '{"amount":12.5,"age":40,"country":"US","plan":"pro"}'
    second = '{"amount":900,"age":61,"country":"中国","plan":"free"}'
    answer = curl(f"{rest.url}/v1/models/mixed:predict", "-d", f'{{"instances":[{first},{second}]}}')
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    rows = answer.json["predictions"]
    assert [row.keys() for row in rows] == [{"label", "probabilities"}] * 2
    assert {row["label"] for row in rows} <= {"fine", "fraud"}


def test_inputs_by_column_name(rest: Rest) -> None:
    columns = {"amount": [12.5, 900], "age": [40, 61], "country": ["US", "DE"], "plan": ["pro", "free"]}
    answer = curl(f"{rest.url}/v1/models/mixed:predict", body=json.dumps({"inputs": columns}))
    outputs = answer.json["outputs"]
    assert len(outputs["label"]) == len(outputs["probabilities"]) == 2
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    by_row = curl(f"{rest.url}/v1/models/mixed:predict", body=json.dumps({"instances": rows})).json["predictions"]
    assert [row["label"] for row in by_row] == outputs["label"]
    assert [row["probabilities"] for row in by_row] == outputs["probabilities"]


def test_v1_lists_and_readiness(rest: Rest) -> None:
    assert "cancer" in curl(f"{rest.url}/v1/models").json["models"]
    assert curl(f"{rest.url}/v1/models/cancer").json["ready"] is True
    assert curl(f"{rest.url}/").json == {"status": "alive"}
    assert curl(f"{rest.url}/ping").status == 200
    assert curl(f"{rest.url}/v2/health/ready", "-I").status == 200


def test_mistakes_are_named(rest: Rest) -> None:
    url = f"{rest.url}/v1/models/mixed:predict"
    wrong = '{"instances":[{"amount":"a lot","age":1,"country":"US","plan":"pro"}]}'
    cases = [
        (wrong, "instances[0]: column 'amount' FP64: expected number or null, got string"),
        ('{"instances":[{"amount":1,"age":1,"country":"US"}]}', "column 'plan' is missing"),
        ('{"rows":[]}', "neither 'instances' nor 'inputs'"),
        ('{"instances":', "not valid JSON"),
        ("", "the body is empty"),
    ]
    for body, part in cases:
        answer = curl(url, "-X", "POST", body=body)
        assert answer.status == 400
        assert part in answer.json["error"]
        assert answer.headers["content-type"] == "application/json"


def test_paths_and_methods(rest: Rest) -> None:
    answer = curl(f"{rest.url}/v2/models/no%20body")
    assert answer.status == 404
    assert "'no body'" in answer.json["error"]
    answer = curl(f"{rest.url}/v2/models/k%C3%BCche/infer", body="{}")
    assert answer.status == 404
    assert "'küche'" in answer.json["error"]
    answer = curl(f"{rest.url}/nothing/here")
    assert answer.status == 404
    assert "/nothing/here" in answer.json["error"]
    answer = curl(f"{rest.url}/v1/models/mixed:predict")
    assert answer.status == 405
    assert answer.headers["allow"] == "POST"
    assert "POST" in answer.json["error"]
    assert curl(f"{rest.url}/v2/models/org%2Fcancer").json["name"] == "org/cancer"
    assert curl(f"{rest.url}/v2/models/org/cancer/versions/1").json["name"] == "org/cancer"


def test_headers(rest: Rest) -> None:
    answer = curl(f"{rest.url}/v2/models/cancer", "-H", "X-Request-Id: from-curl-1")
    assert answer.headers["x-request-id"] == "from-curl-1"
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    answer = curl(f"{rest.url}/v2/models/cancer", "-H", f"traceparent: {traceparent}")
    assert answer.headers["x-request-id"]
    body = '{"inputs":[{"name":"x","shape":[1],"datatype":"INT64","data":[1]}]}'
    answer = curl(f"{rest.url}/v2/models/slow/infer", "-H", f"X-Request-Timeout-Ms: {SLOW_S * 250:g}", body=body)
    assert answer.status in (503, 504)
    assert "deadline" in answer.json["error"]
    answer = curl(f"{rest.url}/v2/models/slow/infer", "-H", "X-Request-Timeout-Ms: soon", body=body)
    assert answer.status == 400
    assert "'soon'" in answer.json["error"]


def test_compressed_answers(rest: Rest) -> None:
    body = json.dumps({"inputs": [{"name": "x", "shape": [2000], "datatype": "INT64", "data": [7] * 2000}]})
    plain = curl(f"{rest.url}/v2/models/echo/infer", body=body)
    packed = curl(f"{rest.url}/v2/models/echo/infer", "--compressed", body=body)
    assert packed.headers["content-encoding"] in ("gzip", "deflate")
    assert int(packed.headers["content-length"]) < len(plain.text) / 10
    assert packed.json == plain.json


def test_body_beyond_the_limit_is_not_sent(rest: Rest, tmp_path: Path) -> None:
    """curl asks before it sends a large body (Expect: 100-continue) and stops at the refusal."""
    big = tmp_path / "big.bin"
    with big.open("wb") as file:
        file.truncate(MAX_BODY * 4)
    answer = curl(f"{rest.url}/v2/models/echo/infer", "-X", "POST", "-T", str(big))
    assert answer.status == 413
    assert str(MAX_BODY) in answer.json["error"]
    answer = curl(f"{rest.url}/v2/models/echo/infer", "-X", "POST", "-T", str(big), "-H", "Transfer-Encoding: chunked")
    assert answer.status == 413
    assert str(MAX_BODY) in answer.json["error"]


def test_generate_stream(rest: Rest) -> None:
    answer = curl(f"{rest.url}/v2/models/talker/generate_stream", "-N", body='{"prompt":"eins zwei","times":2}')
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert [json.loads(event)["text"] for event in events] == ["eins", "zwei"] * 2


def test_generate_stream_errors(rest: Rest) -> None:
    url = f"{rest.url}/v2/models/talker/generate_stream"
    first = curl(url, body='{"prompt":"boom"}')
    assert first.status == 500
    assert "boom was asked for" in first.json["error"]
    later = curl(url, body='{"prompt":"a boom"}')
    assert later.status == 200
    events = [json.loads(line.removeprefix("data: ")) for line in later.text.split("\n\n") if line]
    assert events[0]["text"] == "a"
    assert "boom was asked for" in events[1]["error"]
    assert curl(url, body='{"prompt":').status == 400
    assert curl(f"{rest.url}/v2/models/talker/infer", body="{}").status == 501


def test_generate(rest: Rest) -> None:
    answer = curl(f"{rest.url}/v2/models/talker/generate", body='{"id":"g1","prompt":"once"}')
    assert answer.json == {"id": "g1", "model_name": "talker", "model_version": "1", "text": "once"}
    answer = curl(f"{rest.url}/v2/models/talker/generate", body='{"prompt":"two words"}')
    assert answer.status == 501
    assert "generate_stream" in answer.json["error"]
    assert curl(f"{rest.url}/v2/models/echo/generate", body='{"x":[1,2]}').json["x"] == [1, 2]


def test_a_reader_who_leaves_ends_the_stream(rest: Rest, tmp_path: Path) -> None:
    mark = tmp_path / "ended"
    body = json.dumps({"prompt": "a b c d", "times": 10_000_000, "mark": str(mark)})
    with subprocess.Popen(
        ["curl", "-sS", "-N", f"{rest.url}/v2/models/talker/generate_stream", "-d", body], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert b"data:" in process.stdout.readline()
        assert not mark.exists()
        process.terminate()
        process.stdout.read()
    eventually(mark.exists)
