"""What requests make of ETags."""

from __future__ import annotations

import pytest

from headrace.api.conditions import Conditions, etag_of
from headrace.api.registry_schema import Trust
from headrace.core import errors

SEEN = Trust(digest="sha256:aa", who="ada", at=1.0)
TAG = etag_of(SEEN)
OTHER = '"0123"'


@pytest.mark.parametrize(
    ("match", "none_match", "there", "passes"),
    [
        (TAG, None, True, True),
        (f"{OTHER}, {TAG}", None, True, True),
        ("*", None, True, True),
        (OTHER, None, True, False),
        (f"W/{TAG}", None, True, False),
        (TAG.strip('"'), None, True, False),
        ("", None, True, False),
        (TAG, None, False, False),
        ("*", None, False, False),
        (None, "*", False, True),
        (None, "*", True, False),
        (None, TAG, True, False),
        (None, f"W/{TAG}", True, False),
        (None, OTHER, True, True),
        (TAG, "*", True, False),
    ],
)
def test_conditions(match: str | None, none_match: str | None, there: bool, passes: bool) -> None:
    conditions = Conditions(match, none_match)
    conditions.require("thing")
    if passes:
        conditions.check("thing", SEEN if there else None)
        return
    with pytest.raises(errors.PreconditionFailed, match="thing"):
        conditions.check("thing", SEEN if there else None)


def test_saying_nothing_is_not_enough_where_something_is_replaced() -> None:
    with pytest.raises(errors.PreconditionRequired, match="If-Match"):
        Conditions(None, None).require("thing")


def test_a_tag_changes_with_what_is_seen() -> None:
    assert etag_of(SEEN) == etag_of(SEEN.model_copy())
    assert etag_of(SEEN.model_copy(update={"who": "bob"})) != TAG
