"""The rules of the registry, over the real store."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from headrace.control.registry import Registry
from headrace.core import errors
from headrace.core.models import Artifact, Format
from headrace.core.versions import AliasMove, Draft, Provenance, StoredFile, TrustGrant
from headrace.store.database import open_database, sqlite_url
from headrace.store.state import State


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(tmp_path: Path, clock: Clock) -> Iterator[Registry]:
    database = open_database(sqlite_url(tmp_path / "state.db"))
    yield Registry(State(database), clock, "ada@example")
    database.close()


def draft(content: str = "aa", model: str = "fraud", *, code: bool = False) -> Draft:
    artifact = Artifact("model/m", Format.PICKLE if code else Format.ONNX, "onnx", f"sha256:{content}", code)
    return Draft(model, artifact, (StoredFile("model/m", artifact.digest, 3),), Provenance("ada@example", 1.0, "/m"))


def test_versions_are_numbered_and_resolved(registry: Registry) -> None:
    for content in ("aa", "bb", "cc"):
        registry.register(draft(content))
    registry.move_alias("fraud", "champion", "2")
    found = {text: registry.resolve(text).number for text in ("fraud", "fraud@1", "fraud@champion")}
    assert found == {"fraud": 3, "fraud@1": 1, "fraud@champion": 2}
    assert registry.resolve("fraud@2").draft == draft("bb")


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("frau", r"no model 'frau' in the registry; did you mean 'fraud'\?"),
        ("other-thing", "there are fraud"),
        ("fraud@9", "no version 9; there are 1"),
        ("fraud@best", "no alias 'best'; there are champion"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(registry: Registry, reference: str, says: str) -> None:
    registry.register(draft(), alias="champion")
    with pytest.raises(errors.UnknownModel, match=says):
        registry.resolve(reference)


def test_an_empty_registry_says_so(registry: Registry) -> None:
    with pytest.raises(errors.UnknownModel, match="which is empty"):
        registry.resolve("fraud")
    assert registry.models() == []


@pytest.mark.parametrize("reference", ["fraud@", "@1", "a b", "fraud@1@2", "stats"])
def test_references_have_a_grammar(registry: Registry, reference: str) -> None:
    with pytest.raises(errors.BadSettings):
        registry.resolve(reference)


def test_aliases_move_with_history_and_events(registry: Registry, clock: Clock) -> None:
    registry.register(draft("aa"), alias="champion")
    registry.register(draft("bb"))
    clock.now = 200.0
    registry.move_alias("fraud", "champion", "2", why="better recall")
    registry.move_alias("fraud", "champion", "2")
    registry.remove_alias("fraud", "champion")
    story = registry.story("fraud")
    assert story.aliases == (
        AliasMove("champion", 1, None, "ada@example", 100.0),
        AliasMove("champion", 2, 1, "ada@example", 200.0),
        AliasMove("champion", None, 2, "ada@example", 200.0),
    ), "a move to where it points already is none"
    assert [event.what for event in story.events] == ["version.push", "alias.move", "version.push"] + ["alias.move"] * 2
    moved = story.events[3]
    assert (moved.before, moved.after, moved.why) == ({"champion": 1}, {"champion": 2}, "better recall")


def test_an_alias_follows_an_alias_once(registry: Registry) -> None:
    registry.register(draft("aa"), alias="champion")
    registry.register(draft("bb"), alias="staging")
    registry.move_alias("fraud", "champion", "staging")
    registry.move_alias("fraud", "staging", "1")
    assert registry.model("fraud").aliases == {"champion": 2, "staging": 1}


@pytest.mark.parametrize("alias", ["7", "a b", "", "a@b", "a/b"])
def test_aliases_are_no_numbers(registry: Registry, alias: str) -> None:
    registry.register(draft())
    with pytest.raises(errors.BadSettings, match="alias"):
        registry.move_alias("fraud", alias, "1")


def test_an_alias_needs_its_version(registry: Registry) -> None:
    registry.register(draft())
    with pytest.raises(errors.UnknownModel):
        registry.move_alias("fraud", "champion", "2")
    with pytest.raises(errors.UnknownModel, match="no alias 'champion'; it has none"):
        registry.remove_alias("fraud", "champion")


def test_delete_names_the_alias_in_the_way_and_deletes_nothing(registry: Registry) -> None:
    for content in ("aa", "bb"):
        registry.register(draft(content))
    registry.move_alias("fraud", "champion", "2")
    for choice in ("2", None):
        with pytest.raises(errors.Conflict, match=r"fraud@2 cannot be deleted: alias 'champion'"):
            registry.delete("fraud", choice)
    assert [version.number for version in registry.model("fraud").versions] == [1, 2]


def test_deleted_numbers_are_not_given_again(registry: Registry) -> None:
    registry.register(draft("aa"))
    registry.register(draft("bb"))
    assert [version.ref for version in registry.delete("fraud", None, why="a mistake")] == ["fraud@1", "fraud@2"]
    assert registry.models() == []
    assert registry.blobs() == set()
    assert registry.story("fraud").events[-1].why == "a mistake"
    assert registry.register(draft("cc")).number == 3


def test_imported_numbers_are_kept_and_importing_again_changes_nothing(registry: Registry) -> None:
    first = registry.register(draft("aa"), number=5)
    assert registry.register(draft("aa"), number=5) == first
    assert [event.what for event in registry.story("fraud").events] == ["version.push"]
    with pytest.raises(errors.Conflict, match="version 5 of 'fraud' cannot be imported"):
        registry.register(draft("bb"), number=5)


def test_trust_is_given_by_digest(registry: Registry, clock: Clock) -> None:
    plain = registry.register(draft("aa", code=True))
    assert registry.trust_in(plain) is None
    registry.trust("fraud@1")
    clock.now = 300.0
    registry.trust("fraud@1")
    again = registry.register(draft("aa", "copy", code=True), trusted=True)
    assert registry.trust_in(again) == TrustGrant("sha256:aa", "ada@example", 100.0)
    assert [event.what for event in registry.story("fraud").events] == ["version.push", "trust.grant"]
    harmless = registry.register(draft("bb"), trusted=True)
    assert registry.trust_in(harmless) is None, "there is no code to vouch for"


def test_a_refused_alias_registers_no_version(registry: Registry) -> None:
    with pytest.raises(errors.BadSettings):
        registry.register(draft(), alias="1")
    assert registry.models() == []


def test_pushes_from_several_threads(registry: Registry) -> None:
    def push(n: int) -> int:
        return registry.register(draft(str(n)), alias="newest").number

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(push, range(12))) == list(range(1, 13))
    moves = registry.story("fraud").aliases
    assert [move.before for move in moves] == [None, *(move.version for move in moves[:-1])], "no move was lost"


def test_versions_are_values(registry: Registry) -> None:
    version = registry.register(draft())
    assert version.ref == "fraud@1"
    assert version.size == 3
    with pytest.raises(AttributeError):
        version.number = 2  # type: ignore[misc]
    assert msgspec.json.decode(msgspec.json.encode(version), type=type(version)) == version


def test_trust_is_taken_back_for_the_content(registry: Registry) -> None:
    registry.register(draft(code=True), trusted=True)
    again = registry.register(draft(code=True))
    registry.distrust("fraud@1", "the author left")
    assert registry.trust_in(again) is None
    registry.distrust("fraud@1")
    happened = [event.what for event in registry.changes(9)]
    assert happened == ["trust.revoke", "version.push", "trust.grant", "version.push"]


def test_steps_that_go_together_happen_together(registry: Registry) -> None:
    registry.register(draft("aa"))

    def fail() -> None:
        with registry.by("bob").together() as (joined, transaction):
            joined.register(draft("bb"))
            joined.move_alias("fraud", "champion", "2")
            assert transaction.models.aliases("fraud") == {"champion": 2}
            raise KeyError("later")

    with pytest.raises(KeyError):
        fail()
    assert registry.model("fraud").aliases == {}
    with registry.by("bob").together() as (joined, _):
        joined.register(draft("bb"))
        joined.move_alias("fraud", "champion", "2")
    assert [event.who for event in registry.changes(2)] == ["bob", "bob"]
