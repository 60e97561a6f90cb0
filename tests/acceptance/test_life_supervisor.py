"""The supervisor, killed or blinded: without it nothing lives on; without readers of its output it works on."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import threading
from pathlib import Path

from tests.acceptance import saboteurs
from tests.acceptance.load import Load, ask, output
from tests.acceptance.processes import all_end, child, descendants, runtime_directory
from tests.serving import eventually, served


def can_bind(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def test_a_killed_supervisor_takes_everything_along(tmp_path: Path) -> None:
    """Also what a model forked, also while requests are under way; the ports are free for the next one."""
    forks = saboteurs.write(tmp_path, saboteurs.FORKS, "forks")
    plain = saboteurs.write(tmp_path, saboteurs.DOUBLE, "plain")
    ports = free_ports(2)
    flags = [f"--port={ports[0]}", f"--management-port={ports[1]}", "--gateways", "2"]
    with served(forks, plain, *flags, directory=tmp_path / "run") as server:
        directory = runtime_directory(server)
        stuck = threading.Thread(target=ask, args=(server.address, "forks", -1.0))
        stuck.start()
        with Load(server.address, "plain", clients=4) as load:
            load.wait_for(50)
            family = descendants(server.process.pid)
            # controller, two gateways, two workers and the forked child
            assert len(family) == 6
            server.process.kill()
            server.process.wait()
            assert all_end(family)
        stuck.join(10)
        # Gateways and workers end in no order: an answer, a typed error that invites a retry, or a closed connection.
        assert {answer.status for answer in load.answers} <= {200, 503, 0}
        # The last threads of a process let go of its sockets a moment after it looks dead.
        assert eventually(lambda: all(can_bind(port) for port in ports), timeout=5)
        assert not directory.exists()


def test_what_a_model_forked_dies_with_its_worker(tmp_path: Path) -> None:
    """The child holds the worker's sockets open: the death of the worker is seen all the same, at once."""
    model = saboteurs.write(tmp_path, saboteurs.FORKS)
    with served(model, directory=tmp_path / "run") as server:
        (worker,) = server.children("replica.worker")
        first = [worker, *worker.children()]
        assert len(first) == 2
        worker.kill()
        answer = ask(server.address, "m", 2.0)
        assert (answer.status, output(answer.document)) == (200, [4.0])
        assert answer.seconds < 5
        assert all_end(first)
        family = descendants(server.process.pid)
        assert server.stop() == 0
        assert all_end(family)


def test_a_reader_of_the_log_who_leaves_stops_nothing(tmp_path: Path) -> None:
    """``headrace serve 2>&1 | head``: what dies is still seen and restarted, and the end is in order."""
    model = saboteurs.write(tmp_path, saboteurs.DOUBLE.replace("time.sleep(0.002)", "print('computing')"))
    ports = free_ports(2)
    flags = ["--port", str(ports[0]), "--management-port", str(ports[1])]
    command = [sys.executable, "-m", "headrace.cli.main", "serve", str(model), *flags]
    read_end, write_end = os.pipe()
    process = subprocess.Popen(command, stdout=write_end, stderr=write_end, cwd=tmp_path)
    os.close(write_end)
    os.close(read_end)
    try:
        address = f"127.0.0.1:{ports[0]}"
        eventually(lambda: ask(address, "m", 1.0).status == 200)
        for module in ("replica.worker", "app.gateway", "app.controller"):
            victim = child(process.pid, module)
            assert victim is not None
            victim.kill()
            eventually(lambda module=module, victim=victim: child(process.pid, module) not in (None, victim))
            eventually(lambda: ask(address, "m", 1.0).status == 200)
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def free_ports(count: int) -> list[int]:
    """Below the range that outgoing connections take: a client that keeps connecting to a closed port inside it may
    meet itself there, and then holds the port."""
    found = [port for port in random.sample(range(20_000, 30_000), 200) if can_bind(port)]
    return found[:count]
