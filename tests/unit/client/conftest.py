"""The server in memory for the tests of this folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.unit.client.fake_server import FakeServer, Rule, refuse


@pytest.fixture
def fake_server() -> type[FakeServer]:
    """The class: tests say with which signature and rules."""
    return FakeServer


@pytest.fixture
def refusing() -> Callable[..., Rule]:
    return refuse
