"""Models in the database: numbers, files, aliases and their history."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from headrace.core import errors
from headrace.core.versions import AliasMove, Draft, Summary
from headrace.store.state import State


def test_a_version_comes_back_as_it_was_added(state: State, draft: Draft) -> None:
    with state.writing() as transaction:
        added = transaction.models.add(draft)
    with state.reading() as transaction:
        assert transaction.models.get("fraud", 1) == added
        assert added.draft == draft
        assert transaction.models.versions("fraud") == [added]
        assert transaction.models.names() == ["fraud"]
        assert transaction.models.get("fraud", 2) is None
        assert transaction.models.get("other", 1) is None


def test_the_listing_has_the_newest_of_each(state: State, draft: Draft) -> None:
    other = msgspec.structs.replace(draft, model="churn")
    with state.writing() as transaction:
        assert transaction.models.listing() == []
        fraud = [transaction.models.add(draft) for _ in range(3)]
        churn = transaction.models.add(other)
        transaction.models.delete("fraud", 2)
        transaction.models.move_alias("fraud", AliasMove("champion", 1, None, "ada", 1.0))
    with state.reading() as transaction:
        assert transaction.models.listing() == [
            Summary("churn", 1, churn, {}),
            Summary("fraud", 2, fraud[2], {"champion": 1}),
        ]


def test_numbers_are_given_once_under_concurrency(state: State, draft: Draft) -> None:
    def push(_: int) -> int:
        with state.writing() as transaction:
            return transaction.models.add(draft).number

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(push, range(24))) == list(range(1, 25))


def test_numbers_are_never_given_again(state: State, draft: Draft) -> None:
    with state.writing() as transaction:
        for _ in range(3):
            transaction.models.add(draft)
        for number in (3, 2):
            transaction.models.delete("fraud", number)
    with state.writing() as transaction:
        assert transaction.models.add(draft).number == 4


def test_imported_numbers_are_kept_and_followed(state: State, draft: Draft) -> None:
    with state.writing() as transaction:
        assert transaction.models.add(draft, 7).number == 7
        assert transaction.models.add(draft).number == 8
    with pytest.raises(errors.Conflict, match=r"version 7 of 'fraud'.*up to 8"), state.writing() as transaction:
        transaction.models.add(draft, 7)
    with state.writing() as transaction:
        assert transaction.models.add(draft).number == 9, "a refused number uses none up"


def test_blobs_are_those_of_versions_that_exist(state: State, draft: Draft) -> None:
    other = msgspec.structs.replace(
        draft, files=(msgspec.structs.replace(draft.files[0], digest="sha256:bb"), draft.files[1])
    )
    with state.writing() as transaction:
        transaction.models.add(draft)
        transaction.models.add(other)
        assert transaction.models.blobs() == {"sha256:aa", "sha256:bb", "sha256:gg"}
        transaction.models.delete("fraud", 1)
        assert transaction.models.blobs() == {"sha256:bb", "sha256:gg"}


def test_aliases_move_and_remember(state: State, draft: Draft) -> None:
    steps = [
        AliasMove("champion", 1, None, "ada", 1.0),
        AliasMove("champion", 2, 1, "bob", 2.0),
        AliasMove("staging", 2, None, "bob", 3.0),
        AliasMove("champion", None, 2, "ada", 4.0),
    ]
    with state.writing() as transaction:
        transaction.models.add(draft)
        transaction.models.add(draft)
        for step in steps:
            transaction.models.move_alias("fraud", step)
    with state.reading() as transaction:
        assert transaction.models.aliases("fraud") == {"staging": 2}
        assert transaction.models.alias_history("fraud") == steps
        assert transaction.models.aliases("other") == {}


def test_a_version_with_an_alias_cannot_be_deleted_behind_the_rules(state: State, draft: Draft) -> None:
    with state.writing() as transaction:
        transaction.models.add(draft)
        transaction.models.move_alias("fraud", AliasMove("champion", 1, None, "ada", 1.0))
    with pytest.raises(errors.StoreFailed, match=r"(?i)foreign key"), state.writing() as transaction:
        transaction.models.delete("fraud", 1)
    with state.reading() as transaction:
        assert transaction.models.get("fraud", 1) is not None


def test_a_lock_keeps_other_writers_of_the_model_out(state: State, draft: Draft) -> None:
    with state.writing() as transaction:
        transaction.models.add(draft)
    with ThreadPoolExecutor(1) as pool:
        with state.writing() as transaction:
            transaction.models.lock("fraud")
            later = pool.submit(_push, state, draft)
            seen = [version.number for version in transaction.models.versions("fraud")]
            transaction.models.move_alias("fraud", AliasMove("champion", 1, None, "ada", 1.0))
        assert later.result(30) == 2
    assert seen == [1]


def _push(state: State, draft: Draft) -> int:
    with state.writing() as transaction:
        number = transaction.models.add(draft).number
        assert transaction.models.aliases("fraud") == {"champion": 1}, "it began before the other had ended"
        return number


def test_lists_come_in_pages(state: State, draft: Draft) -> None:
    with state.writing() as transaction:
        for name in ("b", "a", "c"):
            for _ in range(3):
                transaction.models.add(msgspec.structs.replace(draft, model=name))
            for number in (1, 2, 3):
                transaction.models.move_alias(name, AliasMove("champion", number, number - 1 or None, "ada", 1.0))
        transaction.models.move_alias("a", AliasMove("other", 1, None, "ada", 2.0))
    with state.reading() as transaction:
        models = transaction.models
        assert [entry.model for entry in models.listing(2)] == ["a", "b"]
        [last] = models.listing(2, after="b")
        assert (last.model, last.versions, last.newest.number, last.aliases) == ("c", 3, 3, {"champion": 3})
        assert [version.number for version in models.page("a", 2)] == [3, 2]
        assert [version.number for version in models.page("a", 2, before=2)] == [1]
        first = models.moves("a", 2)
        assert [move.alias for _, move in first] == ["other", "champion"]
        rest = models.moves("a", 9, before=first[-1][0])
        assert [move.version for _, move in rest] == [2, 1]
        assert len(models.moves("a", 9, alias="champion")) == 3
