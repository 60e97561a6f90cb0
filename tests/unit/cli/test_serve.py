"""``headrace serve`` up to the supervisor: what the flags become, and how wrong ones end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from headrace.app import events, supervisor
from headrace.app.settings.keys import KEYS, Key
from headrace.app.settings.serve_settings import ServeSettings
from headrace.cli.main import app
from headrace.cli.serve import app as serve_app
from headrace.core.endpoints import BatchMode, Isolation
from headrace.core.keys import Signatures

Served = list[ServeSettings]
DIGEST = f"sha256:{'0a' * 32}"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Served:
    """Settings that reached the supervisor; the working directory is empty but for two models."""
    monkeypatch.chdir(tmp_path)
    for name in ("fraud.onnx", "churn.ubj"):
        Path(name).touch()
    seen: Served = []

    def run(settings: ServeSettings, on_event: Callable[[events.Event], None]) -> int:
        seen.append(settings)
        on_event(events.Stopped(0))
        return 0

    monkeypatch.setattr(supervisor, "run", run)
    return seen


def invoke(*arguments: str, env: dict[str, str] | None = None) -> Any:
    return CliRunner().invoke(app, ["serve", *arguments], env=env)


def test_models_and_defaults(served: Served) -> None:
    result = invoke("fraud.onnx", "c=churn.ubj")
    assert (result.exit_code, result.stdout) == (0, "stopped\n")
    assert [(m.path, m.name) for m in served[0].models] == [("fraud.onnx", None), ("churn.ubj", "c")]
    assert served[0].gateway.port == 8000


def test_every_flag_reaches_its_field(served: Served) -> None:
    flags = (
        "--host 0.0.0.0 --port 1 --management-host ::1 --management-port 2 --gateways 3 --replicas 4 --threads 5"
        " --isolation packed --max-batch-size 6 --max-queue-delay-ms 7 --batching exact --timeout 8s"
        " --replica-timeout 9 --drain 10 --drain-delay 500ms --max-body 1MiB --tls-cert c.pem --tls-key k.pem"
        f" --trust {DIGEST} --trust churn.ubj --no-auth --sigv4 accept-unverified --watch"
        " --explain-batching --access-log --log-format json"
        " --log-level debug --cpu 1.5 --memory 1GiB --option a=b --option c=d=e"
    )
    result = invoke("fraud.onnx", *flags.split())
    assert result.exit_code == 0, result.output
    (settings,) = served
    gateway, deployment = settings.gateway, settings.deployment
    assert (gateway.host, gateway.port, gateway.gateways, gateway.no_auth) == ("0.0.0.0", 1, 3, True)
    assert gateway.sigv4 is Signatures.ACCEPT_UNVERIFIED
    assert (gateway.drain_s, gateway.drain_delay_s, gateway.max_body_bytes) == (10.0, 0.5, 1 << 20)
    assert (gateway.tls_cert, gateway.tls_key, gateway.access_log) == ("c.pem", "k.pem", True)
    assert (settings.management_host, settings.management_port) == ("::1", 2)
    assert (deployment.replicas, deployment.threads, deployment.isolation) == (4, 5, Isolation.PACKED)
    assert (deployment.timeout_s, deployment.replica_timeout_s) == (8.0, 9.0)
    assert (deployment.resources.cpu, deployment.resources.memory) == (1.5, 1 << 30)
    assert deployment.batching.mode is BatchMode.EXACT
    assert (deployment.batching.max_batch_size, deployment.batching.max_queue_delay_ms) == (6, 7.0)
    assert deployment.options == {"a": "b", "c": "d=e"}
    assert settings.trust == (DIGEST, "churn.ubj")
    assert (settings.watch, settings.explain_batching) == (True, True)
    assert (settings.logs.format, settings.logs.level) == ("json", "debug")


@pytest.mark.parametrize("key", [key for key in KEYS if key.flag], ids=lambda key: key.name)
def test_every_flag_of_the_table_exists_with_its_help(key: Key) -> None:
    options = {name: p for p in typer.main.get_command(serve_app).params for name in p.opts}
    assert key.flag in options
    assert key.help in (getattr(options[key.flag], "help", None) or "")


def test_negated_switches_override_the_file(served: Served) -> None:
    Path("headrace.yaml").write_text("watch: true\naccess_log: true\nmodels: [fraud.onnx]\n")
    assert invoke("--no-watch").exit_code == 0
    assert (served[0].watch, served[0].gateway.access_log) == (False, True)


def test_environment_and_config_file(served: Served) -> None:
    Path("other.yaml").write_text("port: 1\nreplicas: 2\nmodels: [churn.ubj]\n")
    assert invoke("--config", "other.yaml", env={"HEADRACE_REPLICAS": "3"}).exit_code == 0
    assert (served[0].gateway.port, served[0].deployment.replicas) == (1, 3)
    assert served[0].models[0].path == "churn.ubj"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no model was given and there is no headrace.yaml in "),
        (("fruad.onnx",), "there is no file or folder 'fruad.onnx'; did you mean 'fraud.onnx'?"),
        (("fraud.onnx", "--port", "x"), "--port: port: expected a whole number from 0 to 65535, got 'x'"),
        (("fraud.onnx", "--host", "0.0.0.0"), "host '0.0.0.0' can be reached from other machines"),
        (("fraud.onnx", "--tls-cert", "c.pem"), "tls.cert is set but tls.key is not"),
        (("fraud.onnx", "a/fraud=churn.ubj", "fraud=churn.ubj"), "would both be endpoint 'fraud'"),
        (("--config", "absent.yaml"), "absent.yaml: cannot be read"),
    ],
)
def test_wrong_arguments_end_with_2_and_a_reason(
    served: Served, arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # what was served by the one who runs the tests is not restored
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert served == []
    as_json = invoke(*arguments, "--json")
    assert as_json.exit_code == 2
    assert message in json.loads(as_json.stdout)["error"]


def test_unknown_flags_end_with_2(served: Served) -> None:
    result = invoke("fraud.onnx", "--prot", "1")
    assert result.exit_code == 2
    assert "--port" in result.output


def test_json_events(served: Served) -> None:
    assert json.loads(invoke("fraud.onnx", "--json").stdout) == {"type": "Stopped", "exit_code": 0}


def test_the_supervisors_exit_code_is_ours(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "run", lambda settings, on_event: 1)
    assert invoke("fraud.onnx").exit_code == 1
