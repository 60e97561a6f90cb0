"""Child processes: every line, the last words, the exit at once, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import psutil
import pytest

from headrace.backends.local import ChildProcess
from tests.fakes import until


class Watched:
    """A child and what it said."""

    def __init__(self, code: str, **options: Any) -> None:
        self.lines: list[str] = []
        self.exits = 0
        self.child = ChildProcess(
            "kid",
            [sys.executable, "-c", code],
            environment={**os.environ, "PYTHONUNBUFFERED": "1", **options.pop("environment", {})},
            on_line=lambda name, line: self.lines.append(line),
            on_exit=self._exit,
            **options,
        )

    def _exit(self, child: ChildProcess) -> None:
        assert child.ended.done()
        self.exits += 1

    async def end(self) -> int:
        return await asyncio.wait_for(asyncio.shield(self.child.ended), 20.0)

    async def line(self, text: str) -> None:
        await until(lambda: text in self.lines, pause=0.005)


def scenario(test: Callable[[], Awaitable[None]]) -> None:
    before = psutil.Process().num_fds()
    asyncio.run(test())  # type: ignore[arg-type]
    assert psutil.Process().num_fds() <= before, "descriptors were left open"


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_lines_of_both_outputs_and_the_exit_code() -> None:
    async def test() -> None:
        kid = Watched("import sys; print('out'); sys.stderr.write('err\\r\\nhalf'); sys.exit(3)")
        assert kid.child.alive
        assert await kid.end() == 3
        assert (kid.lines, kid.exits, kid.child.returncode) == (["out", "err", "half"], 1, 3)
        assert kid.child.log_tail() == "out\nerr\nhalf"
        assert kid.child.log_tail(1) == "half"
        assert kid.child.written == 3
        assert not kid.child.alive
        kid.child.kill("too late")
        kid.child.signal(signal.SIGTERM)
        kid.child.read_output()

    scenario(test)


def test_last_words_of_a_talkative_child_are_kept() -> None:
    async def test() -> None:
        kid = Watched("import os\nfor i in range(20000): print(i)\nprint('the end', flush=True)\nos._exit(1)")
        await kid.end()
        assert kid.lines == [*map(str, range(20_000)), "the end"]
        assert kid.child.log_tail(2) == "19999\nthe end"
        assert len(kid.child.tail) == 200

    scenario(test)


def test_endless_line_is_cut_and_takes_no_memory() -> None:
    async def test() -> None:
        kid = Watched("import sys\nfor _ in range(100): sys.stdout.write('x' * 100000)\nprint()\nprint('after')")
        await kid.end()
        assert kid.lines[-1] == "after"
        assert all(len(line) <= 4000 for line in kid.lines)

    scenario(test)


def test_lines_beyond_the_rate_are_counted_not_shown_but_the_tail_has_the_last() -> None:
    async def test() -> None:
        kid = Watched("for i in range(5000): print(i)", lines_per_s=100)
        await kid.end()
        assert len(kid.lines) < 1000
        assert "lines are not shown: more than 100 a second" in kid.lines[-1]
        assert kid.child.log_tail(1) == "4999"
        assert kid.child.written == 5000

    scenario(test)


def test_output_that_is_no_text() -> None:
    async def test() -> None:
        kid = Watched("import sys; sys.stdout.buffer.write(b'\\xff\\x00\\n')")
        await kid.end()
        assert kid.lines == ["\ufffd\x00"]

    scenario(test)


def test_death_is_seen_at_once_and_the_first_reason_is_kept() -> None:
    async def test() -> None:
        kid = Watched("import time; print('up'); time.sleep(60)")
        await kid.line("up")
        began = asyncio.get_running_loop().time()
        kid.child.kill("hang: it hung")
        kid.child.kill("another reason")
        assert await kid.end() == -9
        assert asyncio.get_running_loop().time() - began < 0.5
        assert kid.child.kill_reason == "hang: it hung"

    scenario(test)


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_grandchildren_die_with_it_and_hold_nothing_up(how: str) -> None:
    async def test() -> None:
        kid = Watched(
            "import os, time\npid = os.fork()\n"
            "if pid == 0: time.sleep(60)\n"
            "print(pid)\n" + ("os._exit(0)" if how == "exit" else "time.sleep(60)")
        )
        await until(lambda: kid.lines, pause=0.005)
        grandchild = int(kid.lines[0])
        if how == "kill":
            kid.child.kill("test")
        await kid.end()
        await until(lambda: is_gone(grandchild), pause=0.005)

    scenario(test)


def test_own_process_group_and_environment() -> None:
    async def test() -> None:
        kid = Watched("import os; print(os.getpgid(0) == os.getpid(), os.environ['A'])", environment={"A": "b"})
        await kid.end()
        assert kid.lines == ["True b"]

    scenario(test)


def test_command_that_does_not_exist_leaves_nothing_open() -> None:
    async def test() -> None:
        with pytest.raises(FileNotFoundError):
            ChildProcess("x", ["/no/such/command"], environment={}, on_line=lambda n, t: None, on_exit=lambda c: None)

    scenario(test)
