"""From requirements to the environment that has them: its key is a hash of all that decides what is in it."""

from __future__ import annotations

import hashlib
import platform
import sys
import sysconfig
from collections.abc import Sequence

import msgspec

from headrace.backends.environments.own_wheel import build_digest
from headrace.core.environments import EnvironmentSpec

_FORMAT = 1
"""Counts changes in how environments are built."""


def specify(requirements: Sequence[str], needs: Sequence[str], *, source_builds: bool = False) -> EnvironmentSpec:
    """The environment with these requirements (in their normal form) on this machine, for this build of Headrace."""
    parts = [
        _FORMAT,
        list(requirements),
        list(needs),
        source_builds,
        platform.python_implementation(),
        sys.version,
        # An environment points into the installation that it was made from.
        sys.base_prefix,
        sysconfig.get_platform(),
        platform.libc_ver(),
        build_digest(),
    ]
    key = hashlib.sha256(msgspec.json.encode(parts)).hexdigest()
    return EnvironmentSpec(key, tuple(requirements), tuple(needs), source_builds)
