"""pip's configuration in uv's words, when uv has none of its own."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from headrace.backends.environments import indexes
from headrace.backends.environments.indexes import Handed

LISTING = """\
global.index-url='https://pypi.example.org/simple'
global.extra-index-url='https://a.example.org/simple\\nhttps://b.example.org/simple'
install.index-url='https://install.example.org/simple'
freeze.timeout='10'
:env:.find-links='/srv/wheels https://c.example.org/'
global.broken=[
"""


def test_pip_config_is_read_by_its_precedence() -> None:
    assert indexes.parse_pip_config(LISTING) == {
        "index-url": "https://install.example.org/simple",
        "extra-index-url": "https://a.example.org/simple\nhttps://b.example.org/simple",
        "find-links": "/srv/wheels https://c.example.org/",
    }


def test_settings_are_handed_over() -> None:
    pip = indexes.parse_pip_config(LISTING) | {"trusted-host": "x.example.org", "cert": "/ca.pem", "no-index": "false"}
    handed = indexes.for_uv(pip, {})
    assert handed.arguments == ()
    assert handed.variables == {
        "UV_DEFAULT_INDEX": "https://install.example.org/simple",
        "UV_INDEX": "https://a.example.org/simple https://b.example.org/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/srv/wheels,https://c.example.org/",
        "UV_INSECURE_HOST": "x.example.org",
        "SSL_CERT_FILE": "/ca.pem",
    }
    kept = {"UV_INDEX_STRATEGY": "first-index", "SSL_CERT_FILE": "/mine.pem", "UV_INSECURE_HOST": "y"}
    assert not kept.keys() & indexes.for_uv(pip, kept).variables.keys()
    assert indexes.for_uv({"no-index": "true"}, {}) == Handed({}, ("--no-index",))
    assert indexes.for_uv({}, {}) == Handed()


def around(tmp_path: Path, **more: str) -> dict[str, str]:
    """A machine without configuration but ``more``."""
    bare = {n: v for n, v in os.environ.items() if not n.startswith(("UV_", "PIP_"))}
    places = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_CONFIG_DIRS": str(tmp_path)}
    return bare | places | {"PIP_CONFIG_FILE": os.devnull} | more


def test_what_pip_really_has_is_found(tmp_path: Path) -> None:
    environ = around(tmp_path, PIP_INDEX_URL="https://pypi.example.org/simple")
    found = asyncio.run(indexes.settings_from_pip(environ))
    assert found == Handed({"UV_DEFAULT_INDEX": "https://pypi.example.org/simple"})
    assert asyncio.run(indexes.settings_from_pip(around(tmp_path))) == Handed()


def test_without_pip_its_variables_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    environ = around(tmp_path, PIP_INDEX_URL="https://pypi.example.org/simple", PIP_NO_CACHE_DIR="1")
    found = asyncio.run(indexes.settings_from_pip(environ))
    assert found == Handed({"UV_DEFAULT_INDEX": "https://pypi.example.org/simple"})


def test_settings_of_uv_win(tmp_path: Path) -> None:
    environ = around(tmp_path, PIP_INDEX_URL="https://pypi.example.org/simple")
    assert asyncio.run(indexes.settings_from_pip(environ | {"UV_INDEX": "https://mine.example.org/x"})) == Handed()
    own = tmp_path / "config" / "uv" / "uv.toml"
    own.parent.mkdir(parents=True)
    own.write_text('cache-dir = "/cache"\n')
    assert asyncio.run(indexes.settings_from_pip(environ)) != Handed(), "it says nothing about indexes"
    for text in ('[[index]]\nurl = "https://mine.example.org/simple"\n', "[pip]\nno-index = true\n", "not TOML ["):
        own.write_text(text)
        assert asyncio.run(indexes.settings_from_pip(environ)) == Handed()
