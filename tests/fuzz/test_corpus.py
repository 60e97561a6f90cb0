"""The kept corpus through every parser, whole and mutated: caller errors only, whatever the bytes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

HERE = Path(__file__).parent
CORPUS = sorted(path for path in (HERE / "corpus").rglob("*") if path.is_file())


def _load(name: str) -> ModuleType:
    # pytest imports by file, not by path, so a sibling module is loaded the same way.
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


targets = _load("targets")


def seeds(name: str) -> list[bytes]:
    return [path.read_bytes() for path in CORPUS if path.parent.name == name]


def test_every_target_has_seeds_and_every_seed_a_target() -> None:
    assert {path.parent.name for path in CORPUS} == set(targets.TARGETS)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_corpus(path: Path) -> None:
    targets.run(path.parent.name, path.read_bytes())


@pytest.mark.parametrize("name", sorted(targets.TARGETS))
def test_some_seeds_are_valid(name: str) -> None:
    """A corpus of rejected inputs only would fuzz nothing but the first check."""
    accepted = 0
    for seed in seeds(name):
        try:
            targets.TARGETS[name](seed)
            accepted += 1
        except targets.errors.CallerError:
            continue
    assert accepted


@st.composite
def mutated(draw: st.DrawFn, name: str) -> bytes:
    """A seed with a few bytes replaced, removed, inserted or repeated."""
    data = bytearray(draw(st.sampled_from(seeds(name))))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        end = at + draw(st.integers(0, 4))
        piece = draw(st.one_of(st.binary(max_size=4), st.sampled_from(SPLICES), st.just(bytes(data[at:end]) * 2)))
        data[at:end] = piece
    return bytes(data)


SPLICES = [b"null", b"NaN", b"-1", b"1e999", b"9" * 30, b"[[", b"]", b"{}", b'"', b"true", b"\xff\xff\xff\xff", b"\x00"]


@pytest.mark.parametrize("name", sorted(targets.TARGETS))
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_mutations(name: str, data: st.DataObject) -> None:
    targets.run(name, data.draw(mutated(name)))


@pytest.mark.parametrize("name", sorted(targets.TARGETS))
@given(data=st.binary(max_size=200))
def test_arbitrary_bytes(name: str, data: bytes) -> None:
    targets.run(name, data)
