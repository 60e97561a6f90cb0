"""Numbers of versions when files are applied again: a version never changes what it is."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from headrace.app.endpoints.numbering import Found, renumbered
from headrace.app.settings.serve_settings import DeploymentSettings
from headrace.app.sources import Candidate
from headrace.core import errors
from headrace.core.endpoint_records import EndpointRecord
from headrace.core.endpoints import DeploymentSpec
from headrace.core.models import Artifact, Format
from headrace.core.traffic import EndpointTraffic


def found(
    version: str = "1",
    content: str = "a",
    *,
    path: str = "/m.onnx",
    asked: bool = False,
    typed: bool = True,
    registered: str | None = None,
) -> Found:
    artifact = Artifact(path, Format.ONNX, "onnx", f"sha256:{content}")
    candidate = Candidate(
        "m", version, path, None, True, typed, DeploymentSettings(), "main", registered=registered, asked=asked
    )
    return candidate, DeploymentSpec("m", version, artifact)


def there(*pairs: Found, before: EndpointRecord | None = None) -> dict[str, EndpointRecord]:
    specs = tuple(spec for _, spec in pairs)
    return {"m": EndpointRecord("m", {"model": "/m"}, specs, EndpointTraffic(), before=before)}


def versions(*pairs: Found, beside: dict[str, EndpointRecord] | None = None) -> list[str]:
    made = renumbered(pairs, beside or {})
    assert all(candidate.version == spec.version for candidate, spec in made)
    assert [spec.artifact for _, spec in made] == [spec.artifact for _, spec in pairs]
    return [spec.version for _, spec in made]


def test_a_first_file_is_numbered_as_it_is_read() -> None:
    assert versions(found("1"), found("2", "b", path="/b")) == ["1", "2"]
    assert versions(found("7", typed=False)) == ["7"]


def test_the_same_model_keeps_its_version() -> None:
    assert versions(found("1"), beside=there(found("4"))) == ["4"]
    assert versions(found("4"), beside=there(found("4"))) == ["4"]


def test_a_changed_model_gets_a_number_that_was_not_given_yet() -> None:
    assert versions(found("1", "b"), beside=there(found("1", "a"))) == ["2"]
    assert versions(found("1", "c"), beside=there(found("2", "b"))) == ["3"]


def test_what_comes_back_when_the_new_one_cannot_load_is_not_overwritten() -> None:
    """Version 1 serves while 2 loads: a third content must not become version 1."""
    loading = there(found("2", "b"), before=there(found("1", "a"))["m"])
    assert versions(found("1", "c"), beside=loading) == ["3"]
    assert versions(found("1", "a"), beside=loading) == ["1"]


def test_a_version_that_is_asked_for_is_given() -> None:
    """Also when the same model is there under another number."""
    assert versions(found("3", asked=True), beside=there(found("2"))) == ["3"]
    assert versions(found("1", "b"), found("2", asked=True), beside=there(found("1", "a"))) == ["3", "2"]


def test_a_version_that_is_asked_for_does_not_change() -> None:
    with pytest.raises(
        errors.BadSettings, match=r"/m.onnx is not what endpoint 'm' serves as version 3, and a version"
    ):
        renumbered([found("3", "b", asked=True)], there(found("3", "a")))
    with pytest.raises(errors.BadSettings, match="serves as version 3"):
        renumbered([found("3", "b", typed=False, registered="m@3")], there(found("3", "a")))


def test_two_deployments_of_one_file_stay_two() -> None:
    both = found("1"), found("2")
    assert versions(*both, beside=there(*both)) == ["1", "2"]
    assert versions(*both, found("3"), beside=there(*both)) == ["1", "2", "3"]
    assert versions(found("1"), beside=there(*both)) == ["1"]


def test_deployments_may_change_their_order_or_leave() -> None:
    one, two = found("1", "a", path="/a"), found("2", "b", path="/b")
    swapped = found("1", "b", path="/b"), found("2", "a", path="/a")
    assert versions(*swapped, beside=there(one, two)) == ["2", "1"]
    assert versions(found("1", "b", path="/b"), beside=there(one, two)) == ["2"]


def test_a_folder_gives_its_own_numbers() -> None:
    assert versions(found("9", "b", typed=False), beside=there(found("3", "a", typed=False))) == ["9"]
    assert versions(found("3", "b", typed=False), beside=there(found("3", "a", typed=False))) == ["4"]


FILES = st.lists(
    st.tuples(st.sampled_from("abcd"), st.booleans()).flatmap(
        lambda drawn: st.tuples(st.just(drawn[0]), st.integers(1, 6) if drawn[1] else st.none())
    ),
    min_size=1,
    max_size=4,
)


@given(st.lists(FILES, min_size=1, max_size=6))
def test_no_version_ever_changes_what_it_is(files: list[list[tuple[str, int | None]]]) -> None:
    """Files in any order, some deployments with versions: two specs of one version have one content, versions of an
    endpoint differ, and what was asked for is given or refused."""
    beside: dict[str, EndpointRecord] = {}
    for file in files:
        asked = [str(number) for _, number in file if number is not None]
        if len(set(asked)) < len(asked):
            continue  # the reader of the file refuses it
        free = (str(n) for n in range(1, 20) if str(n) not in asked)
        read = [
            found(str(number) if number is not None else next(free), content, path=content, asked=number is not None)
            for content, number in file
        ]
        known = {s.version: s for record in beside.values() for s in record.deployments}
        try:
            made = renumbered(read, beside)
        except errors.BadSettings:
            assert any(c.asked and known.get(s.version, s).artifact != s.artifact for c, s in read)
            continue
        assert len({spec.version for _, spec in made}) == len(made)
        assert [s.version for c, s in made if c.asked] == [s.version for c, s in read if c.asked]
        for _, spec in made:
            assert known.get(spec.version, spec).artifact == spec.artifact
        beside = there(*made)
