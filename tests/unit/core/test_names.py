"""The grammar of names."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from headrace.core import errors, names


@pytest.mark.parametrize("name", ["fraud", "a", "_x", "team/fraud", "a.b-c_d/e.2", "2fast", "versions", "a" * 255])
def test_legal_endpoints(name: str) -> None:
    assert names.check_endpoint(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "/a", "a/", "a//b", "a b", "-a", ".a", "a/-b", "ü", "a\n", "a%2Fb", "a:b", "a@b", "a" * 256, "../a"],
)
def test_illegal_endpoints(name: str) -> None:
    with pytest.raises(errors.BadSettings, match="is not valid"):
        names.check_endpoint(name)


@pytest.mark.parametrize("name", sorted(names.RESERVED_ENDPOINTS))
def test_reserved_endpoints_suggest_another(name: str) -> None:
    with pytest.raises(errors.BadSettings, match=f"{name}-model"):
        names.check_endpoint(name)


@pytest.mark.parametrize("segment", sorted(names.RESERVED_SEGMENTS))
def test_reserved_segments_after_a_slash(segment: str) -> None:
    with pytest.raises(errors.BadSettings, match="reserved path segment"):
        names.check_endpoint(f"a/{segment}")
    with pytest.raises(errors.BadSettings, match="reserved path segment"):
        names.check_endpoint(f"a/{segment}/b")


@pytest.mark.parametrize("version", ["1", "v1.2", "2026-11-24", "_", "a" * 128])
def test_legal_versions(version: str) -> None:
    assert names.check_version(version) == version


@pytest.mark.parametrize("version", ["", "a/b", "-1", ".1", "a b", "1\n", "a" * 129])
def test_illegal_versions(version: str) -> None:
    with pytest.raises(errors.BadSettings, match="is not valid"):
        names.check_version(version)


@given(st.text(max_size=200))
def test_every_file_name_makes_a_legal_endpoint(stem: str) -> None:
    made = names.endpoint_from_path(stem)
    assert names.check_endpoint(made) == made


@pytest.mark.parametrize(
    ("stem", "name"),
    [("My model", "My-model"), ("fraud", "fraud"), ("…", "model"), ("chat", "chat-model"), (".x.", "x")],
)
def test_endpoint_from_path(stem: str, name: str) -> None:
    assert names.endpoint_from_path(stem) == name


@pytest.mark.parametrize(
    ("text", "parts"),
    [("fraud", ("fraud", None)), ("fraud@7", ("fraud", "7")), ("team/fraud@champion", ("team/fraud", "champion"))],
)
def test_references_have_a_model_and_a_choice(text: str, parts: tuple[str, str | None]) -> None:
    assert names.split_reference(text) == parts


@pytest.mark.parametrize("text", ["", "@7", "fraud@", "fraud@a@b", "fraud@a/b", "a b@7", "stats@1"])
def test_illegal_references(text: str) -> None:
    with pytest.raises(errors.BadSettings):
        names.split_reference(text)


def test_a_models_name_is_called_one() -> None:
    with pytest.raises(errors.BadSettings, match=r"^model name 'a b' is not valid"):
        names.check_model("a b")


@pytest.mark.parametrize("alias", ["champion", "v7", "7a", "_x", "a.b-c"])
def test_legal_aliases(alias: str) -> None:
    assert names.check_alias(alias) == alias


@pytest.mark.parametrize("alias", ["", "7", "007", "a b", "a@b", "a/b"])
def test_illegal_aliases(alias: str) -> None:
    with pytest.raises(errors.BadSettings, match="alias"):
        names.check_alias(alias)


def test_versions_sort_by_number() -> None:
    assert sorted(["10", "3", "b", "1", "a"], key=names.version_order) == ["a", "b", "1", "3", "10"]
