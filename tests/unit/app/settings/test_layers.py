"""Precedence of flags, environment, file and defaults, and the rules between settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.app.settings.layers import Flags, load_settings
from headrace.app.settings.serve_settings import DeploymentSettings, ServeSettings
from headrace.core import errors
from headrace.core.endpoints import BatchMode


def load(
    folder: Path,
    models: tuple[str, ...] = ("a.onnx",),
    flags: Flags | None = None,
    environ: dict[str, str] | None = None,
    yaml: str | None = None,
) -> ServeSettings:
    if yaml is not None:
        (folder / "headrace.yaml").write_text(yaml)
    return load_settings(models, flags, environ=environ or {}, directory=folder)


def test_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert settings.gateway.port == 8000
    assert settings.gateway.host == "127.0.0.1"
    assert settings.deployment == DeploymentSettings()
    assert [(m.path, m.name, m.settings) for m in settings.models] == [("a.onnx", None, None)]


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    yaml = "port: 1001\nreplicas: 11\nthreads: 21\nbatching: {max_batch_size: 31, mode: always}\n"
    environ = {"HEADRACE_PORT": "1002", "HEADRACE_REPLICAS": "12", "HEADRACE_BATCHING__MAX_BATCH_SIZE": "32"}
    settings = load(tmp_path, flags={"port": "1003"}, environ=environ, yaml=yaml)
    assert settings.gateway.port == 1003
    assert settings.deployment.replicas == 12
    assert settings.deployment.threads == 21
    assert settings.deployment.batching.max_batch_size == 32
    assert settings.deployment.batching.mode is BatchMode.ALWAYS
    assert settings.deployment.timeout_s == 60.0


def test_every_section_of_the_struct_is_reached(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        yaml="""
management_port: 9100
logs: {level: error}
watch: true
runtime_dir: run
admission: {max_queue_time: 250ms, max_queue_bytes: 1KiB}
max_body: 1MiB
resources: {memory: 1GiB}
""",
    )
    assert settings.management_port == 9100
    assert settings.logs.level == "error"
    assert settings.watch is True
    assert settings.runtime_dir == str(tmp_path / "run")
    assert settings.deployment.admission.max_queue_time_s == 0.25
    assert settings.deployment.admission.max_queue_bytes == 1024
    assert settings.gateway.max_body_bytes == 1 << 20
    assert settings.deployment.resources.memory == 1 << 30


def test_endpoint_settings_win_over_the_top_level_and_flags_over_both(tmp_path: Path) -> None:
    yaml = "replicas: 2\nthreads: 3\nendpoints:\n  a: {model: a.onnx, replicas: 4}\nmodels: [b.onnx]\n"
    settings = load(tmp_path, (), yaml=yaml)
    first, second = settings.models
    assert first.settings is not None
    assert (first.name, first.settings.replicas, first.settings.threads) == ("a", 4, 3)
    assert second.settings is None
    assert settings.deployment.replicas == 2
    forced = load(tmp_path, (), flags={"replicas": "9"}, yaml=yaml)
    assert forced.models[0].settings is not None
    assert forced.models[0].settings.replicas == 9
    assert forced.deployment.replicas == 9


def test_typed_models_replace_those_of_the_file_and_keep_settings_of_their_name(tmp_path: Path) -> None:
    yaml = "endpoints:\n  a: {model: old.onnx, replicas: 4}\n  b: {model: b.onnx}\nmodels: [c.onnx]\n"
    settings = load(tmp_path, ("new/a.onnx", "z=zz.onnx"), yaml=yaml)
    assert [m.path for m in settings.models] == ["new/a.onnx", "zz.onnx"]
    assert settings.models[0].settings is not None
    assert settings.models[0].settings.replicas == 4
    assert settings.models[1].settings is None


def test_models_of_the_environment(tmp_path: Path) -> None:
    settings = load(tmp_path, (), environ={"HEADRACE_MODELS": "a.onnx, b=c.ubj"})
    assert [(m.name, m.path) for m in settings.models] == [(None, "a.onnx"), ("b", "c.ubj")]


def test_options_merge_name_by_name(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        flags={"options": ["b=flag"]},
        environ={"HEADRACE_OPTIONS": "b=env,c=env"},
        yaml="options: {a: file, b: file, c: file}",
    )
    assert settings.deployment.options == {"a": "file", "b": "flag", "c": "env"}


def test_lists_and_shorthands_of_the_environment(tmp_path: Path) -> None:
    environ = {"HEADRACE_TRUST": "sha256:aa, b.pkl", "HEADRACE_BATCHING": "exact", "HEADRACE_TLS__CERT": "c"}
    environ["HEADRACE_TLS__KEY"] = "k"
    settings = load(tmp_path, environ=environ)
    assert settings.trust == ("sha256:aa", "b.pkl")
    assert settings.deployment.batching.mode is BatchMode.EXACT
    assert (settings.gateway.tls_cert, settings.gateway.tls_key) == ("c", "k")


def test_the_file_can_be_named_by_flag_or_environment(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("port: 1234")
    (tmp_path / "headrace.yaml").write_text("port: 1")
    by_flag = load_settings(["a"], environ={}, directory=tmp_path, config=other)
    by_variable = load_settings(["a"], environ={"HEADRACE_CONFIG": str(other)}, directory=tmp_path)
    assert by_flag.gateway.port == by_variable.gateway.port == 1234


def test_unknown_variables_are_errors_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(errors.BadSettings) as caught:
        load(tmp_path, environ={"HEADRACE_PROT": "1"})
    assert caught.value.message == (
        "environment variable HEADRACE_PROT: there is no such setting; did you mean 'HEADRACE_PORT'?"
    )


def test_service_links_of_kubernetes_are_not_settings(tmp_path: Path) -> None:
    environ = {
        "HEADRACE_PORT": "tcp://10.0.0.1:8000",
        "HEADRACE_SERVICE_HOST": "10.0.0.1",
        "HEADRACE_SERVICE_PORT": "8000",
        "HEADRACE_PORT_8000_TCP_ADDR": "10.0.0.1",
        "HEADRACE_URL": "http://x",
    }
    assert load(tmp_path, environ=environ).gateway.port == 8000


@pytest.mark.parametrize(
    ("flags", "environ", "message"),
    [
        ({"port": "x"}, {}, "--port: port: expected a whole number from 0 to 65535, got 'x'"),
        (
            {"max_body": "9XB"},
            {},
            "--max-body: max_body: expected a size above 0 like 64MiB, 1GB or a number of bytes, got '9XB'",
        ),
        ({"options": ["novalue"]}, {}, "--option: expected NAME=VALUE, got 'novalue'"),
        (
            {},
            {"HEADRACE_DRAIN": "x"},
            "environment variable HEADRACE_DRAIN: drain: expected a duration like 30, 30s, 500ms or 2m, got 'x'",
        ),
    ],
)
def test_wrong_texts_name_where_they_came_from(
    tmp_path: Path, flags: Flags, environ: dict[str, str], message: str
) -> None:
    with pytest.raises(errors.BadSettings) as caught:
        load(tmp_path, flags=flags, environ=environ)
    assert caught.value.message == message


def test_nothing_to_serve_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(errors.BadSettings) as caught:
        load(tmp_path, ())
    assert f"no headrace.yaml in {tmp_path}" in caught.value.message
    assert "headrace serve model.onnx" in caught.value.message
    with pytest.raises(errors.BadSettings, match="names no models; add endpoints or models"):
        load(tmp_path, (), yaml="port: 1")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("tls.cert", "tls.cert is set but tls.key is not; TLS needs both (--tls-key)"),
        ("tls.key", "tls.key is set but tls.cert is not; TLS needs both (--tls-cert)"),
    ],
)
def test_tls_needs_both_files(tmp_path: Path, given: str, message: str) -> None:
    with pytest.raises(errors.BadSettings) as caught:
        load(tmp_path, flags={given: "x.pem"})
    assert caught.value.message == message


def test_two_ports_cannot_be_one_unless_both_are_free_choices(tmp_path: Path) -> None:
    with pytest.raises(errors.BadSettings, match="port and management_port are both 9000"):
        load(tmp_path, flags={"port": "9000"})
    load(tmp_path, flags={"port": "0", "management_port": "0"})


@pytest.mark.parametrize("name", ["HEADRACE_SERVER", "HEADRACE_URL", "HEADRACE_API_KEY", "HEADRACE_STATE"])
def test_what_commands_read_is_no_setting_that_serve_refuses(name: str) -> None:
    load_settings(["m.onnx"], environ={name: "http://127.0.0.1:9000"})
