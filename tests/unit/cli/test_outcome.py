"""Exit codes and how errors are printed."""

from __future__ import annotations

import json

import pytest
import typer

from headrace.cli.outcome import ExitCode, exit_code, reported
from headrace.core import errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.BadSettings("x"), ExitCode.USAGE),
        (errors.InvalidInput("x"), ExitCode.USAGE),
        (errors.UnknownModel("x"), ExitCode.USAGE),
        (errors.Unsupported("x"), ExitCode.USAGE),
        (errors.NotReady("x"), ExitCode.NOT_REACHABLE),
        (errors.Overloaded("x"), ExitCode.NOT_REACHABLE),
        (errors.QuotaExceeded("x"), ExitCode.NOT_REACHABLE),
        (errors.DeadlineExceeded("x"), ExitCode.NOT_REACHABLE),
        (errors.ModelRaised("x"), ExitCode.FAILURE),
        (errors.ReplicaDied("x"), ExitCode.FAILURE),
        (errors.Bug("x"), ExitCode.FAILURE),
        (errors.Cancelled("x"), ExitCode.FAILURE),
    ],
)
def test_exit_codes(error: errors.HeadraceError, code: ExitCode) -> None:
    assert exit_code(error) is code


def test_errors_go_to_stderr_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught, reported():
        raise errors.BadSettings("port: wrong")
    assert caught.value.exit_code == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "error: port: wrong\n")


def test_errors_go_to_stdout_as_json_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), reported(as_json=True):
        raise errors.NotReady("loading")
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"error": "loading", "code": "not_ready"}
    assert captured.err == ""


def test_other_exceptions_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), reported():
        _ = 1 / 0
