"""CPU and memory of the machine or container, and the share of each replica."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.app import resources

AFFINITY = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("max 100000", AFFINITY),
        ("50000 100000", 0.5),
        ("100000000 100000", AFFINITY),
        ("", AFFINITY),
        ("garbage here", AFFINITY),
        ("1 0", AFFINITY),
        ("one two three", AFFINITY),
    ],
)
def test_cpus_are_bounded_by_the_quota(tmp_path: Path, content: str, expected: float) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert resources.cpus(tmp_path) == expected


def test_cpus_without_a_cgroup(tmp_path: Path) -> None:
    assert resources.cpus(tmp_path) == AFFINITY


@pytest.mark.parametrize(
    ("cpus", "gateways", "replicas", "asked", "threads"),
    [
        (16, 1, 1, None, 15),
        (16, 2, 3, None, 4),
        (2, 1, 1, None, 1),
        (1, 4, 8, None, 1),
        (16, 1, 1, 4.0, 4),
        (16, 1, 1, 0.5, 1),
        (16, 1, 0, None, 15),
    ],
)
def test_threads_share_what_gateways_leave(
    cpus: float, gateways: int, replicas: int, asked: float | None, threads: int
) -> None:
    assert resources.threads_per_replica(cpus, gateways, replicas, asked) == threads


def test_thread_environment() -> None:
    assert set(resources.thread_environment(3).values()) == {"3"}
    assert "OMP_NUM_THREADS" in resources.thread_environment(3)


def test_resident_bytes() -> None:
    assert resources.resident_bytes(os.getpid()) > 1 << 20
    assert resources.resident_bytes(2**22 + 1) == 0


@pytest.mark.parametrize(("content", "kills"), [("low 0\noom 3\noom_kill 2\n", 2), ("low 0\n", 0), (None, 0)])
def test_oom_kills(tmp_path: Path, content: str | None, kills: int) -> None:
    if content is not None:
        (tmp_path / "memory.events").write_text(content)
    assert resources.oom_kills(tmp_path) == kills
