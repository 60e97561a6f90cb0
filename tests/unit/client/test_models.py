"""``client.models`` against a real server that owns a registry."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

import headrace
from headrace.core import errors
from headrace.protocols import golden_lines
from tests import models, registry_server


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with registry_server.owning(tmp_path / "state") as server:
        yield server.url


@pytest.fixture
def client(url: str) -> Iterator[headrace.Client]:
    with headrace.Client(management_url=url) as client:
        yield client


def test_a_version_from_push_to_collect(client: headrace.Client, tmp_path: Path) -> None:
    path = models.build("onnx", tmp_path)
    registry = client.models
    moved: list[int] = []
    [pushed] = registry.push(
        path,
        "org/fraud",
        metrics={"auc": 0.9},
        metadata={"team": "risk"},
        alias="champion",
        progress=lambda what, count, total: moved.append(count),
    )
    assert sum(moved) == path.stat().st_size
    assert (pushed.version.ref, pushed.aliases, pushed.runnable) == ("org/fraud@1", ["champion"], True)
    assert pushed.version.draft.provenance.metrics == {"auc": 0.9}
    assert registry.show("org/fraud@champion") == registry.show("org/fraud") == pushed
    [again] = registry.push(path, "org/fraud")
    [line] = registry.list()
    assert (line.name, line.versions, line.newest, line.aliases) == ("org/fraud", 2, 2, {"champion": 1})
    assert [view.version.number for view in registry.versions("org/fraud")] == [1, 2]
    assert registry.alias("org/fraud", "champion", 2, why="better") == 2
    assert registry.aliases("org/fraud") == {"champion": 2}
    assert [move.version for move in registry.history("org/fraud")] == [1, 2]
    assert registry.changes("org/fraud", limit=1)[0].why == "better"
    assert registry.verify("org/fraud@2") == ()
    folder = registry.pull("org/fraud@1", tmp_path / "copy")
    assert (folder / again.version.draft.artifact.path).read_bytes() == path.read_bytes()
    with pytest.raises(errors.Conflict, match="exists already"):
        registry.pull("org/fraud@1", tmp_path / "copy")
    with pytest.raises(errors.Conflict, match="alias 'champion' points to it"):
        registry.delete("org/fraud@2")
    with pytest.raises(errors.BadSettings, match="say which version"):
        registry.delete("org/fraud")
    registry.remove_alias("org/fraud", "champion")
    assert [version.number for version in registry.delete("org/fraud@2")] == [2]
    assert [version.number for version in registry.delete("org/fraud", every=True)] == [1]
    assert registry.list() == []
    assert registry.collect(0, dry_run=True)[0] == 1
    assert registry.collect(0)[0] == 1
    with pytest.raises(errors.UnknownModel, match="which is empty"):
        registry.show("org/fraud")


def test_code_and_who_vouches_for_it(client: headrace.Client, tmp_path: Path) -> None:
    [pushed] = client.models.push(models.build("sklearn-pickle", tmp_path), "risk")
    assert not pushed.runnable
    trusted = client.models.trust("risk@1")
    assert trusted.runnable
    assert trusted.trust is not None
    client.models.distrust("risk@1", why="left")
    assert not client.models.show("risk").runnable
    [again] = client.models.push(tmp_path / pushed.version.draft.artifact.path.partition("/")[2], "risk", trust=True)
    assert again.runnable


def test_more_than_a_page(client: headrace.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.echo"
    for number in range(7):
        path.write_text(f"headrace-echo 1\n{number}")
        client.models.push(path, f"m{number % 2}")
    pages = client.models._async._pages.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(pages, "__defaults__", (2,))
    assert [view.version.number for view in client.models.versions("m0")] == [1, 2, 3, 4]
    assert len(client.models.changes()) == 7
    assert len(client.models.changes(limit=3)) == 3


def test_those_who_move_an_alias_at_once_all_succeed_or_are_told(url: str, tmp_path: Path) -> None:
    path = tmp_path / "m.echo"
    path.write_text("headrace-echo 1\n")

    async def main() -> list[int | BaseException]:
        async with headrace.AsyncClient(management_url=url) as client:
            for _ in range(4):
                await client.models.push(path, "m")
            moves = (client.models.alias("m", "champion", number) for number in (1, 2, 3, 4))
            moved = await asyncio.gather(*moves, return_exceptions=True)
            steps = await client.models.history("m")
            told = [answer for answer in moved if isinstance(answer, errors.PreconditionFailed)]
            assert len(steps) + len(told) == 4, "nobody was overwritten without a step"
            return moved

    moved = asyncio.run(main())
    assert all(isinstance(answer, int | errors.PreconditionFailed) for answer in moved)
    assert any(isinstance(answer, int) for answer in moved)


def test_what_is_no_model_is_refused_before_it_is_sent(client: headrace.Client, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no model")
    with pytest.raises(errors.Unsupported, match=r"notes\.txt: this is a text of no known model format"):
        client.models.push(path)
    with pytest.raises(errors.InvalidInput, match="does not exist"):
        client.models.push(tmp_path / "missing.onnx")


def test_an_alias_is_moved_from_where_it_is_expected(client: headrace.Client, tmp_path: Path) -> None:
    path = tmp_path / "m.echo"
    path.write_text("headrace-echo 1\n")
    for _ in range(3):
        client.models.push(path, "m")
    with pytest.raises(errors.PreconditionFailed, match="m@a is not m@1 but nowhere"):
        client.models.alias("m", "a", 2, expected=1)
    client.models.alias("m", "a", 1)
    assert client.models.alias("m", "a", 2, expected=1) == 2
    with pytest.raises(errors.PreconditionFailed, match="m@a is not m@1 but 2"):
        client.models.alias("m", "a", 3, expected=1)
    assert client.models.aliases("m") == {"a": 2}


def test_what_accompanies_a_model_is_kept_with_it(client: headrace.Client, tmp_path: Path) -> None:
    path, golden, reference = tmp_path / "m.echo", tmp_path / "g", tmp_path / "r"
    path.write_text("headrace-echo 1\n")
    golden.write_text(golden_lines.EXAMPLE)
    reference.write_bytes(b"PAR1 rows PAR1")
    [pushed] = client.models.push(path, "m", golden=golden, reference=str(reference))
    draft = pushed.version.draft
    assert (draft.golden, draft.reference) == ("golden.jsonl", "reference.parquet")
    folder = client.models.pull("m", tmp_path / "copy")
    assert (folder / "golden.jsonl").read_text() == golden.read_text()
    golden.write_text("no json")
    with pytest.raises(errors.InvalidInput, match="line 1"):
        client.models.push(path, "m", golden=golden)
