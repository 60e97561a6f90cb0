"""Which settings let other machines in, and what is said when there is no key to ask for."""

from __future__ import annotations

import pytest

from headrace.app.keys import exposure
from headrace.app.settings.serve_settings import ServeSettings
from headrace.gateway.settings import GatewaySettings


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("", False),
        ("192.168.0.1", False),
        ("localhost.example.org", False),
    ],
)
def test_is_loopback(host: str, loopback: bool) -> None:
    assert exposure.is_loopback(host) is loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org"])
def test_either_port_may_be_exposed(host: str) -> None:
    assert exposure.exposed(ServeSettings(models=())) is None
    assert exposure.exposed(ServeSettings(models=(), gateway=GatewaySettings(host=host))) == ("host", host)
    assert exposure.exposed(ServeSettings(models=(), management_host=host)) == ("management_host", host)


def test_the_refusal_says_what_to_do() -> None:
    said = exposure.without_keys("host", "::", "/srv/state", "headrace keys bootstrap").message
    assert said.startswith("host '::' can be reached from other machines, and there are no API keys in /srv/state")
    assert "make the first one with: headrace keys bootstrap;" in said
    assert "--no-auth (no_auth: true)" in said


@pytest.mark.parametrize(
    ("state", "database", "command"),
    [
        (None, None, "headrace keys bootstrap"),
        ("/srv/my state", None, "headrace keys bootstrap --state '/srv/my state'"),
        (None, "postgresql://ada@db/x", "headrace keys bootstrap --database postgresql://ada@db/x"),
        (None, "postgresql://ada:secret@db/x", "headrace keys bootstrap --database 'postgresql://ada:***@db/x'"),
    ],
)
def test_the_command_fits_the_flags_and_shows_no_password(
    state: str | None, database: str | None, command: str
) -> None:
    assert exposure.bootstrap_command(state, database) == command
