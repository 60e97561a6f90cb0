"""One request in a thousand kills, hangs or exhausts the replica: it gets one typed error, everyone else an answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance import saboteurs
from tests.acceptance.load import Load, output
from tests.serving import Served, served

REQUESTS = 1000
CULPRIT = 500


@pytest.mark.parametrize(
    ("worst", "flags", "error", "death", "most_restarts"),
    [
        (saboteurs.SEGFAULT, (), "replicas died 2 times", "SIGSEGV", 2),
        (saboteurs.EXIT, (), "replicas died 2 times", "exited with code 7", 2),
        (saboteurs.HANG, ("--replica-timeout", "500ms"), "replicas died 2 times", "hang: a batch ran for", 2),
        (saboteurs.ALLOCATE, ("--memory", "2GiB"), "ran out of memory", "", 0),
        (saboteurs.RAISE, (), "minus three is not welcome", "", 0),
        (saboteurs.SYSTEM_EXIT, (), "SystemExit: minus six", "", 0),
        (saboteurs.PANIC, (), "Panic: minus seven", "", 0),
    ],
    ids=["segfault", "exit", "hang", "memory", "raise", "sys.exit", "panic"],
)
def test_one_bad_request_in_a_thousand(
    tmp_path: Path, worst: float, flags: tuple[str, ...], error: str, death: str, most_restarts: int
) -> None:
    model = saboteurs.write(tmp_path, saboteurs.SABOTEUR)
    with served(model, *flags, directory=tmp_path / "run") as server:
        value = lambda number: worst if number == CULPRIT else float(number)  # noqa: E731 - shorter than a function
        with Load(server.address, "m", clients=16, count=REQUESTS, value=value) as load:
            load.join()
        restarts = restarts_of(server)
    (failed,) = load.failed()
    assert failed.number == CULPRIT
    assert failed.status == 500
    assert error in failed.message
    assert len(load.answers) == REQUESTS
    assert all(output(a.document) == [2 * a.number] for a in load.answers if a.status == 200)
    assert len(restarts) <= most_restarts
    assert all(death in event["reason"] for event in restarts)
    assert restarts or not death


def restarts_of(server: Served) -> list[dict[str, str]]:
    """Every restart told so far."""
    server.stop()
    server.wait_event("Stopped")
    return [event for event in server.events if event["type"] == "ReplicaRestarted"]


def test_two_replicas_do_not_die_of_the_same_request_at_once(tmp_path: Path) -> None:
    """While suspects are tried out on one replica the other serves on."""
    model = saboteurs.write(tmp_path, saboteurs.SABOTEUR)
    with served(model, "--replicas", "2", directory=tmp_path / "run") as server:
        value = lambda number: saboteurs.SEGFAULT if number == 300 else float(number)  # noqa: E731
        with Load(server.address, "m", clients=16, count=600, value=value) as load:
            load.join()
        assert [(a.number, a.status) for a in load.failed()] == [(300, 500)]
        assert len(restarts_of(server)) <= 2
