"""``client.endpoints``, asked of a real management API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace.client.endpoints import AsyncEndpoints
from headrace.client.management import Management
from headrace.core import errors
from tests.operated import ECHO, serving

CONFIG = "endpoints: {team/m: {traffic: {a: 3, b: 1}, deployments: {a: {model: a.echo}, b: {model: b.echo}}}}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / f"{name}.echo").write_text(ECHO)
    path = tmp_path / "headrace.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Callable[..., Any]]]:
    with serving(tmp_path) as found:
        yield found


@pytest.fixture
def client(server: tuple[str, Any]) -> Iterator[headrace.Client]:
    with headrace.Client(management_url=server[0]) as made:
        yield made


def test_every_command(client: headrace.Client, file: Path) -> None:
    endpoints = client.endpoints
    assert [change.kind for change in endpoints.plan(file)] == ["create"]
    assert [change.endpoint for change in endpoints.apply(file)] == ["team/m"]
    assert endpoints.show("team/m").owner == f"file {file}"
    assert endpoints.scale("team/m", 0, deployment="b").document["deployments"]["b"]["replicas"] == 0
    assert endpoints.set_traffic("team/m", {"a": 1, "b": 1}, take_over=True).weights == {"a": 1, "b": 1}
    assert endpoints.drain("team/m", "b").weights == {"a": 1}
    assert endpoints.restart("team/m", deployment="a").generation == 5
    assert endpoints.pause("team/m", "lunch").paused == "lunch"
    assert endpoints.resume("team/m").paused == ""
    assert "team/m" in endpoints.export()
    endpoints.delete("team/m")
    with pytest.raises(errors.UnknownModel, match="there is no endpoint 'team/m'"):
        endpoints.show("team/m")


def test_errors_are_those_of_the_server(client: headrace.Client, file: Path) -> None:
    client.endpoints.apply(file)
    with pytest.raises(errors.Conflict, match="belongs to the file"):
        client.endpoints.set_traffic("team/m", {"a": 1})
    with pytest.raises(errors.PreconditionFailed, match="has generation 1 by now, not 3"):
        client.endpoints.pause("team/m", generation=3)
    file.write_text("endpoints: {m: {model: a.echo, replicsa: 1}}\n")
    with pytest.raises(errors.BadSettings, match=r"headrace.yaml line 1 column 32: unknown key"):
        client.endpoints.apply(file)


def test_a_file_that_cannot_be_read_is_the_callers(client: headrace.Client, tmp_path: Path) -> None:
    with pytest.raises(errors.BadSettings, match=r"nowhere.yaml: cannot be read"):
        client.endpoints.plan(tmp_path / "nowhere.yaml")


def test_async(server: tuple[str, Any], file: Path) -> None:
    async def main() -> None:
        management = Management(server[0])
        try:
            endpoints = AsyncEndpoints(management)
            await endpoints.apply(str(file))
            assert (await endpoints.show("team/m")).settled
            assert (await endpoints.pause("team/m")).generation == 2
        finally:
            await management.close()

    asyncio.run(main())


def test_a_version_that_loads_is_not_settled(client: headrace.Client, server: tuple[str, Any], file: Path) -> None:
    client.endpoints.apply(file)
    file.write_text(CONFIG.replace("b.echo}", "b.echo, version: 5}"))
    client.endpoints.apply(file)
    assert not client.endpoints.show("team/m").settled
    assert client.endpoints.show("team/m").versions == {"a": "1", "b": "5"}
    server[1](lambda operated: operated.settle("team/m@5"))
    assert client.endpoints.show("team/m").settled
    assert client.endpoints.show("team/m").versions == {"a": "1", "b": "2"}
