"""References to the registry become verified copies with their number and their trust."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.app import sources
from headrace.app.registry import version_copies
from headrace.app.registry.registered_models import with_registered
from headrace.app.registry.stored_versions import pull
from headrace.app.settings.model_sources import parse_source
from headrace.app.settings.serve_settings import ServeSettings
from headrace.app.state.registry_state import Location, RegistryState, open_registry
from headrace.core import errors
from headrace.core.models import Artifact, Format
from headrace.core.versions import Draft, Provenance, StoredFile

SOURCE = b"import headrace\n"
DIGEST = f"sha256:{hashlib.sha256(SOURCE).hexdigest()}"


def ignore(what: str, count: int, total: int) -> None:
    return


@pytest.fixture
def location(tmp_path: Path) -> Location:
    return Location(tmp_path / "state", None, str(tmp_path / "state" / "artifacts"))


@pytest.fixture
def state(location: Location, tmp_path: Path) -> Iterator[RegistryState]:
    """A registry with version 3 of ``team/pricer``, a Python file; its alias is ``champion``."""
    path = tmp_path / "pricer.py"
    path.write_bytes(SOURCE)
    artifact = Artifact("model/pricer.py", Format.PYTHON, "python", DIGEST, True, attribute="Pricer")
    files = (StoredFile("model/pricer.py", DIGEST, len(SOURCE)),)
    with open_registry(location) as opened:
        opened.artifacts.put(path, DIGEST, lambda _: None)
        draft = Draft("team/pricer", artifact, files, Provenance("ada", 1.0, "/pricer.py"))
        opened.registry.register(draft, number=3, alias="champion")
        yield opened


def resolve(location: Location, *texts: str) -> ServeSettings:
    return with_registered(ServeSettings(tuple(map(parse_source, texts))), location, ignore)


def copy_of(location: Location) -> Path:
    return location.directory / "versions" / "team@pricer@3" / "model" / "pricer.py"


def test_a_reference_is_served_from_a_copy_under_its_number(location: Location, state: RegistryState) -> None:
    settings = resolve(location, "team/pricer@champion", "p=team/pricer@3")
    assert [(m.path, m.name, m.attribute, m.registered) for m in settings.models] == [
        (str(copy_of(location)), "team/pricer", "Pricer", "team/pricer@3"),
        (str(copy_of(location)), "p", "Pricer", "team/pricer@3"),
    ]
    assert copy_of(location).read_bytes() == SOURCE
    found, failures = sources.discover(settings)
    assert failures == []
    assert [(c.endpoint, c.version, c.attribute) for c in found] == [
        ("team/pricer", "3", "Pricer"),
        ("p", "3", "Pricer"),
    ]
    assert [c.typed for c in found] == [False, False], "nobody typed the path of the copy"


def test_paths_stay_as_they_are(location: Location, state: RegistryState, tmp_path: Path) -> None:
    settings = resolve(location, str(tmp_path / "pricer.py"), "team/pricer@3")
    assert settings.models[0] == parse_source(str(tmp_path / "pricer.py"))


def test_trust_is_what_the_registry_says(location: Location, state: RegistryState) -> None:
    assert resolve(location, "team/pricer@3").trust == ()
    state.registry.trust("team/pricer@3")
    assert resolve(location, "team/pricer@3").trust == (DIGEST,)


@pytest.mark.parametrize("damage", ["changed", "added", "missing"])
def test_a_copy_that_is_not_the_version_is_made_anew(location: Location, state: RegistryState, damage: str) -> None:
    resolve(location, "team/pricer@3")
    copy = copy_of(location)
    match damage:
        case "changed":
            copy.write_bytes(SOURCE[::-1])
        case "added":
            (copy.parent / "sitecustomize.py").write_text("")
        case "missing":
            copy.unlink()
    resolve(location, "team/pricer@3")
    assert [path.name for path in copy.parent.iterdir()] == ["pricer.py"]
    assert copy.read_bytes() == SOURCE


def test_a_good_copy_is_kept(location: Location, state: RegistryState) -> None:
    resolve(location, "team/pricer@3")
    inode = copy_of(location).stat().st_ino
    assert state.artifacts.collect(set(), time.time() + 60).blobs == 1
    resolve(location, "team/pricer@3")
    assert copy_of(location).stat().st_ino == inode


def test_two_servers_may_fetch_at_once(
    location: Location, state: RegistryState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def after_another(opened: RegistryState, version: object, target: Path, progress: object) -> None:
        pull(opened, state.registry.resolve("team/pricer@3"), target, ignore)
        pull(opened, state.registry.resolve("team/pricer@3"), target, ignore)

    monkeypatch.setattr(version_copies, "pull", after_another)
    assert resolve(location, "team/pricer@3").models[0].path == str(copy_of(location))


def test_damage_in_the_store_is_never_served(location: Location, state: RegistryState) -> None:
    blob = Path(state.artifacts.where(DIGEST))
    blob.write_bytes(SOURCE[::-1])
    with pytest.raises(errors.Corrupted, match="is damaged"):
        resolve(location, "team/pricer@3")
    assert not copy_of(location).parent.parent.exists()


def test_what_is_not_there_ends_the_command(location: Location, state: RegistryState) -> None:
    with pytest.raises(errors.UnknownModel, match="no alias 'best'; there are champion"):
        resolve(location, "team/pricer@best")
