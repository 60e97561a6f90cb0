"""API keys from ``headrace keys`` to real clients of real servers: every header form, both ports, while keys come and
go."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.utils import InferenceServerException

import headrace
from headrace.core import errors
from tests import models
from tests.acceptance import grpc_calls
from tests.acceptance.clients.wire import Answer, Wire
from tests.acceptance.conftest import no_bugs
from tests.serving import Served, eventually, served

pytestmark = pytest.mark.xdist_group("keys")

INFER = "/v2/models/echo/infer"
BODY = b'{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1,2]}]}'
WITHIN_S = 2.0
"""Changes of keys act within this time, without a restart."""


def headrace_keys(state: Path, *arguments: str) -> Any:
    command = [sys.executable, "-m", "headrace.cli.main", "keys", *arguments, "--state", str(state), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


class Keys:
    """A server whose state has keys, and some of them."""

    def __init__(self, server: Served, state: Path) -> None:
        self.server = server
        self.state = state
        self.admin: str = headrace_keys(state, "bootstrap")["key"]
        self.partner = self.make("partner", "-s", "predict", "-e", "echo")
        self.scraper = self.make("scraper", "-s", "metrics")
        self.manager = self.make("manager", "-s", "manage")
        eventually(lambda: self.status(self.manager) == 403, timeout=WITHIN_S)

    def make(self, *arguments: str) -> str:
        return str(headrace_keys(self.state, "create", *arguments)["key"])

    def post(self, headers: dict[str, str] | None = None, path: str = INFER) -> httpx.Response:
        return httpx.post(f"{self.server.url}{path}", content=BODY, headers=headers)

    def status(self, key: str) -> int:
        return self.post({"authorization": f"Bearer {key}"}).status_code


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    """Started without any key, on loopback; the first one closes it."""
    directory = tmp_path_factory.mktemp("keys")
    echo = models.build("echo")
    state = directory / "of-keys"
    with served(f"echo={echo}", f"other={echo}", "--state", state, "--gateways", "2", directory=directory) as running:
        assert httpx.post(f"{running.url}{INFER}", content=BODY).status_code == 200
        assert httpx.get(f"{running.management_url}/metrics").status_code == 200
        yield Keys(running, state)
        no_bugs(running.log())


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


# --- forms -----------------------------------------------------------------------------------------------------


def forms(key: str) -> list[dict[str, str]]:
    return [
        {"authorization": f"Bearer {key}"},
        {"authorization": f"bearer {key}"},
        {"authorization": basic(key, "")},
        {"authorization": basic("anybody", key)},
        {"x-api-key": key},
        {"api-key": key},
    ]


def test_every_header_form(keys: Keys) -> None:
    for headers in forms(keys.partner):
        answer = keys.post(headers)
        assert answer.status_code == 200, (headers, answer.text)
        assert answer.json()["outputs"][0]["data"] == [1.0, 2.0]
    wrong = keys.partner[:-1] + ("a" if keys.partner.endswith("b") else "b")
    for headers in [{}, *forms(wrong)]:
        answer = keys.post(headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert answer.headers["x-headrace-error"] == "unauthorized"
        assert wrong not in answer.text


def test_curl(keys: Keys) -> None:
    for arguments in (
        ["-H", f"Authorization: Bearer {keys.partner}"],
        ["-u", f"{keys.partner}:"],
        ["-u", f"me:{keys.partner}"],
        ["-H", f"x-api-key: {keys.partner}"],
        ["-H", f"api-key: {keys.partner}"],
    ):
        command = ["curl", "-sS", "-o", "-", "-w", "\n%{http_code}", *arguments, "-d", BODY.decode()]
        done = subprocess.run([*command, f"{keys.server.url}{INFER}"], capture_output=True, text=True, timeout=60)
        assert done.stdout.endswith("\n200"), (arguments, done.stdout, done.stderr)


def test_every_metadata_form_over_grpc(keys: Keys) -> None:
    with grpc_calls.stub(keys.server.address) as stub:
        request = grpc_calls.request("echo", 1.5)
        for headers in forms(keys.partner):
            assert stub.ModelInfer(request, metadata=tuple(headers.items())).model_name == "echo"
        assert code(stub.ModelInfer, request) is grpc.StatusCode.UNAUTHENTICATED
        for headers in forms("hr_wrong"):
            assert code(stub.ModelInfer, request, tuple(headers.items())) is grpc.StatusCode.UNAUTHENTICATED
        for twice in (("junk", keys.partner), (keys.partner, "junk"), (keys.partner, keys.partner)):
            repeated = tuple(("x-api-key", value) for value in twice)
            assert code(stub.ModelInfer, request, repeated) is grpc.StatusCode.UNAUTHENTICATED
        other = grpc_calls.request("other", 1.5)
        mine = (("x-api-key", keys.partner),)
        assert code(stub.ModelInfer, other, mine) is grpc.StatusCode.PERMISSION_DENIED
        # A stream is refused as a whole without a key, and message by message for what the key is not for.
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.ModelStreamInfer(iter([request])))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        said = [a.error_message for a in stub.ModelStreamInfer(iter([request, other]), metadata=mine)]
        assert sorted(bool(text) for text in said) == [False, True]
        assert any("may not ask 'other'" in text for text in said)


def code(method: Any, request: Any, metadata: tuple[tuple[str, str], ...] = ()) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        method(request, metadata=metadata)
    found: grpc.StatusCode = caught.value.code()
    return found


def test_tritonclient(keys: Keys) -> None:
    for module in (triton_http, triton_grpc):
        headers = {"authorization": f"Bearer {keys.partner}"}  # the client adds to it
        tensor = module.InferInput("x", [2], "FP32")
        tensor.set_data_from_numpy(np.array([1, 2], np.float32))
        with module.InferenceServerClient(keys.server.address) as client:
            assert client.is_server_ready()
            assert client.is_model_ready("echo", headers=headers)
            assert client.infer("echo", [tensor], headers=headers).as_numpy("x").tolist() == [1.0, 2.0]
            assert client.get_model_metadata("echo", headers=headers)
            for given, name, said in (
                ({}, "echo", "an API key is needed"),
                (headers, "other", "may not ask 'other'"),
            ):
                with pytest.raises(InferenceServerException, match=said):
                    client.infer(name, [tensor], headers=given)


def test_kserve(keys: Keys) -> None:
    script = Path(__file__).with_name("clients") / "kserve_key.py"
    done = subprocess.run(
        [sys.executable, script, keys.server.address, keys.partner], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "ready": True,
        "rest": [1.0, 2.0],
        "rest without": 401,
        "grpc": [1.0, 2.0],
        "grpc without": "UNAUTHENTICATED",
    }


def test_our_own_client_and_command(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    with headrace.Client(keys.server.url, api_key=keys.partner) as client:
        assert client.models() == ["echo"]
        assert client.predict("echo", {"x": np.array([1, 2], np.float32)})["x"].tolist() == [1.0, 2.0]
        with pytest.raises(errors.Forbidden, match="may not read about 'other'"):
            client.predict("other", {"x": [1.0]})
    with headrace.Client(keys.server.url) as client:
        assert client.ready()
        with pytest.raises(errors.Unauthorized, match="an API key is needed"):
            client.models()
    monkeypatch.setenv("HEADRACE_API_KEY", keys.partner)
    with headrace.Client(keys.server.url) as client:
        assert client.models() == ["echo"]
    command = [sys.executable, "-m", "headrace.cli.main", "predict", "--url", keys.server.url, "--json"]
    for key, name, exit_code in ((keys.partner, "echo", 0), (keys.partner, "other", 2), ("hr_wrong", "echo", 2)):
        arguments = [name, "--data", '{"x": [1.5]}', "--key", key]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == exit_code, done.stdout + done.stderr


# --- what is open, and to whom ---------------------------------------------------------------------------------


def test_health_is_open_and_nothing_else(keys: Keys) -> None:
    url = keys.server.url
    for path in ("/", "/ping", "/health", "/v2/health/live", "/v2/health/ready"):
        assert httpx.get(f"{url}{path}").status_code == 200, path
    for path in ("/v2", "/v2/models", "/v2/models/echo", "/v2/models/echo/ready", "/v1/models", "/nothing"):
        assert httpx.get(f"{url}{path}").status_code == 401, path
    with grpc.insecure_channel(keys.server.address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    management = keys.server.management_url
    for path in ("/healthz", "/readyz"):
        assert httpx.get(f"{management}{path}").status_code == 200
    for path in ("/", "/metrics", "/api/v1/endpoints", "/api/v1/replicas", "/api/v1/events", "/api/v1/openapi.json"):
        assert httpx.get(f"{management}{path}").status_code == 401, path


def test_scopes_at_the_management_port(keys: Keys) -> None:
    management = keys.server.management_url
    expected = {
        keys.admin: {"/metrics": 200, "/api/v1/endpoints": 200},
        keys.manager: {"/metrics": 200, "/api/v1/endpoints": 200},
        keys.scraper: {"/metrics": 200, "/api/v1/endpoints": 403},
        keys.partner: {"/metrics": 403, "/api/v1/endpoints": 403},
    }
    for key, answers in expected.items():
        for path, status in answers.items():
            for headers in forms(key):
                assert httpx.get(f"{management}{path}", headers=headers).status_code == status, (key[:6], path)
    inference = {key: keys.status(key) for key in expected}
    assert list(inference.values()) == [200, 403, 403, 200]


def test_pages_from_elsewhere_ask_nothing(keys: Keys) -> None:
    management = keys.server.management_url
    headers = {"x-api-key": keys.admin}
    own = httpx.get(f"{management}/api/v1/endpoints", headers={**headers, "origin": management})
    assert own.status_code == 200
    for origin in ("http://evil.example", "http://127.0.0.1:1", "null"):
        answer = httpx.get(f"{management}/api/v1/endpoints", headers={**headers, "origin": origin})
        assert (answer.status_code, answer.json()["code"]) == (403, "cross_origin")
    rebound = httpx.get(f"{management}/api/v1/endpoints", headers={**headers, "host": "evil.example"})
    assert rebound.status_code == 421


# --- keys that come and go -------------------------------------------------------------------------------------


def test_a_revoked_key_is_refused_within_seconds(keys: Keys) -> None:
    key = keys.make("leaver", "-s", "predict", "-e", "*")
    eventually(lambda: keys.status(key) == 200, timeout=WITHIN_S)
    headrace_keys(keys.state, "revoke", "leaver", "--why", "left")
    began = time.monotonic()
    # Both gateways: connections are spread over them.
    eventually(lambda: {keys.status(key) for _ in range(8)} == {401}, timeout=WITHIN_S)
    assert time.monotonic() - began < WITHIN_S
    answer = keys.post({"x-api-key": key})
    assert "key 'leaver'" in answer.json()["error"]
    assert "was revoked" in answer.json()["error"]


def test_an_expired_key_is_refused(keys: Keys) -> None:
    key = keys.make("brief", "-s", "predict", "-e", "*", "--expires", "4s")
    eventually(lambda: keys.status(key) == 200, timeout=WITHIN_S)
    eventually(lambda: keys.status(key) == 401, timeout=6.0)
    assert "expired" in keys.post({"x-api-key": key}).json()["error"]


def test_rotation_has_two_live_keys(keys: Keys) -> None:
    old = keys.make("ci", "-s", "predict", "-e", "echo")
    new = headrace_keys(keys.state, "rotate", "ci", "--grace", "1h")
    eventually(lambda: keys.status(new["key"]) == 200, timeout=WITHIN_S)
    assert keys.status(old) == 200
    (first, _) = headrace_keys(keys.state, "show", "ci")["keys"]
    headrace_keys(keys.state, "revoke", first["id"])
    eventually(lambda: keys.status(old) == 401, timeout=WITHIN_S)
    assert keys.status(new["key"]) == 200


def test_keys_outlive_the_processes_that_check_them(keys: Keys) -> None:
    """Nobody is let in by a gateway or a controller that has just started."""
    server = keys.server
    seen: set[int] = set()

    def kill(module: str) -> None:
        (victim, *_) = server.children(module)
        victim.kill()
        victim.wait(10)

    def look() -> bool:
        with contextlib.suppress(httpx.TransportError):
            seen.add(keys.post().status_code)
            return keys.status(keys.partner) == 200
        return False

    secret = keys.state / "key.secret"
    secret.chmod(0o644)  # no controller reads the state with this: the new one goes on with what the old one knew
    for module, count in (("app.gateway", 2), ("app.controller", 1)):
        kill(module)
        eventually(look)
        eventually(lambda m=module, n=count: look() and len(server.children(m)) == n)  # type: ignore[misc]
    management = f"{server.management_url}/api/v1/endpoints"

    def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            seen.add(httpx.get(management).status_code)
            return httpx.get(management, headers={"x-api-key": keys.manager}).status_code == 200
        return False

    eventually(answers)
    assert seen <= {401, 503}
    assert "keys_unreadable" in server.log()
    secret.chmod(0o600)
    # And follows again what changes.
    late = keys.make("late", "-s", "predict", "-e", "*")
    eventually(lambda: keys.status(late) == 200, timeout=WITHIN_S)


def test_the_management_port_makes_keys_that_work_at_once_and_never_twice(keys: Keys) -> None:
    url = keys.server.management_url
    with headrace.Client(keys.server.url, management_url=url, api_key=keys.admin) as client:
        made = client.keys.create("remote", ["predict"], ["echo"])
        assert httpx.get(f"{url}/api/v1/keys", headers={"x-api-key": made.key}).status_code == 403
        eventually(lambda: {keys.status(made.key) for _ in range(8)} == {200}, timeout=WITHIN_S)
        story = client.keys.show("remote")
        assert [(event.what, event.who) for event in story.events] == [("key.create", "key:admin")]
        client.keys.revoke("remote", why="enough")
        eventually(lambda: {keys.status(made.key) for _ in range(8)} == {401}, timeout=WITHIN_S)
    headers = {"x-api-key": keys.admin, "idempotency-key": "c2f7"}
    body = {"name": "once", "scopes": ["metrics"]}
    first = httpx.post(f"{url}/api/v1/keys", json=body, headers=headers)
    assert first.status_code == 201
    again = httpx.post(f"{url}/api/v1/keys", json=body, headers=headers)
    assert (again.status_code, again.json()["code"]) == (409, "secret_shown_once")
    secret = first.json()["key"].rpartition("_")[2]
    kept = b"".join(path.read_bytes() for path in keys.state.iterdir() if path.is_file())
    assert secret.encode() not in kept
    assert secret not in keys.server.log()
    manager = httpx.get(f"{url}/api/v1/keys", headers={"x-api-key": keys.manager})
    assert (manager.status_code, manager.json()["code"]) == (403, "forbidden")


def test_commands_with_an_admin_key_go_through_the_server(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_API_KEY", keys.admin)
    made = keys.make("through", "-s", "metrics")
    management = f"{keys.server.management_url}/metrics"
    assert httpx.get(management, headers={"x-api-key": made}).status_code == 200, "at once"
    (event,) = headrace_keys(keys.state, "show", "through")["events"]
    assert event["who"] == "key:admin"


# --- hostile ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        ["Authorization: Bearer \xff\xfe\x80"],
        ["x-api-key: küche"],
        ["Authorization: Bearer " + "x" * 10_000],
        ["x-api-key: " + "x" * 10_000, "Authorization: Bearer KEY"],
        ["Authorization: Bearer KEY", "Authorization: Bearer junk"],
        ["Authorization: Bearer junk", "Authorization: Bearer KEY"],
        ["Authorization: Bearer KEY", "Authorization: Bearer KEY"],
        ["x-api-key: junk", "x-api-key: KEY"],
        ["Authorization: Basic " + base64.b64encode(b"\xff\x00:\xfe").decode()],
        ["Authorization: Basic ===="],
        ["Authorization: KEY"],
        ["Authorization:"],
        ["x-api-key: KEY, KEY"],
    ],
    ids=lambda lines: lines[0][:40].encode("ascii", "replace").decode(),
)
def test_hostile_headers_are_refused_and_the_server_serves_on(keys: Keys, lines: list[str]) -> None:
    answer = ask(keys, *(line.replace("KEY", keys.partner) for line in lines))
    assert answer.status == 401, answer
    assert keys.partner not in answer.error
    assert keys.status(keys.partner) == 200


def test_headers_beyond_all_measure_are_refused_before_they_are_read(keys: Keys) -> None:
    with Wire(keys.server.port) as wire:
        wire.post(INFER, BODY, f"x-api-key: {'x' * 300_000}")
        answer = wire.answer()
    assert answer is None or answer.status == 431
    assert keys.status(keys.partner) == 200


def ask(keys: Keys, *headers: str) -> Answer:
    with Wire(keys.server.port) as wire:
        wire.post(INFER, BODY, *headers)
        return wire.must_answer()


def test_a_body_that_nobody_may_send_is_not_waited_for(keys: Keys) -> None:
    with Wire(keys.server.port) as wire:
        wire.send(b"POST " + INFER.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert wire.must_answer().status == 401


# --- hosts and signatures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--host", "--management-host"])
def test_a_host_that_others_reach_needs_a_key_to_start(tmp_path: Path, flag: str) -> None:
    state = tmp_path / "state"
    command = [sys.executable, "-m", "headrace.cli.main", "serve", f"echo={models.build('echo')}", flag, "0.0.0.0"]
    done = subprocess.run([*command, "--state", str(state)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert f"make the first one with: headrace keys bootstrap --state {state};" in done.stderr
    assert not (state / "key.secret").exists()


def test_with_a_key_it_starts_and_signatures_may_name_keys(tmp_path: Path) -> None:
    state = tmp_path / "state"
    admin = headrace_keys(state, "bootstrap")
    arguments = (f"echo={models.build('echo')}", "--host", "0.0.0.0", "--sigv4", "accept-unverified")
    with served(*arguments, "--state", state, directory=tmp_path / "run") as server:
        url = f"http://127.0.0.1:{server.port}"
        assert httpx.post(f"{url}{INFER}", content=BODY).status_code == 401
        assert httpx.post(f"{url}{INFER}", content=BODY, headers={"api-key": admin["key"]}).status_code == 200
        assert httpx.post(f"{url}{INFER}", content=BODY, headers=signed(url, admin["id"])).status_code == 200
        assert httpx.post(f"{url}{INFER}", content=BODY, headers=signed(url, "a" * 12)).status_code == 401
        # A name without a proof is good for predictions at most.
        management = f"{server.management_url}/metrics"
        assert httpx.get(management, headers=signed(management, admin["id"])).status_code in (401, 403)


def test_signatures_are_refused_unless_that_is_allowed(keys: Keys) -> None:
    answer = keys.post(signed(keys.server.url, headrace_keys(keys.state, "show", "partner")["keys"][0]["id"]))
    assert answer.status_code == 401
    assert "sigv4: accept-unverified" in answer.json()["error"]
    # An unsigned AWS client brings its key in the headers that all others use.
    assert keys.post({"x-api-key": keys.partner, "x-amz-date": "20260101T000000Z"}).status_code == 200


def signed(url: str, key_id: str) -> dict[str, str]:
    """Headers that botocore puts on a request."""
    request = AWSRequest("POST", f"{url}{INFER}", data=BODY, headers={"content-type": "application/json"})
    SigV4Auth(Credentials(key_id, "whatever"), "sagemaker", "eu-central-1").add_auth(request)
    return dict(request.headers.items())


def test_no_auth_asks_for_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    headrace_keys(state, "bootstrap")
    arguments = (f"echo={models.build('echo')}", "--host", "0.0.0.0", "--no-auth", "--state", state)
    with served(*arguments, directory=tmp_path / "run") as server:
        assert httpx.post(f"http://127.0.0.1:{server.port}{INFER}", content=BODY).status_code == 200
