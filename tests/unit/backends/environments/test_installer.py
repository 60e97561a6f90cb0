"""Running the installer: its output, its end by whatever means, and what its words mean for people."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import psutil
import pytest

from headrace.backends.environments import installer
from headrace.core import errors
from tests.serving import eventually

NEEDS = ("msgspec>=0.19", "numpy>=1.24")


def shell(script: str, tmp_path: Path, lines: list[str]) -> None:
    asyncio.run(installer.run(("sh", "-c", script), tmp_path, os.environ, lines.append))


def test_lines_are_passed_on_without_noise(tmp_path: Path) -> None:
    lines: list[str] = []
    shell("echo Using Python 3.11 environment at: /x; echo one; echo two >&2; pwd", tmp_path, lines)
    assert lines == ["one", "two", str(tmp_path)]


def test_a_failure_has_the_last_lines(tmp_path: Path) -> None:
    with pytest.raises(errors.LoadFailed) as caught:
        shell("seq 100; echo error: it broke; exit 2", tmp_path, [])
    assert caught.value.message.splitlines()[-2:] == ["100", "error: it broke"]
    with pytest.raises(errors.LoadFailed, match="sh ended with code 3 and said nothing"):
        shell("exit 3", tmp_path, [])


def test_death_by_a_signal_is_no_failure_of_the_requirements(tmp_path: Path) -> None:
    with pytest.raises(installer.Killed, match="SIGKILL"):
        shell("kill -KILL $$", tmp_path, [])


def test_a_cancelled_run_ends_its_process(tmp_path: Path) -> None:
    async def cancelled() -> psutil.Process:
        started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        command = ("sh", "-c", "echo $$; exec sleep 100")
        run = installer.run(command, tmp_path, os.environ, lambda line: started.set_result(int(line)))
        task = asyncio.create_task(run)
        process = psutil.Process(await started)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return process

    process = asyncio.run(cancelled())
    assert eventually(lambda: not process.is_running())


@pytest.mark.parametrize(
    ("said", "source_builds", "advice"),
    [
        (
            "error: Because x was not found in the package\n│      registry and you require x==1",
            False,
            "check the name",
        ),
        ("Because there is no version of numpy==9 and you require", False, "check the name and the version"),
        ("you require numpy==1.22 and numpy>=1.24, … your requirements are unsatisfiable", False, "numpy>=1.24"),
        ("docopt==0.6.2 has no usable wheels and … unsatisfiable", False, "--allow-source-builds"),
        ("docopt==0.6.2 has no usable wheels and … unsatisfiable", True, "loosen"),
        ("Failed to fetch: … client error (Connect)", False, "reaches its package index"),
        ("something new", False, "mend requirements.txt"),
    ],
)
def test_what_uv_says_comes_with_what_to_do(said: str, source_builds: bool, advice: str) -> None:
    message = installer.explained(said, NEEDS, source_builds=source_builds).message
    first, *_, last = message.splitlines()
    assert first.startswith("its environment could not be built: ")
    assert not first.startswith("its environment could not be built: error")
    assert last.startswith("What to do: ")
    assert advice in last


def test_without_uv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Path(installer.find_uv()).is_file()
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(errors.LoadFailed, match=r"pip install 'headrace\[environments\]'"):
        installer.find_uv()
