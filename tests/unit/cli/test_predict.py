"""``headrace predict`` against a server in memory."""

from __future__ import annotations

import functools
import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from headrace.cli import predict as command
from headrace.cli.main import app
from headrace.cli.prediction_inputs import Chunk, Source
from headrace.client import Client
from headrace.core.models import Signature, TensorSpec
from headrace.core.tensors import DType, Tensor
from headrace.protocols import golden_lines
from headrace.protocols.golden_lines import GoldenRequest


@pytest.fixture
def server(fake_server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Doubles ``amount``, returns ``country``; whatever URL the command names is this server."""
    made = fake_server()
    monkeypatch.setattr(command, "Client", functools.partial(Client, transport=made.transport, retries=0))
    return made


def invoke(*arguments: str, stdin: str | None = None) -> Any:
    return CliRunner().invoke(app, ["predict", *arguments], input=stdin)


OUTPUTS = {"model": "fraud", "version": "1", "outputs": {"amount": [25.0, 2.0], "country": ["US", "FR"]}}
DATA = '{"amount": [12.5, 1], "country": ["US", "FR"]}'


def test_data_as_json(server: Any) -> None:
    result = invoke("fraud", "--data", DATA)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == OUTPUTS


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.json", DATA),
        ("rows.json", '[{"amount": 12.5, "country": "US"}, {"amount": 1, "country": "FR"}]'),
        ("rows.json", '{"instances": [{"amount": 12.5, "country": "US"}, {"amount": 1, "country": "FR"}]}'),
        ("rows.jsonl", '{"amount": 12.5, "country": "US"}\n{"amount": 1, "country": "FR"}\n'),
        ("rows.csv", "country,amount\nUS,12.5\nFR,1\n"),
    ],
)
def test_files_and_stdin_give_the_same(server: Any, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    for result in (invoke("fraud", str(tmp_path / name)), invoke("fraud", "-", stdin=text)):
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout) == OUTPUTS


def test_pairs_parameters_and_version(server: Any) -> None:
    result = invoke(
        "team/fraud", "-i", "amount=2", "-i", "country=US", "-p", "top=3", "--version", "7", "--output", "jsonl"
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"amount": 4.0, "country": "US"}
    assert server.paths()[-1] == "/v2/models/team/fraud/versions/7/infer"
    assert b'"top":3' in server.requests[-1].content


def test_many_rows_go_in_several_requests_and_come_back_in_order(server: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("amount,country\n" + "".join(f"{n},c{n}\n" for n in range(25)))
    result = invoke("fraud", str(path), "--rows", "10", "--json")
    assert json.loads(result.stdout)["outputs"]["amount"] == [2.0 * n for n in range(25)]
    assert sum(p.endswith("/infer") for p in server.paths()) == 3
    lines = invoke("fraud", str(path), "--rows", "10", "--output", "jsonl").stdout.splitlines()
    assert [json.loads(line)["country"] for line in lines] == [f"c{n}" for n in range(25)]


def test_table(server: Any) -> None:
    result = invoke("fraud", "--data", DATA, "--output", "table")
    assert result.exit_code == 0
    assert next(line.split() for line in result.stdout.splitlines() if line.strip()) == ["amount", "country"]


def test_streams(server: Any) -> None:
    result = invoke("fraud", "--stream", "--data", '{"amount": [1.5], "country": ["US"]}')
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["country"] for line in lines] == ["US"] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fraud",), 'Try: headrace predict fraud --data \'{"amount":[0.0],"country":["a"]}\''),
        (("absent", "-d", DATA), "no model 'absent'"),
        (("fraud", "-d", "{"), "--data: not valid JSON"),
        (("fraud", "-d", '{"amout": [1]}'), "unexpected input 'amout'"),
        (("fraud", "-d", '{"amount": ["x"]}'), "input 'amount' row 0: expected a number (FP64), got 'x'"),
        (("fraud", "-d", '{"amount": [1]}'), "missing input 'country'"),
        (("fraud", "rows.csv"), "rows.csv: cannot be read"),
        (("fraud", "rows.csv", "-d", DATA), "give one of FILE, --data and --input"),
        (("fraud", "-d", DATA, "--output", "xml"), "--output: expected json, jsonl or table, got 'xml'"),
        (("fraud", "-d", DATA, "--json", "--output", "table"), "--output: expected"),
        (("fraud", "-d", DATA, "--format", "xml"), "--format: expected json, jsonl, csv, got 'xml'"),
        (("fraud", "-d", DATA, "--timeout", "soon"), "--timeout: expected a duration above 0"),
        (("fraud", "-d", DATA, "--timeout", "0"), "--timeout: expected a duration above 0"),
        (("fraud", "-i", "amount"), "--input: expected NAME=VALUE"),
    ],
)
def test_wrong_use_ends_with_2_and_a_reason(server: Any, arguments: tuple[str, ...], message: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr + result.stdout
    as_json = invoke(*arguments, "--json") if "--json" not in arguments else result
    assert message in json.loads(as_json.stdout)["error"]


def test_errors_in_later_requests_say_where(server: Any) -> None:
    rows = [{"amount": n, "country": "x"} for n in range(5)]
    rows[3]["amount"] = "bad"
    result = invoke("fraud", "-d", json.dumps(rows), "--rows", "2")
    assert result.exit_code == 2
    assert "in the request that begins with row 2: input 'amount' row 1: expected a number" in result.stderr


def test_a_model_that_streams_names_the_flag(server: Any) -> None:
    refusal = b'{"error": "model \'chat\' answers with a stream: use generate_stream"}'
    server.rules.append(
        lambda request: httpx.Response(501, content=refusal) if request.url.path.endswith("/infer") else None
    )
    result = invoke("fraud", "-d", DATA)
    assert result.exit_code == 2, result.output
    assert "answers with a stream: use generate_stream; with this command: --stream" in result.stderr


@pytest.mark.parametrize(("status", "code"), [(503, 3), (429, 3), (504, 3), (500, 1), (400, 2)])
def test_exit_codes_of_failures(server: Any, status: int, code: int) -> None:
    server.rules.append(
        lambda request: httpx.Response(status, content=b'{"error": "why"}') if request.method == "POST" else None
    )
    result = invoke("fraud", "-d", DATA)
    assert (result.exit_code, result.stderr) == (code, "error: why\n")


def test_a_server_that_is_not_there_ends_with_3(fake_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    transport = fake_server(refuse).transport
    monkeypatch.setattr(command, "Client", functools.partial(Client, transport=transport, retries=0))
    result = invoke("fraud", "-d", DATA, "--url", "localhost:1")
    assert result.exit_code == 3
    assert "cannot connect to http://localhost:1" in result.stderr


def test_the_url_comes_from_the_environment(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_URL", "http://other:1")
    assert invoke("fraud", "-d", DATA).exit_code == 0
    assert server.requests[0].url.host == "other"


def test_the_key_comes_from_a_flag_or_the_environment(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_API_KEY", "hr_one")
    assert invoke("fraud", "-d", DATA).exit_code == 0
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer hr_one"}
    assert invoke("fraud", "-d", DATA, "--key", "hr_two").exit_code == 0
    assert server.requests[-1].headers["authorization"] == "Bearer hr_two"
    assert "hr_one" not in invoke("--help").output


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_may_not_ends_with_2(server: Any, status: int) -> None:
    server.rules.append(lambda request: httpx.Response(status, content=b'{"error": "why"}'))
    result = invoke("fraud", "-d", DATA)
    assert (result.exit_code, result.stderr) == (2, "error: why\n")


def recorded(path: Path) -> list[GoldenRequest]:
    return list(golden_lines.read(path.read_bytes(), path.name))


def values(of: tuple[Tensor, ...]) -> dict[str, Any]:
    return {tensor.name: (tensor.dtype.value, tensor.array.tolist()) for tensor in of}


def test_requests_and_answers_are_recorded(server: Any, tmp_path: Path) -> None:
    path = tmp_path / "golden.jsonl"
    result = invoke("fraud", "--data", DATA, "-p", "top=3", "--record", str(path))
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == OUTPUTS
    [found] = recorded(path)
    assert values(found.inputs) == {"amount": ("FP64", [12.5, 1.0]), "country": ("BYTES", [b"US", b"FR"])}
    assert values(found.outputs) == {"amount": ("FP64", [25.0, 2.0]), "country": ("BYTES", [b"US", b"FR"])}
    assert found.parameters == {"top": 3}


def test_a_recording_goes_on_request_by_request(server: Any, tmp_path: Path) -> None:
    path, rows = tmp_path / "golden.jsonl", tmp_path / "rows.csv"
    path.write_text(golden_lines.EXAMPLE)  # without a newline at its end
    rows.write_text("amount,country\n" + "".join(f"{n},c\n" for n in range(5)))
    assert invoke("fraud", str(rows), "--rows", "2", "--record", str(path)).exit_code == 0
    assert [request.outputs[0].array.tolist() for request in recorded(path)] == [[0.25], [0, 2], [4, 6], [8]]


def test_what_was_answered_before_a_failure_stays(server: Any, tmp_path: Path) -> None:
    path = tmp_path / "golden.jsonl"
    rows = [{"amount": n, "country": "x"} for n in range(5)]
    rows[3]["amount"] = "bad"
    assert invoke("fraud", "-d", json.dumps(rows), "--rows", "2", "--record", str(path)).exit_code == 2
    assert len(recorded(path)) == 1


@pytest.mark.parametrize("dtype", [DType.FP16, DType.FP32, DType.UINT64, DType.BYTES])
def test_every_datatype_is_recorded_as_the_model_has_it(server: Any, tmp_path: Path, dtype: DType) -> None:
    spec = (TensorSpec("x", dtype, (-1,)),)
    server.signature = Signature(spec, spec)
    path = tmp_path / "golden.jsonl"
    # The numbers of UINT64 are none that a float could hold.
    given, answer = {
        DType.UINT64: (2**62 + 1, 2**63 + 2), DType.BYTES: ("é", "é".encode()),
    }.get(dtype, (0.25, 0.5))  # fmt: skip
    result = invoke("fraud", "--data", json.dumps({"x": [given]}), "--record", str(path))
    assert result.exit_code == 0, result.output
    [found] = recorded(path)
    assert values(found.outputs) == {"x": (dtype.value, [answer])}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-d", DATA, "--record", "{}/missing/golden.jsonl"), "cannot be written: No such file or directory"),
        (("-d", DATA, "--record", "{}"), "cannot be written: Is a directory"),
        (("-d", DATA, "--record", "{}/other"), "other, line 1: not valid JSON"),
        (("-d", DATA, "--stream", "--record", "{}/golden.jsonl"), "--record with --stream needs --version"),
        (("-d", "{", "--record", "{}/golden.jsonl"), "--data: not valid JSON"),
        (("-d", '{"amount": [1]}', "--record", "{}/golden.jsonl"), "missing input 'country'"),
    ],
)
def test_a_recording_that_cannot_be(server: Any, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    (tmp_path / "other").write_text("a,b\n")
    result = invoke("fraud", *(part.replace("{}", str(tmp_path)) for part in arguments))
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert (tmp_path / "other").read_text() == "a,b\n"
    assert [path.name for path in tmp_path.iterdir()] == ["other"], "no file stays that got nothing"


def test_streams_are_recorded_as_they_are_printed(server: Any, tmp_path: Path) -> None:
    spec = (TensorSpec("x", DType.FP32, (-1,)),)
    server.signature = Signature(spec, spec)
    path = tmp_path / "golden.jsonl"
    asked = ("fraud", "--data", '{"x": [0.1, 2]}', "--stream", "-p", "top=3", "--version", "1", "--record", str(path))
    result = invoke(*asked)
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["x"] for line in result.stdout.splitlines()] == [[pytest.approx(0.1), 2.0]] * 3
    [found] = recorded(path)
    given = {"x": ("FP32", [pytest.approx(0.1), 2.0])}
    assert (values(found.inputs), found.parameters) == (given, {"top": 3})
    assert [values(response) for response in found.answer] == [given] * 3


def test_the_answer_of_a_fallback_is_not_recorded(server: Any, tmp_path: Path) -> None:
    def fell_back(request: httpx.Request) -> httpx.Response | None:
        if request.method != "POST":
            return None
        body = {"model_name": "fraud", "model_version": "1", "outputs": []}
        return httpx.Response(200, headers={"X-Headrace-Fallback": "cheap"}, content=json.dumps(body).encode())

    server.rules.append(fell_back)
    result = invoke("fraud", "-d", DATA, "--record", str(tmp_path / "golden.jsonl"))
    assert result.exit_code == 2
    assert "the answer came from the fallback 'cheap' and is not recorded" in result.stderr
    assert list(tmp_path.iterdir()) == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_long_jobs_show_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    source = Source(io.StringIO(), "csv", "rows.csv", size=100, position=lambda: 50)
    chunks = [Chunk([n], n) for n in range(4)]
    assert list(command._with_progress(source, iter(chunks))) == chunks
    assert "rows.csv, row 3" in terminal.getvalue()


@pytest.mark.parametrize(("count", "terminal"), [(0, True), (1, True), (4, False)])
def test_short_jobs_and_pipes_show_none(monkeypatch: pytest.MonkeyPatch, count: int, terminal: bool) -> None:
    stderr = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    source = Source(io.StringIO(), "csv", "rows.csv", size=100, position=lambda: 50)
    chunks = [Chunk([n], n) for n in range(count)]
    assert list(command._with_progress(source, iter(chunks))) == chunks
    assert stderr.getvalue() == ""
