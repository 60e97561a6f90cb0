"""The key of an environment: the same content is the same key, anything else another."""

from __future__ import annotations

import platform
import sys

import pytest

from headrace.backends.environments import specification
from headrace.backends.environments.specification import specify

LINES = ("numpy==1.26.4",)
NEEDS = ("msgspec>=0.19",)


def test_the_key_is_stable() -> None:
    assert specify(LINES, NEEDS) == specify(list(LINES), list(NEEDS))
    assert len(specify(LINES, NEEDS).key) == 64


def test_everything_that_decides_the_content_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {
        specify(LINES, NEEDS).key,
        specify(("numpy==1.26.3",), NEEDS).key,
        specify(LINES, ("msgspec>=0.20",)).key,
        specify((*LINES, *NEEDS), ()).key,
        specify(LINES, NEEDS, source_builds=True).key,
    }
    for target, value in {
        "headrace.backends.environments.specification.build_digest": lambda: "another build",
        "platform.libc_ver": lambda: ("musl", "1.2"),
        "sysconfig.get_platform": lambda: "linux-riscv64",
    }.items():
        with monkeypatch.context() as patch:
            patch.setattr(target, value)
            keys.add(specify(LINES, NEEDS).key)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version", sys.version.replace(platform.python_version(), "3.99.0"))
        keys.add(specify(LINES, NEEDS).key)
    assert len(keys) == 9
    assert specification.specify(LINES, NEEDS).key in keys
