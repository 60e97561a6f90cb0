"""The checks of ``headrace doctor``, on made-up machines and on this one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headrace.cli import checks, doctor
from headrace.cli.checks import Check, Status
from headrace.cli.main import app


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_cpu_quota_of_both_cgroup_versions(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert checks.cpu_quota(tmp_path) == quota
    expected = Status.WARNING if quota is not None and quota < 1 else Status.OK
    assert checks.check_cpu(tmp_path).status is expected


@pytest.mark.parametrize(
    ("available_kib", "limit", "used", "status", "found"),
    [
        (8 << 20, None, 0, Status.OK, "8GiB free"),
        (100 << 10, None, 0, Status.WARNING, "100MiB free"),
        (8 << 20, 1 << 30, 1 << 20, Status.OK, "1023MiB free, limit 1GiB"),
        (8 << 20, 1 << 30, 900 << 20, Status.WARNING, "124MiB free, limit 1GiB"),
    ],
)
def test_memory_is_the_smaller_of_machine_and_container(
    tmp_path: Path, available_kib: int, limit: int | None, used: int, status: Status, found: str
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: 1 kB\nMemAvailable: {available_kib} kB\n")
    (tmp_path / "memory.max").write_text("max" if limit is None else str(limit))
    (tmp_path / "memory.current").write_text(str(used))
    check = checks.check_memory(tmp_path, meminfo)
    assert (check.status, check.found) == (status, found)
    assert bool(check.fix) == (status is not Status.OK)


def test_memory_that_cannot_be_read_is_a_warning(tmp_path: Path) -> None:
    assert checks.check_memory(tmp_path, tmp_path / "absent").status is Status.WARNING


def test_space(tmp_path: Path) -> None:
    assert checks.check_space("temporary folder", tmp_path).status in (Status.OK, Status.WARNING)
    assert checks.check_space("temporary folder", tmp_path / "absent").status is Status.FAILED
    assert checks.check_space("shared memory", tmp_path / "absent").status is Status.WARNING


def test_environments_need_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.check_environments().status is Status.OK
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setenv("PATH", "/nowhere")
    missing = checks.check_environments()
    assert (missing.status, missing.found) == (Status.WARNING, "uv is not installed")
    assert "pip install 'headrace[environments]'" in missing.fix


def test_clock() -> None:
    assert checks.check_clock(0.0).status is Status.WARNING
    assert checks.check_clock().status is Status.OK


def test_a_taken_port_is_named_with_its_owner() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        check = checks.check_port("inference port", port, "--port")
        assert check.status is Status.WARNING
        assert check.found.startswith(f"{port} is taken by ")
        assert f"(process {os.getpid()})" in check.found
        assert "--port" in check.fix
    assert checks.check_port("inference port", port, "--port") == Check("inference port", Status.OK, f"{port} is free")


def test_the_owner_of_a_port_is_found_in_the_kernels_tables(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    listening = "   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n"
    connected = "   1: 0100007F:1F40 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1\n"
    (tmp_path / "net/tcp").write_text(header + connected + listening)
    for process, inode in (("7", 4712), ("8", 4711)):
        (tmp_path / process / "fd").mkdir(parents=True)
        (tmp_path / process / "fd/3").symlink_to(f"socket:[{inode}]")
        (tmp_path / process / "cmdline").write_bytes(b"python\0server.py\0")
    assert checks.port_owner(8000, tmp_path) == "python server.py (process 8)"
    assert checks.port_owner(8001, tmp_path) == ""


def test_a_runtime_that_works_says_its_versions() -> None:
    check = checks.check_runtime("echo", 60)
    assert check.status is Status.OK
    assert check.found.startswith("imported in ")


def test_a_runtime_that_is_not_installed_names_the_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.table, "missing", lambda name: ["xgboost-cpu"])
    check = checks.check_runtime("xgboost", 60)
    assert (check.status, check.fix) == (Status.WARNING, "pip install xgboost-cpu")


@pytest.mark.parametrize(
    ("outcome", "found"),
    [
        (
            subprocess.CompletedProcess([], 1, "", "Traceback\nImportError: libgomp.so.1 missing\n"),
            "ImportError: libgomp.so.1 missing",
        ),
        (subprocess.CompletedProcess([], -11, "", ""), "importing it ended the process by signal 11"),
        (subprocess.CompletedProcess([], 3, "", ""), "importing it ended with code 3"),
        (subprocess.TimeoutExpired([], 5), "importing it took longer than 5 s"),
    ],
)
def test_a_runtime_that_breaks_says_how(monkeypatch: pytest.MonkeyPatch, outcome: Any, found: str) -> None:
    def run(*arguments: Any, **options: Any) -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(checks.table, "missing", lambda name: [])
    monkeypatch.setattr(checks.subprocess, "run", run)
    check = checks.check_runtime("xgboost", 5)
    assert (check.status, check.found) == (Status.FAILED, found)
    assert check.fix == "pip install --force-reinstall xgboost-cpu"


def test_quick_checks_run_on_this_machine() -> None:
    for check in (checks.check_python(), checks.check_platform(), checks.check_cpu(), checks.check_open_files()):
        assert check.found
        assert (check.status is Status.OK) == (check.fix == "")


@pytest.mark.parametrize(
    ("statuses", "code"),
    [((Status.OK, Status.WARNING), 0), ((Status.OK, Status.FAILED), 1)],
)
def test_doctor_prints_and_exits(monkeypatch: pytest.MonkeyPatch, statuses: tuple[Status, ...], code: int) -> None:
    made = [Check(f"check {n}", status, "found it", "mend it") for n, status in enumerate(statuses)]
    monkeypatch.setattr(doctor, "run_checks", lambda **options: iter(made))
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == code
    assert "check 0: found it\n    mend it\n" in result.stdout
    as_json = CliRunner().invoke(app, ["doctor", "--json"])
    assert as_json.exit_code == code
    document = json.loads(as_json.stdout)
    assert document["ok"] is (code == 0)
    assert [c["status"] for c in document["checks"]] == [str(status) for status in statuses]


def test_run_checks_covers_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "check_runtime", lambda name, limit: Check(f"runtime {name}", Status.OK, ""))
    names = [check.name for check in checks.run_checks(port=0, management_port=0, import_timeout=1)]
    assert names[:11] == [
        "Python",
        "platform",
        "CPU",
        "memory",
        "open files",
        "temporary folder",
        "shared memory",
        "clock",
        "environments",
        "inference port",
        "management port",
    ]
    assert {f"runtime {name}" for name in ("onnx", "sklearn", "xgboost", "lightgbm", "python", "echo")} <= {*names}
