"""The echo runtime: every input comes back as an output of the same name. For tests of everything around it.

An echo model is a text file: the line ``headrace-echo 1``, then ``option=value`` lines. Options given to the
deployment come on top of those in the file. The ``*_on`` options act when an element of any input equals
their value: a number for numeric tensors, text for BYTES.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from headrace.core import errors
from headrace.core.models import Artifact, Signature, SlotKind, Slots
from headrace.core.requests import Parameter
from headrace.core.tensors import Array
from headrace.runtimes import options as text_options
from headrace.runtimes.runtime import Arrays, LoadOptions, Runtime

MAGIC = "headrace-echo 1"

OPTIONS = {
    "delay_ms": "time of a batch, ms",
    "delay_row_ms": "further time of each row, ms",
    "busy": "spend the time computing (holding the GIL) rather than sleeping",
    "batchable": "yes (default) or no",
    "concurrency": "requests that run side by side",
    "chunks": "answer with a stream of this many copies",
    "load_ms": "time that loading takes, ms",
    "fail_load": "loading fails with this message",
    "fail_on": "raise",
    "exit_on": "end the process with os._exit(3)",
    "segv_on": "end the process by a real segmentation fault",
    "hang_on": "never return",
    "freeze_on": "never return, and hold the GIL so that no other thread of the process runs",
}


class EchoRuntime(Runtime):
    def __init__(self, options: Mapping[str, str]) -> None:
        self._delay = text_options.number(options, "delay_ms", 0.0) / 1000
        self._delay_row = text_options.number(options, "delay_row_ms", 0.0) / 1000
        self._busy = text_options.flag(options, "busy", False)
        self._chunks = int(text_options.number(options, "chunks", 0))
        self._triggers = [(name, options[name]) for name in OPTIONS if name.endswith("_on") and name in options]
        concurrency = int(text_options.number(options, "concurrency", 64 if self._chunks else 1))
        alone = concurrency > 1 or self._chunks > 0
        self.platform = "echo"
        self.signature = Signature(
            inputs=(),
            outputs=(),
            batchable=text_options.flag(options, "batchable", True) and not alone,
            streaming=self._chunks > 0,
            any_inputs=True,
        )
        self.slots = Slots(SlotKind.CONCURRENT, concurrency) if alone else Slots()
        self.metadata: dict[str, str] = {}

    def predict(self, inputs: Mapping[str, Array], parameters: Mapping[str, Parameter]) -> Arrays:
        for name, value in self._triggers:
            _act(name, value, inputs)
        delay = self._delay
        if self._delay_row:
            rows = max((array.shape[0] for array in inputs.values() if array.ndim), default=1)
            delay += self._delay_row * rows
        if delay:
            self._spend(delay)
        return dict(inputs)

    def stream(self, inputs: Mapping[str, Array], parameters: Mapping[str, Parameter]) -> Iterator[Arrays]:
        for _ in range(self._chunks):
            yield self.predict(inputs, parameters)

    def _spend(self, seconds: float) -> None:
        if not self._busy:
            time.sleep(seconds)
            return
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass


def _act(trigger: str, value: str, inputs: Mapping[str, Array]) -> None:
    name = next((name for name, array in inputs.items() if _holds(array, value)), None)
    if name is None:
        return
    match trigger:
        case "fail_on":
            raise errors.ModelRaised(f"input {name!r} holds {value}")
        case "exit_on":
            os._exit(3)
        case "segv_on":
            ctypes.string_at(0)
        case "hang_on":
            threading.Event().wait()
        case "freeze_on":
            ctypes.PyDLL(None).sleep(1_000_000)


def _holds(array: Array, value: str) -> bool:
    if array.dtype == object:
        return value.encode() in array.ravel().tolist()
    try:
        return bool((array == float(value)).any())
    except ValueError:
        return False


def load(artifact: Artifact, options: LoadOptions) -> EchoRuntime:
    merged = {**_read(Path(artifact.path)), **options.options}
    text_options.check("echo", merged, OPTIONS)
    time.sleep(text_options.number(merged, "load_ms", 0.0) / 1000)
    if "fail_load" in merged:
        raise errors.LoadFailed(merged["fail_load"])
    return EchoRuntime(merged)


def _read(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    found: dict[str, str] = {}
    for line in lines[1:]:
        if not line.strip() or line.startswith("#"):
            continue
        name, separator, value = line.partition("=")
        if not separator:
            raise errors.LoadFailed(f"{path.name}: expected option=value, got {line!r}")
        found[name.strip()] = value.strip()
    return found
