"""The echo runtime: returns its inputs, and fails, dies or hangs exactly when told."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headrace.core import errors
from headrace.core.models import Format, SlotKind
from headrace.runtimes.inspect import inspect
from headrace.runtimes.runtime import Runtime

Load = Callable[..., Runtime]


def test_every_input_comes_back(load: Load) -> None:
    runtime = load("echo")
    inputs = {"a": np.array([[1, 2]]), "b": np.array([b"x"], dtype=object)}
    outputs = runtime.predict(inputs, {})
    assert set(outputs) == {"a", "b"}
    for name, array in outputs.items():
        np.testing.assert_array_equal(array, inputs[name])
    assert runtime.signature.any_inputs
    assert runtime.signature.batchable


def test_options_come_from_the_file_and_from_the_deployment(write: Callable[[str, str], Path], load: Load) -> None:
    path = write("slow.echo", "headrace-echo 1\n# comment\nbatchable=no\nconcurrency=3\n")
    assert inspect(path).format is Format.ECHO
    runtime = load(path)
    assert (runtime.slots.kind, runtime.slots.count) == (SlotKind.CONCURRENT, 3)
    assert load(path, concurrency="1").slots.kind is SlotKind.BATCH


def test_delays_grow_with_rows(load: Load) -> None:
    runtime = load("echo", delay_ms="10", delay_row_ms="5", busy="yes")
    start = time.perf_counter()
    runtime.predict({"x": np.zeros((4, 2))}, {})
    assert time.perf_counter() - start >= 0.030


def test_chunks(load: Load) -> None:
    runtime = load("echo", chunks="3")
    assert runtime.signature.streaming
    assert not runtime.signature.batchable
    assert len(list(runtime.stream({"x": np.array([1])}, {}))) == 3


@pytest.mark.parametrize(
    "array", [np.array([1.0, 7.0]), np.array([[7]]), np.array([b"seven", b"7"], dtype=object)], ids=str
)
def test_fail_on_a_value(load: Load, array: np.ndarray) -> None:
    runtime = load("echo", fail_on="7")
    assert "x" in runtime.predict({"x": np.array([1.0])}, {})
    with pytest.raises(errors.ModelRaised, match="input 'x' holds 7"):
        runtime.predict({"x": array}, {})


def test_text_triggers_do_not_match_numbers(load: Load) -> None:
    runtime = load("echo", fail_on="boom")
    assert "x" in runtime.predict({"x": np.array([1.0])}, {})
    with pytest.raises(errors.ModelRaised):
        runtime.predict({"x": np.array([b"boom"], dtype=object)}, {})


@pytest.mark.parametrize(("option", "code"), [("exit_on", 3), ("segv_on", -11)])
def test_death_is_real(option: str, code: int) -> None:
    source = (
        "import numpy as np\nfrom headrace.runtimes.echo import EchoRuntime\n"
        f"EchoRuntime({{'{option}': '7'}}).predict({{'x': np.array([7])}}, {{}})\nprint('alive')"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, timeout=30)
    assert done.returncode == code
    assert b"alive" not in done.stdout


@pytest.mark.parametrize("option", ["hang_on", "freeze_on"])
def test_hanging_lets_other_threads_run_or_not(option: str) -> None:
    source = (
        "import threading, os, numpy as np\nfrom headrace.runtimes.echo import EchoRuntime\n"
        f"echo = EchoRuntime({{'{option}': '7'}})\n"
        "started = threading.Event()\n"
        "def run(): started.set(); echo.predict({'x': np.array([7])}, {})\n"
        "threading.Thread(target=run, daemon=True).start(); started.wait()\n"
        "import time; time.sleep(0.3); os._exit(5)"
    )
    process = subprocess.Popen([sys.executable, "-c", source])
    try:
        if option == "hang_on":
            assert process.wait(timeout=30) == 5
        else:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=2)
    finally:
        process.kill()
        process.wait()


def test_wrong_options_are_named(write: Callable[[str, str], Path], load: Load) -> None:
    with pytest.raises(errors.BadSettings, match="no option 'delay'; did you mean 'delay_ms'"):
        load("echo", delay="1")
    with pytest.raises(errors.BadSettings, match="'delay_ms' is a number, got 'soon'"):
        load("echo", delay_ms="soon")
    with pytest.raises(errors.BadSettings, match="'busy' is yes or no, got 'maybe'"):
        load("echo", busy="maybe")
    with pytest.raises(errors.LoadFailed, match="expected option=value, got 'nonsense'"):
        load(write("e", "headrace-echo 1\nnonsense\n"))


def test_loading_can_fail(load: Load) -> None:
    with pytest.raises(errors.LoadFailed, match="out of order"):
        load("echo", fail_load="out of order")
