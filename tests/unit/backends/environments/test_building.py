"""Environments really built by uv, offline, from small wheels: complete or not there, once, whoever is killed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from headrace.backends.environments import isolation
from headrace.backends.environments.building import Provided, provide
from headrace.backends.environments.folder import EnvironmentsFolder
from headrace.backends.environments.specification import specify
from headrace.core import errors
from headrace.core.environments import EnvironmentSpec
from headrace.runtimes.needs import WORKER
from tests.serving import eventually
from tests.wheels import StubbornIndex, offline, stubborn_index, wheel, worker_wheels


class Heard:
    """Follows a build."""

    def __init__(self) -> None:
        self.begun = 0
        self.lines: list[str] = []

    def build_begins(self) -> None:
        self.begun += 1

    def on_line(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    worker_wheels(folder)
    wheel(folder, "tiny", "1.0")
    wheel(folder, "tiny", "2.0")
    wheel(folder, "picky", "1.0", requires="tiny<2")
    # Somebody else's Headrace, which nobody gets.
    wheel(folder, "headrace", "9.9", {"headrace/__init__.py": "raise SystemExit('not this one')\n"})
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> EnvironmentsFolder:
    return EnvironmentsFolder(tmp_path / "environments")


@pytest.fixture
def environ(wheels: Path, tmp_path: Path) -> dict[str, str]:
    return offline(wheels, tmp_path / "cache")


@pytest.fixture
def index() -> Iterator[StubbornIndex]:
    with stubborn_index() as served:
        yield served


def build(
    folder: EnvironmentsFolder, spec: EnvironmentSpec, environ: dict[str, str], heard: Heard | None = None
) -> Provided:
    return asyncio.run(provide(folder, spec, environ, heard or Heard()))


def inside(folder: EnvironmentsFolder, spec: EnvironmentSpec, code: str) -> str:
    """What Python in the environment prints, as a worker would run."""
    variables = isolation.variables({**os.environ, "PYTHONPATH": "/nowhere"}, folder.path(spec.key))
    command = [folder.python(spec.key), "-c", code]
    return subprocess.run(command, capture_output=True, check=True, text=True, env=variables).stdout.strip()


def test_a_build_is_complete_and_then_used_as_it_is(folder: EnvironmentsFolder, environ: dict[str, str]) -> None:
    spec = specify(("headrace==9.9", "tiny==1.0"), WORKER)
    first, second = Heard(), Heard()
    provided = build(folder, spec, environ, first)
    assert provided.built
    assert (first.begun, second.begun) == (1, 0)
    assert any(line.startswith("Resolved 3 packages") for line in first.lines)
    assert not build(folder, spec, environ, second).built
    assert second.begun == 0
    assert second.lines == []
    (environment,) = folder.listing()
    assert environment.spec == spec
    assert environment.packages["tiny"] == "1.0"
    assert environment.packages["headrace"] != "9.9"
    assert folder.leftovers() == set()
    code = "import headrace.replica.worker, tiny, sys; print(tiny.VERSION, headrace.__file__, sys.prefix)"
    version, path, prefix = inside(folder, spec, code).split()
    assert (version, prefix) == ("1.0", str(folder.path(spec.key)))
    assert Path(path).is_relative_to(prefix), "the code of this build, in the environment"
    assert inside(folder, spec, "import site; print(site.ENABLE_USER_SITE)") == "False"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (("absent==1.0",), r"absent was not found in.*\n(.*\n)*What to do: check the name"),
        (("picky==1.0", "tiny==2.0"), r"tiny(.*\n)*.*unsatisfiable(.*\n)*What to do: loosen"),
        (("msgspec==0.1",), r"msgspec(.*\n)*.*itself needs msgspec>=0.19, numpy>=1.24"),
    ],
)
def test_what_cannot_be_had_is_said_in_uvs_words(
    folder: EnvironmentsFolder, environ: dict[str, str], lines: tuple[str, ...], says: str
) -> None:
    with pytest.raises(errors.LoadFailed, match=says):
        build(folder, specify(lines, WORKER), environ)
    assert folder.listing() == []
    assert folder.leftovers() == set()


def test_code_is_not_built_unless_allowed(folder: EnvironmentsFolder, wheels: Path, environ: dict[str, str]) -> None:
    subprocess.run(["tar", "czf", wheels / "raw-1.0.tar.gz", "-T", "/dev/null"], check=True)
    with pytest.raises(errors.LoadFailed, match="--allow-source-builds"):
        build(folder, specify(("raw==1.0",), WORKER), environ)
    with pytest.raises(errors.LoadFailed, match="could not be built") as caught:
        build(folder, specify(("raw==1.0",), WORKER, source_builds=True), environ)
    assert "--allow-source-builds" not in caught.value.message, "it was tried: there is no project in it"


def test_an_environment_in_which_no_worker_starts_is_refused(
    folder: EnvironmentsFolder, wheels: Path, environ: dict[str, str]
) -> None:
    wheel(wheels, "numpy", "99.0", {"numpy/__init__.py": "raise ImportError('this numpy is broken')\n"})
    with pytest.raises(errors.LoadFailed, match=r"a worker does not start(.*\n)*.*this numpy is broken"):
        build(folder, specify(("numpy==99.0",), WORKER), environ)
    assert folder.listing() == []


def uv_of(pid: int) -> psutil.Process | None:
    return next((child for child in psutil.Process(pid).children(recursive=True) if child.name() == "uv"), None)


def test_a_killed_installer_is_started_again(
    folder: EnvironmentsFolder, wheels: Path, index: StubbornIndex, tmp_path: Path
) -> None:
    heard = Heard()
    spec = specify(("tiny==1.0",), WORKER)

    async def scenario() -> Provided:
        task = asyncio.create_task(provide(folder, spec, index.variables(wheels, tmp_path / "cache"), heard))
        assert await asyncio.to_thread(index.asked.wait, 60)
        process = uv_of(os.getpid())
        assert process is not None
        process.kill()
        index.answer.set()
        return await task

    assert asyncio.run(scenario()).built
    assert "the build was killed by SIGKILL (attempt 1 of 3)" in heard.lines
    assert heard.begun == 1
    assert folder.leftovers() == set()


def test_a_killed_builder_leaves_nothing_that_is_used_and_nobody_waits_for_it(
    folder: EnvironmentsFolder, wheels: Path, index: StubbornIndex, environ: dict[str, str], tmp_path: Path
) -> None:
    spec = specify(("tiny==1.0",), WORKER)
    program = (
        "import asyncio, os, msgspec, sys; from pathlib import Path\n"
        "from headrace.backends.environments.building import provide\n"
        "from headrace.backends.environments.folder import EnvironmentsFolder\n"
        "from headrace.core.environments import EnvironmentSpec\n"
        "class Deaf:\n    def build_begins(self): ...\n    def on_line(self, line): ...\n"
        "spec = msgspec.json.decode(sys.argv[2], type=EnvironmentSpec)\n"
        "asyncio.run(provide(EnvironmentsFolder(Path(sys.argv[1])), spec, os.environ, Deaf()))\n"
    )
    command = [sys.executable, "-c", program, folder.root, msgspec.json.encode(spec).decode()]
    variables = index.variables(wheels, tmp_path / "other-cache")
    heard = Heard()

    async def scenario() -> Provided:
        builder = subprocess.Popen(command, env=variables)  # noqa: ASYNC220 - it is started in a moment
        assert await asyncio.to_thread(index.asked.wait, 60)
        orphan = uv_of(builder.pid)
        assert orphan is not None
        task = asyncio.create_task(provide(folder, spec, environ, heard))
        await asyncio.to_thread(eventually, lambda: heard.lines)
        assert heard.begun == 0, "it waits for the other one"
        builder.kill()
        builder.wait()
        provided = await task
        orphan.kill()
        return provided

    assert asyncio.run(scenario()).built
    assert heard.lines[0] == "another process is building this environment; waiting for it"
    assert heard.begun == 1
    assert folder.complete(spec.key)
    assert folder.remove(spec.key) is False, "the lease is held"


def test_of_two_at_once_one_builds(folder: EnvironmentsFolder, environ: dict[str, str]) -> None:
    spec = specify(("tiny==1.0",), WORKER)

    async def both() -> list[Provided]:
        return await asyncio.gather(*(provide(folder, spec, environ, Heard()) for _ in range(2)))

    assert sorted(provided.built for provided in asyncio.run(both())) == [False, True]


def test_a_cancelled_build_leaves_nothing(
    folder: EnvironmentsFolder, wheels: Path, index: StubbornIndex, tmp_path: Path
) -> None:
    spec = specify(("tiny==1.0",), WORKER)

    async def scenario() -> None:
        task = asyncio.create_task(provide(folder, spec, index.variables(wheels, tmp_path / "cache"), Heard()))
        assert await asyncio.to_thread(index.asked.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert folder.leftovers() == set()
    assert folder.listing() == []
    assert uv_of(os.getpid()) is None
    assert not folder.in_use(spec.key)


def test_settings_of_a_project_above_do_not_count(tmp_path: Path, environ: dict[str, str]) -> None:
    """The state directory may lie in somebody's project."""
    (tmp_path / "uv.toml").write_text('no-binary = true\nfind-links = ["/nowhere"]\n')
    (tmp_path / "pyproject.toml").write_text('[tool.uv.pip]\nno-deps = true\nonly-binary = []\n[project]\nname="p"\n')
    folder = EnvironmentsFolder(tmp_path / "state" / "environments")
    assert build(folder, specify(("picky==1.0",), WORKER), environ).built
    assert folder.listing()[0].packages["tiny"] == "1.0"
