"""Models that misbehave on request, and ordinary ones to stand beside them.

``write(folder, SOURCE, name)`` makes the file to serve. Special inputs make a saboteur do its worst; every other input
x is answered with 2·x.
"""

from __future__ import annotations

from pathlib import Path

SEGFAULT, EXIT, RAISE, ALLOCATE, HANG, SYSTEM_EXIT, PANIC = -1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0
"""Inputs of ``SABOTEUR`` and what they make it do."""

SABOTEUR = """\
import ctypes
import os
import sys
import time

import headrace

RAN = os.environ.get("RAN")


class Panic(BaseException):
    pass


class Saboteur(headrace.Model):
    def predict(self, x: headrace.Float32, sleep_ms: float = 0.0) -> {"y": headrace.Float32}:
        if RAN:
            with open(RAN, "a") as file:
                file.write("".join(f"{value:g}\\n" for value in x))
        values = set(x.tolist())
        if -1.0 in values:
            ctypes.string_at(0)
        if -2.0 in values:
            os._exit(7)
        if -3.0 in values:
            raise ValueError("minus three is not welcome")
        if -4.0 in values:
            hoard = bytearray(4 << 30)
        if -5.0 in values:
            time.sleep(1000)
        if -6.0 in values:
            sys.exit("minus six")
        if -7.0 in values:
            raise Panic("minus seven")
        time.sleep(sleep_ms / 1e3)
        return {"y": x * 2}
"""

DOUBLE = """\
import time

import headrace


class Double(headrace.Model):
    def predict(self, x: headrace.Float32) -> {"y": headrace.Float32}:
        time.sleep(0.002)
        return {"y": x * 2}
"""

SLOW_TO_LOAD = """\
import time

import headrace


class SlowToLoad(headrace.Model):
    def load(self):
        time.sleep(1.0)

    def predict(self, x: headrace.Float32) -> {"y": headrace.Float32}:
        return {"y": x * 2}
"""

FORKS = '''\
import os
import time

import headrace


class Forks(headrace.Model):
    """Leaves a child behind that would live for ever and holds every descriptor of its parent."""

    def load(self):
        if os.fork() == 0:
            while True:
                time.sleep(1000)

    def predict(self, x: headrace.Float32) -> {"y": headrace.Float32}:
        if x[0] < 0:
            time.sleep(1000)
        return {"y": x * 2}
'''

WIDE = """\
import headrace


class Wide(headrace.Model):
    def predict(self, x: headrace.Float32[-1]) -> {"y": headrace.Float32[-1]}:
        return {"y": x * 2}
"""

IDENTITY = """\
import headrace


class Identity(headrace.Model):
    def predict(self, x: headrace.Float32[-1]) -> {"y": headrace.Float32[-1]}:
        return {"y": x}
"""

ONE_AT_A_TIME = '''\
import os
import time

import headrace

RAN = os.environ.get("RAN")


class OneAtATime(headrace.Model):
    """Takes twenty milliseconds a request, never two together, and notes each one it begins."""

    batchable = False

    def predict(self, x: headrace.Float32) -> {"y": headrace.Float32}:
        if RAN:
            with open(RAN, "a") as file:
                file.write(f"{x[0]:g}\\n")
        time.sleep(0.02)
        return {"y": x * 2}
'''


def write(folder: Path, source: str, name: str = "m") -> Path:
    """``name.py`` in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    return path


def ran(path: Path) -> list[float]:
    """The inputs that a model with RAN in its environment has begun to compute, in order."""
    return [float(line) for line in path.read_text().split()] if path.exists() else []
