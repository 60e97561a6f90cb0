"""The command table: complete, documented, and cheap."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

import headrace
from headrace.cli.main import COMMANDS, app, application

HEAVY = (
    "numpy",
    "fastapi",
    "httpx",
    "yaml",
    "msgspec",
    "sklearn",
    "onnxruntime",
    "asyncio",
    "uvloop",
    "h2corn",
    "sqlalchemy",
)


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_help_lists_every_command() -> None:
    code, text = invoke("--help")
    assert code == 0
    for name, (_, help_text) in COMMANDS.items():
        assert name in text
        assert help_text in text


def test_no_command_shows_help_and_is_a_usage_error() -> None:
    code, text = invoke()
    assert code == 2
    assert "serve" in text


def test_unknown_commands_suggest_the_nearest() -> None:
    code, text = invoke("sreve")
    assert code == 2
    assert "serve" in text


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from headrace.cli.main import main\n"
        "sys.argv = ['headrace', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print('LOADED', [m for m in {HEAVY!r} if m in sys.modules],"
        " [m for m in sys.modules if m.startswith('headrace') and m not in"
        " ('headrace', 'headrace.core', 'headrace.core.release', 'headrace.cli', 'headrace.cli.main')])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert result.stdout.splitlines()[-1] == "LOADED [] []", result.stdout + result.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    command = typer.main.get_command(application(name))
    assert command.help
    assert f"headrace {name}" in (command.epilog or "")
    code, text = invoke(name, "--help")
    assert code == 0
    assert f"Usage: headrace {name}" in text or f"Usage: root {name}" in text or f" {name} " in text


@pytest.mark.parametrize("name", ["serve", "predict", "doctor"])
def test_exit_codes_are_documented(name: str) -> None:
    command = typer.main.get_command(application(name))
    assert "Exit codes: 0" in (command.epilog or "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_speaks_json(name: str) -> None:
    command = typer.main.get_command(application(name))
    for part in getattr(command, "commands", {name: command}).values():
        assert any("--json" in parameter.opts for parameter in part.params), part.name


def test_every_command_of_a_group_has_help_with_an_example() -> None:
    group = typer.main.get_command(importlib.import_module(COMMANDS["models"][0]).app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        assert command.help
        assert f"headrace models {name}" in command.epilog
        assert "Exit codes: 0" in command.epilog
        assert invoke("models", name, "--help")[0] == 0


def test_version() -> None:
    assert invoke("version") == (0, f"headrace {headrace.__version__}\n")
    assert invoke("--version") == (0, f"headrace {headrace.__version__}\n")
    code, text = invoke("version", "--json")
    assert code == 0
    assert json.loads(text)["headrace"] == headrace.__version__
