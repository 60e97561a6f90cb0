"""Series pages: what is written is what is read, whoever dies and whatever lies on the disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headrace.core import errors
from headrace.telemetry import pages, processes
from headrace.telemetry.pages import Key, SeriesPage


def read(directory: Path) -> dict[tuple[str, Key], list[float]]:
    return {(process, key): values for process, key, values in pages.read_pages(directory)}


def used_bytes(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[16:24], sys.byteorder)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[SeriesPage]:
    page = SeriesPage(tmp_path, "gateway-0")
    yield page
    page.close()


def test_reads_what_was_written_while_the_writer_goes_on(page: SeriesPage, tmp_path: Path) -> None:
    cells = page.cells(("requests", "fräud/x", "1"), 3)
    cells[1] += 2
    assert read(tmp_path) == {("gateway-0", ("requests", "fräud/x", "1")): [0.0, 2.0, 0.0]}
    cells[2] = 0.5
    page.cells(("other",), 1)[0] = 7
    assert read(tmp_path) == {
        ("gateway-0", ("requests", "fräud/x", "1")): [0.0, 2.0, 0.5],
        ("gateway-0", ("other",)): [7.0],
    }


def test_the_same_key_gives_the_same_cells(page: SeriesPage) -> None:
    page.cells(("a",), 2)[0] = 5
    assert page.cells(("a",), 2).tolist() == [5.0, 0.0]


def test_counters_go_on_after_a_close_and_live_blocks_end(tmp_path: Path) -> None:
    first = SeriesPage(tmp_path, "gateway-0")
    first.cells(("count",), 1)[0] = 41
    first.cells(("depth",), 1, live=True)[0] = 9
    assert read(tmp_path)[("gateway-0", ("depth",))] == [9.0]
    first.close()
    first.close()
    assert read(tmp_path) == {("gateway-0", ("count",)): [41.0]}

    second = SeriesPage(tmp_path, "gateway-0")
    second.cells(("count",), 1)[0] += 1
    assert second.restarted
    assert read(tmp_path) == {("gateway-0", ("count",)): [42.0]}
    assert second.cells(("depth",), 1, live=True).tolist() == [0.0]
    second.close()


def test_a_page_has_one_living_writer(page: SeriesPage, tmp_path: Path) -> None:
    with pytest.raises(errors.Bug, match=f"belongs to live process {os.getpid()}"):
        SeriesPage(tmp_path, "gateway-0")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b"])
def test_refuses_names_that_are_no_file_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(errors.Bug, match="cannot name a page"):
        SeriesPage(tmp_path, name)


def test_retired_blocks_vanish_and_their_room_is_used_again(page: SeriesPage, tmp_path: Path) -> None:
    page.cells(("state", "fraud@1#1"), 7, live=True)[0] = 1
    before = used_bytes(page.path)
    for number in range(2, 200):
        page.retire(("state", f"fraud@1#{number - 1}"))
        page.cells(("state", f"fraud@1#{number}"), 7, live=True)[number % 7] = number
    page.retire(("never", "seen"))
    assert used_bytes(page.path) == before
    (only,) = read(tmp_path).items()
    assert only == (("gateway-0", ("state", "fraud@1#199")), [0, 0, 0, 199, 0, 0, 0])


def test_a_block_of_another_size_or_kind_is_replaced(page: SeriesPage, tmp_path: Path) -> None:
    page.cells(("histogram",), 3)[0] = 5
    assert page.cells(("histogram",), 4).tolist() == [0.0] * 4
    page.cells(("histogram",), 4, live=True)[1] = 1
    assert read(tmp_path) == {("gateway-0", ("histogram",)): [0.0, 1.0, 0.0, 0.0]}


def test_grows_far_beyond_what_it_reserves_at_first(page: SeriesPage, tmp_path: Path) -> None:
    for number in range(1000):
        page.cells(("block", str(number)), 100)[99] = number
    found = read(tmp_path)
    assert len(found) == 1000
    assert all(found[("gateway-0", ("block", str(number)))][99] == number for number in range(1000))
    assert page.path.stat().st_blocks * 512 < 4 << 20  # the file is sparse


def test_a_full_page_takes_increments_and_counts_what_is_lost(tmp_path: Path) -> None:
    page = SeriesPage(tmp_path, "gateway-0", capacity=4096)
    for number in range(100):
        page.cells(("block", str(number)), 10)[0] += 1
        page.cells(("block", str(number)), 10)[0] += 1
    (snapshot,) = pages.read_directory(tmp_path)
    assert 0 < len(snapshot.blocks) < 100
    assert all(values[0] == 2 for _, values in snapshot.blocks)
    assert snapshot.lost == 100 - len(snapshot.blocks)
    page.close()
    SeriesPage(tmp_path, "gateway-0", capacity=4096).close()
    assert pages.read_directory(tmp_path)[0].lost == 0


def test_a_full_disk_is_noticed_before_a_store_could_fault(
    page: SeriesPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.cells(("before",), 1)[0] = 1

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    for number in range(5000):
        page.cells(("block", str(number)), 10)[0] = 1
    (snapshot,) = pages.read_directory(tmp_path)
    assert (("before",), [1.0]) in snapshot.blocks
    assert snapshot.lost > 0
    assert snapshot.lost + len(snapshot.blocks) == 5001


def test_a_missing_directory_has_no_pages(tmp_path: Path) -> None:
    assert pages.read_directory(tmp_path / "nothing") == []


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "0 bytes"),
        (b"HEADRACE", "8 bytes"),
        (b"something else" * 10, "wrong magic"),
        (b"HEADRACE" + (99).to_bytes(8, sys.byteorder) + bytes(48), "version is 99"),
        (b"HEADRACE" + (1).to_bytes(8, sys.byteorder) + (1 << 40).to_bytes(8, sys.byteorder) + bytes(40), "table ends"),
        (b"HEADRACE" + (1).to_bytes(8, sys.byteorder) + (128).to_bytes(8, sys.byteorder) + bytes(104), "sizes"),
    ],
)
def test_a_file_that_is_no_page_is_skipped_and_replaced(tmp_path: Path, content: bytes, fault: str) -> None:
    (tmp_path / "gateway-0.page").write_bytes(content)
    (snapshot,) = pages.read_directory(tmp_path)
    assert fault in snapshot.fault
    assert snapshot.blocks == []
    page = SeriesPage(tmp_path, "gateway-0")
    assert fault in page.replaced_fault
    page.cells(("a",), 1)[0] = 1
    assert read(tmp_path) == {("gateway-0", ("a",)): [1.0]}
    page.close()


def test_an_unreadable_file_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "gateway-0.page").mkdir()
    assert "cannot be read" in pages.read_directory(tmp_path)[0].fault


@pytest.fixture(scope="module")
def whole_page() -> Iterator[bytes]:
    with tempfile.TemporaryDirectory() as directory:
        page = SeriesPage(Path(directory), "p", capacity=1 << 14)
        for number in range(20):
            page.cells(("metric", str(number)), 3, live=number % 5 == 0)[0] = number
        page.retire(("metric", "7"))
        page.close()
        yield page.path.read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(st.data())
def test_torn_and_damaged_files_never_raise_and_never_show_foreign_keys(
    whole_page: bytes, tmp_path: Path, data: st.DataObject
) -> None:
    damaged = bytearray(whole_page[: data.draw(st.integers(0, len(whole_page)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if damaged:
            at = data.draw(st.integers(0, min(len(damaged), 3000) - 1))
            damaged[at] = data.draw(st.integers(0, 255))
    path = tmp_path / "p.page"
    path.write_bytes(damaged)
    snapshot = pages.read_page(path)
    assert not (snapshot.fault and snapshot.blocks)
    assert {key for key, _ in snapshot.blocks} <= {("metric", str(number)) for number in range(20)}
    page = SeriesPage(tmp_path, "p", capacity=1 << 14)  # whatever it is, a writer can start on it
    page.cells(("after",), 1)[0] = 3
    assert (("after",), [3.0]) in pages.read_page(path).blocks
    page.close()
    path.unlink()


class PageMachine(RuleBasedStateMachine):
    """A page against a dict: any order of adding, retiring, closing and taking over."""

    keys = st.tuples(st.sampled_from(["a", "b", "c" * 40]), st.text(max_size=3))

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.directory = Path(self.folder.name)
        self.page = SeriesPage(self.directory, "p", capacity=1 << 20)
        self.model: dict[Key, tuple[bool, list[float]]] = {}

    @rule(key=keys, count=st.integers(1, 3), live=st.booleans(), cell=st.integers(0, 2), amount=st.integers(1, 9))
    def add(self, key: Key, count: int, live: bool, cell: int, amount: int) -> None:
        known = self.model.get(key)
        if known is None or known[0] != live or len(known[1]) != count:
            known = self.model[key] = (live, [0.0] * count)
        self.page.cells(key, count, live=live)[cell % count] += amount
        known[1][cell % count] += amount

    @rule(key=keys)
    def retire(self, key: Key) -> None:
        self.page.retire(key)
        self.model.pop(key, None)

    @rule()
    def take_over(self) -> None:
        self.page.close()
        self.model = {key: block for key, block in self.model.items() if not block[0]}
        assert self.seen() == {key: values for key, (_, values) in self.model.items()}
        self.page = SeriesPage(self.directory, "p", capacity=1 << 20)

    @invariant()
    def reader_sees_the_model(self) -> None:
        assert self.seen() == {key: values for key, (_, values) in self.model.items()}

    def seen(self) -> dict[Key, list[float]]:
        return {key: values for _, key, values in pages.read_pages(self.directory)}

    def teardown(self) -> None:
        self.page.close()
        self.folder.cleanup()


TestPageMachine = PageMachine.TestCase
TestPageMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


WRITER = """
import random, select, sys
from pathlib import Path
from headrace.telemetry.pages import SeriesPage

draw = random.Random(int(sys.argv[2]))
page = SeriesPage(Path(sys.argv[1]), "writer")
names = [(str(number), "x" * draw.randrange(60)) for number in range(8)]
print("ready", flush=True)
turn = 0
while turn % 64 or not select.select([sys.stdin], [], [], 0)[0]:
    turn += 1
    number = draw.randrange(8)
    key = names[number]
    if number < 3 and draw.random() < 0.3:  # these come and go, and take each other's room
        page.retire(key)
    else:
        cells = page.cells(key, 5, live=number < 3)
        for cell in range(5):
            cells[cell] = 1000.0 * turn + number
print(turn, flush=True)
"""


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1 << 16))
def test_a_reader_in_another_process_never_sees_garbage(seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        writer = start(WRITER, str(directory), str(seed))
        with writer:
            assert writer.stdout is not None
            assert writer.stdin is not None
            writer.stdout.readline()
            last: dict[Key, list[float]] = {}
            for _ in range(400):
                (snapshot,) = pages.read_directory(directory)
                assert snapshot.fault == ""
                for key, values in snapshot.blocks:
                    # Every value was written for this very key, and counters never step back.
                    assert all(value == 0 or value % 1000 == int(key[0]) for value in values), (key, values)
                    if int(key[0]) >= 3:
                        assert all(map(float.__ge__, values, last.get(key, values)))
                        last[key] = values
            writer.stdin.close()
            turns = int(writer.stdout.readline())
        assert turns > 400
        assert len(last) == 5


COUNTER = """
import os, sys
from pathlib import Path
from headrace.telemetry.pages import SeriesPage

page = SeriesPage(Path(sys.argv[1]), "gateway-0")
cells = page.cells(("count",), 1)
page.cells(("depth",), 1, live=True)[0] = 5
while True:
    cells[0] += 1
    if cells[0] % 500 == 0:
        os.write(1, b"%d\\n" % cells[0])
"""


def test_counters_survive_kill_9_and_the_successor_counts_on(tmp_path: Path) -> None:
    reached = 0.0
    for _ in range(3):
        with start(COUNTER, str(tmp_path)) as writer:
            assert writer.stdout is not None
            told = [int(writer.stdout.readline()) for _ in range(4)][-1]
            assert told > reached
            assert read(tmp_path)[("gateway-0", ("depth",))] == [5.0]
            writer.send_signal(signal.SIGKILL)
            # Not reaped yet: a zombie counts as dead, so that the successor need not wait for its parent.
            os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOWAIT)
            (snapshot,) = pages.read_directory(tmp_path)
            assert not snapshot.alive
            ((key, values),) = snapshot.blocks
            assert key == ("count",)
            assert values[0] >= told
            reached = values[0]


def test_process_start_time_tells_incarnations_apart() -> None:
    assert processes.started(os.getpid()) == processes.started(os.getpid())
    with subprocess.Popen(["sleep", "60"]) as child:
        assert processes.started(child.pid) is not None
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert processes.started(child.pid) is None
    assert processes.started(child.pid) is None
    assert processes.usage(child.pid) is None


def test_process_usage_is_plausible() -> None:
    used = processes.usage(os.getpid())
    assert used is not None
    assert 1 << 20 < used[0] < 1 << 40
    assert 0 < used[1] < 1e6


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
