"""What applying would change, as tables; and that carrying the differences out leaves none."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from headrace.control.endpoint_changes import ChangeKind, FieldChange, check_owner, differences, owned_by_another
from headrace.core import errors
from headrace.core.endpoint_records import MANUAL, Document, EndpointRecord, Owner, OwnerKind
from headrace.core.traffic import EndpointTraffic

FILE = Owner(OwnerKind.FILE, "/etc/headrace.yaml")
OTHER = Owner(OwnerKind.FILE, "/etc/other.yaml")


def record(document: Document, owner: Owner = FILE, name: str = "m", generation: int = 3) -> EndpointRecord:
    return EndpointRecord(name, document, (), EndpointTraffic(), owner, generation)


def test_new_changed_same_and_gone() -> None:
    there = {
        "same": record({"model": "a"}, name="same"),
        "changed": record({"model": "a"}, name="changed"),
        "gone": record({"model": "a"}, name="gone"),
    }
    wanted = {"same": {"model": "a"}, "changed": {"model": "b"}, "new": {"model": "a"}}
    found = differences(wanted, there, FILE)
    assert [(c.endpoint, c.kind, c.generation) for c in found] == [
        ("changed", ChangeKind.UPDATE, 3),
        ("gone", ChangeKind.DELETE, 3),
        ("new", ChangeKind.CREATE, 0),
        ("same", ChangeKind.NONE, 3),
    ]
    assert found[0].fields == (FieldChange("model", "a", "b"),)
    assert found[1].fields == (FieldChange("model", "a", None),)
    assert found[2].fields == (FieldChange("model", None, "a"),)


@pytest.mark.parametrize("owner", [MANUAL, OTHER, Owner(OwnerKind.ROLLOUT, "7")])
def test_what_others_own_is_not_deleted(owner: Owner) -> None:
    assert differences({}, {"m": record({"model": "a"}, owner)}, FILE) == ()


def test_nobody_deletes_by_hand_what_a_plan_does_not_name() -> None:
    assert differences({}, {"m": record({"model": "a"}, MANUAL)}, MANUAL) == ()


def test_the_same_document_of_another_owner_is_a_change() -> None:
    (change,) = differences({"m": {"model": "a"}}, {"m": record({"model": "a"}, OTHER)}, FILE)
    assert (change.kind, change.fields, change.taken_from, change.owner) == (ChangeKind.UPDATE, (), OTHER, FILE)
    with pytest.raises(errors.Conflict, match=r"belongs to the file /etc/other.yaml"):
        check_owner([change], take_over=False)
    check_owner([change], take_over=True)


@pytest.mark.parametrize("kind", OwnerKind)
def test_every_owner_is_named(kind: OwnerKind) -> None:
    message = owned_by_another("m", Owner(kind, "NAME")).message
    assert "--take-over" in message
    assert kind is OwnerKind.MANUAL or "NAME" in message


@pytest.mark.parametrize(
    ("before", "after", "fields"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 2}}, [("a.b", 1, 2)]),
        ({"a": {"b": 1}}, {"a": {}}, [("a.b", 1, None)]),
        ({"a": {"b": 1}}, {}, [("a.b", 1, None)]),
        ({}, {"a": {"b": {"c": 1}}}, [("a.b.c", None, 1)]),
        ({"a": {"b": 1}}, {"a": "exact"}, [("a", {"b": 1}, "exact")]),
        ({"a": [1, 2]}, {"a": [1, 3]}, [("a", [1, 2], [1, 3])]),
        ({"a": {}}, {}, [("a", {}, None)]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, []),
    ],
)
def test_fields(before: Document, after: Document, fields: list[tuple[str, Any, Any]]) -> None:
    (change,) = differences({"m": after}, {"m": record(before)}, FILE)
    assert [(f.path, f.before, f.after) for f in change.fields] == fields


DOCUMENTS = st.recursive(
    st.one_of(st.integers(0, 3), st.sampled_from(["x", "y"]), st.lists(st.integers(0, 2), max_size=2)),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
    max_leaves=8,
)
TOP = st.dictionaries(st.sampled_from("abc"), DOCUMENTS, max_size=3)


def leaves(document: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(document, dict):
        return {path: document}
    return {p: v for key, value in document.items() for p, v in leaves(value, f"{path}.{key}" if path else key).items()}


@given(TOP, TOP)
def test_carrying_the_differences_out_leaves_none(before: Document, after: Document) -> None:
    (change,) = differences({"m": after}, {"m": record(before)}, FILE)
    there = leaves(before)
    for field in change.fields:
        for path in [path for path in there if path == field.path or path.startswith(f"{field.path}.")]:
            del there[path]
        if field.after is not None:
            there |= leaves(field.after, field.path)
    assert there == leaves(after)
    assert (change.kind is ChangeKind.NONE) == (before == after)
