"""Real worker processes: load, run, join, stream, refuse, and die in every way a model can think of."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from headrace.core import errors
from headrace.core.calls import Batch
from headrace.replica import messages, status_page
from headrace.replica.messages import TensorHead
from headrace.replica.spec import OUT_OF_MEMORY_EXIT
from tests import workers
from tests.fakes import until
from tests.workers import Gateway, Reader, RunningWorker, answer, call, echo, python_model, running

MIB = 1 << 20


def scenario(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60.0))  # type: ignore[arg-type]


async def computing(process: RunningWorker, count: int = 1) -> None:
    """Wait until the status page shows so many batches."""
    await until(lambda: len(status_page.read(process.status_path) or []) == count, pause=0.005)


def test_load_run_and_fail_alone(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path, echo(tmp_path, fail_on=13)) as process:
            kinds = [(await asyncio.to_thread(process.report)).kind for _ in range(3)]
            assert kinds == [messages.LOADING, messages.WARMING, messages.READY]
            handle = await process.connect(Gateway())
            calls = [call(1, 2), call(13), call(), call(3)]
            handle.submit(calls, 0.0, 64, idempotent=True)
            assert (await answer(calls[0])).tolist() == [[1], [2]]
            with pytest.raises(errors.ModelRaised, match="'x' holds 13"):
                await answer(calls[1])
            assert (await answer(calls[2])).shape == (0, 1)
            assert (await answer(calls[3])).tolist() == [[3]]
            assert calls[0].batch_rows == 4
            assert calls[0].compute > 0
            both = [call(1), call(13)]
            handle.submit(both, 0.0, 64, idempotent=False)
            for one in both:
                with pytest.raises(errors.ModelRaised):
                    await answer(one)
            # An answer leaves before the page says so.
            await until(lambda: status_page.completed(process.status_path) == 2, pause=0.005)
            await computing(process, 0)
            handle.close()

    scenario(test)


def test_batches_of_several_gateways_are_joined_when_they_fit(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path, echo(tmp_path, delay_ms=100)) as process:
            await process.ready()
            one, two = [await process.connect(Gateway()) for _ in range(2)]
            first = call(0)
            one.submit([first], 0.0, 8, idempotent=True)
            await computing(process)
            joined = [call(1, 2, 3), call(4, 5)]
            one.submit([joined[0]], 0.0, 8, idempotent=True)
            two.submit([joined[1]], 0.0, 8, idempotent=True)
            solo, other, large = call(6), call(7, width=2), call(8, 9, 10, 11)
            two.submit([solo], 0.0, 8, idempotent=True, solo=True)
            one.submit([other], 0.0, 8, idempotent=True)
            two.submit([large], 0.0, 8, idempotent=True)
            parameters = [call(20, mode={"flag": True}), call(21, mode={"flag": 1}), call(22, mode={"flag": True})]
            for index, waiting in enumerate(parameters):
                (one, two)[index % 2].submit([waiting], 0.0, 8, idempotent=True)
            everything = [first, *joined, solo, other, large, *parameters]
            answers = [await answer(c) for c in everything]
            assert [a.tolist() for a in answers] == [c.bound.arrays[0].tolist() for c in everything]
            assert [c.batch_rows for c in everything] == [1, 5, 5, 1, 1, 4, 2, 1, 2]
            one.close()
            two.close()

    scenario(test)


def test_joined_batch_that_fails_hurts_only_the_culprit(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path, echo(tmp_path, delay_ms=50, fail_on=13)) as process:
            await process.ready()
            one, two = [await process.connect(Gateway()) for _ in range(2)]
            one.submit([call(0)], 0.0, 8, idempotent=True)
            await computing(process)
            mine = [call(1), call(13), call(2, 3)]
            theirs = [call(), call(4)]
            one.submit(mine, 0.0, 8, idempotent=True)
            two.submit(theirs, 0.0, 8, idempotent=True)
            assert (await answer(mine[0])).tolist() == [[1]]
            with pytest.raises(errors.ModelRaised):
                await answer(mine[1])
            assert (await answer(mine[2])).tolist() == [[2], [3]]
            assert (await answer(theirs[0])).shape == (0, 1)
            assert (await answer(theirs[1])).tolist() == [[4]]
            one.close()
            two.close()

    scenario(test)


def test_gateway_that_leaves_takes_its_waiting_batches_along(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path, echo(tmp_path, delay_ms=50)) as process:
            await process.ready()
            one, two = [await process.connect(Gateway()) for _ in range(2)]
            one.submit([call(0)], 0.0, 1, idempotent=True)
            await computing(process)
            for _ in range(3):
                one.submit([call(1)], 0.0, 1, idempotent=True)
            one.close()
            last = call(2)
            two.submit([last], 0.0, 1, idempotent=True)
            await answer(last)
            assert status_page.completed(process.status_path) <= 3
            two.close()

    scenario(test)


def test_streams_with_credit_cancel_and_a_stalled_reader(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path, echo(tmp_path, chunks=40)) as process:
            (ready,) = await process.ready()
            assert ready.model.signature.streaming
            gateway = Gateway()
            handle = await process.connect(gateway)
            stalled, reading, leaving = Reader(), Reader(), Reader()
            handle.start_stream(call(1), stalled, 4, idempotent=True)
            number = handle.start_stream(call(2), reading, 4, idempotent=True)
            cancelled = handle.start_stream(call(3), leaving, 4, idempotent=True)
            handle.cancel(cancelled)
            assert isinstance(await leaving.end(), errors.Cancelled)
            for _ in range(40):
                (chunk,) = await asyncio.wait_for(reading.chunks.get(), 10.0)
                assert chunk.array.tolist() == [[2.0]]
                handle.grant(number, 1)
            assert await reading.end() is None
            for _ in range(4):
                await asyncio.wait_for(stalled.chunks.get(), 10.0)
            assert stalled.chunks.empty(), "the stalled reader has its credit's chunks and no more"
            assert (handle.outstanding, gateway.streams_ended) == (1, 2)
            handle.close()
            # The worker goes on: the abandoned stream has given its thread back.
            again = await process.connect(Gateway())
            readers = [Reader() for _ in range(64)]
            for reader in readers:
                again.start_stream(call(4), reader, 100, idempotent=True)
            assert [await r.end() for r in readers] == [None] * 64
            again.close()

    scenario(test)


def test_kill_tells_computing_from_waiting(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path, echo(tmp_path, hang_on=13)) as process:
            await process.ready()
            gateway = Gateway()
            handle = await process.connect(gateway)
            hanging = handle.submit([call(13)], 0.0, 1, idempotent=True)
            waiting = handle.submit([call(1)], 0.0, 1, idempotent=True)
            await computing(process)
            shown = handle.computing()
            assert shown is not None
            assert shown[1] == 1
            process.kill()
            deaths: tuple[list[Batch], list[Batch]] = await asyncio.wait_for(gateway.deaths.get(), 1.0)
            assert deaths == ([hanging], [waiting])

    scenario(test)


@pytest.mark.parametrize(("trigger", "code"), [("exit_on", 3), ("segv_on", -11)])
def test_model_that_ends_the_process(tmp_path: Path, trigger: str, code: int) -> None:
    async def test() -> None:
        async with running(tmp_path, echo(tmp_path, **{trigger: 13})) as process:
            await process.ready()
            gateway = Gateway()
            handle = await process.connect(gateway)
            fine, deadly = call(1), call(13)
            handle.submit([fine], 0.0, 1, idempotent=True)
            handle.submit([deadly], 0.0, 1, idempotent=True)
            computed, waiting = await asyncio.wait_for(gateway.deaths.get(), 10.0)
            assert ([b.calls for b in computed], waiting) == ([[deadly]], [])
            assert (await answer(fine)).tolist() == [[1]]
            assert await process.exit_code() == code

    scenario(test)


def test_an_exception_that_ends_the_worker_leaves_its_batch_among_the_computed(tmp_path: Path) -> None:
    """Else it would count as one that only waited, and be given to the next worker without end."""
    body = """
def load(self):
    from headrace.replica import execution
    def broken(*args, **kwargs):
        time.sleep(0.3)
        raise RuntimeError("a defect of the worker")
    execution.run_batch = broken

def predict(self, x: headrace.Float32[1]) -> {"y": headrace.Float32[1]}:
    return {"y": x}
"""

    async def test() -> None:
        async with running(tmp_path, python_model(tmp_path, body)) as process:
            await process.ready()
            gateway = Gateway()
            handle = await process.connect(gateway)
            culprit = handle.submit([call(1)], 0.0, 1, idempotent=True)
            await computing(process)
            waiting = handle.submit([call(2)], 0.0, 1, idempotent=True)
            assert await process.exit_code() == 1
            assert await asyncio.wait_for(gateway.deaths.get(), 10.0) == ([culprit], [waiting])
            assert "a defect of the worker" in process.log()

    scenario(test)


def test_batch_that_there_is_no_memory_for_fails_alone(tmp_path: Path) -> None:
    """It cannot be read; the process lives, and what fits is computed."""

    async def test() -> None:
        async with running(tmp_path, echo(tmp_path), memory=300 * MIB) as process:
            await process.ready()
            handle = await process.connect(Gateway())
            alone = call(1, width=4 * MIB)
            calls = [call(2, width=4 * MIB) for _ in range(24)]
            handle.submit([alone], 0.0, 64, idempotent=True)
            handle.submit(calls, 0.0, 64, idempotent=True)
            for one in calls:
                with pytest.raises(errors.OutOfMemory, match="ran out of memory: it has no room for a batch of 384"):
                    await answer(one)
            assert (await answer(alone)).shape == (1, 4 * MIB)
            after = call(3)
            handle.submit([after], 0.0, 1, idempotent=True)
            assert (await answer(after)).tolist() == [[3]]
            handle.close()

    scenario(test)


def test_stream_that_there_is_no_memory_for_ends(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path, echo(tmp_path, chunks=2), memory=400 * MIB) as process:
            await process.ready()
            handle = await process.connect(Gateway())
            reader = Reader()
            handle.start_stream(call(1, width=128 * MIB), reader, 4, idempotent=True)
            end = await reader.end()
            assert isinstance(end, errors.RuntimeFailed)
            assert "ran out of memory" in end.message
            handle.close()

    scenario(test)


def test_batches_that_cannot_be_joined_for_lack_of_memory_are_computed_apart(tmp_path: Path) -> None:
    body = """
def load(self):
    from headrace.replica import waiting
    def no_memory(blocks):
        raise MemoryError
    waiting.np = type("Numpy", (), {"concatenate": staticmethod(no_memory)})

def predict(self, x: headrace.Float32[1]) -> {"y": headrace.Float32[1]}:
    if x[0, 0] == 0:
        time.sleep(0.3)
    return {"y": x}
"""

    async def test() -> None:
        async with running(tmp_path, python_model(tmp_path, body)) as process:
            await process.ready()
            one, two = [await process.connect(Gateway()) for _ in range(2)]
            one.submit([call(0)], 0.0, 8, idempotent=True)
            await computing(process)
            calls = [call(1), call(2, 3)]
            one.submit([calls[0]], 0.0, 8, idempotent=True)
            two.submit([calls[1]], 0.0, 8, idempotent=True)
            assert [(await answer(c)).tolist() for c in calls] == [[[1]], [[2], [3]]]
            assert [c.batch_rows for c in calls] == [1, 2]
            one.close()
            two.close()

    scenario(test)


def test_worker_that_runs_out_of_memory_itself_blames_all_that_it_had(tmp_path: Path) -> None:
    """It says so by its exit code, and nothing is run again without end."""
    body = """
def load(self):
    from headrace.replica import worker
    whole = worker.messages.decode_run
    def decode(head):
        if whole(head).batch == 2:
            raise MemoryError
        return whole(head)
    worker.messages.decode_run = decode

def predict(self, x: headrace.Float32[1]) -> {"y": headrace.Float32[1]}:
    return {"y": x}
"""

    async def test() -> None:
        async with running(tmp_path, python_model(tmp_path, body)) as process:
            await process.ready()
            gateway = Gateway()
            handle = await process.connect(gateway)
            answered = call(1)
            handle.submit([answered], 0.0, 1, idempotent=True)
            await answer(answered)
            lost = [handle.submit([call(2)], 0.0, 1, idempotent=True)]
            assert await asyncio.wait_for(gateway.deaths.get(), 10.0) == (lost, [])
            assert await process.exit_code() == OUT_OF_MEMORY_EXIT

    scenario(test)


def test_supervisor_gone_ends_the_worker_even_when_it_hangs(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path, echo(tmp_path, hang_on=13)) as process:
            await process.ready()
            handle = await process.connect(Gateway())
            handle.submit([call(13)], 0.0, 1, idempotent=True)
            await computing(process)
            process.supervisor.close()
            assert await process.exit_code() == 0
            handle.close()

    scenario(test)


def test_supervisor_killed_with_unread_reports_ends_the_worker(tmp_path: Path) -> None:
    """The kernel then tells the worker ECONNRESET, not the end of the stream."""

    async def test() -> None:
        async with running(tmp_path, echo(tmp_path)) as process:
            handle = await process.connect(Gateway())
            one = call(1)
            handle.submit([one], 0.0, 1, idempotent=True)
            # It may still be loading; in any case reports lie unread by now.
            with contextlib.suppress(errors.NotReady):
                await answer(one)
            process.supervisor.close()
            assert await process.exit_code() in (0, 1)
            handle.close()

    scenario(test)


def test_stop_finishes_the_batch_and_exits(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path, echo(tmp_path, delay_ms=100)) as process:
            await process.ready()
            handle = await process.connect(Gateway())
            one = call(1)
            handle.submit([one], 0.0, 1, idempotent=True)
            await computing(process)
            process.supervisor.send([b"\0"])
            assert (await answer(one)).tolist() == [[1]]
            assert await process.exit_code() == 0
            handle.close()

    scenario(test)


def test_strangers_and_broken_gateways_harm_nobody(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path, echo(tmp_path)) as process:
            await process.ready()
            handle = await process.connect(Gateway())
            with pytest.raises(errors.NotReady, match="wrong token"):
                await process.connect(Gateway(), token="guessed")
            hello = messages.Hello(messages.PROTOCOL, "data", 99, workers.TOKEN)
            old = messages.Hello(messages.PROTOCOL + 1, "data", 99, workers.TOKEN)
            good = messages.frame(messages.HELLO, hello)
            run = messages.RunHead(1, [1], [TensorHead("x", "FP32", (1, 1), 4)], {}, 1, True)
            for said in (
                b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                b"\xff" * 1000,
                bytes(1000),
                messages.frame(messages.PING, messages.Empty()),
                messages.frame(messages.HELLO, messages.Empty()),
                messages.frame(messages.HELLO, old),
                good + messages.frame(messages.RUN, run, 4) + bytes(4),
            ):
                reader, writer = await process.raw(said)
                assert await drained(reader), f"not refused: {said[:40]!r}"
                writer.close()
            for then in (
                b"\xff" * 1000,
                messages.frame(messages.RUN, messages.Empty()),
                messages.frame(messages.RUN, run, 2) + bytes(2),
                messages.frame(messages.RUN, messages.RunHead(1, [1], [TensorHead("x", "FP9", (1,), 0)], {}, 1, True)),
                messages.frame(
                    messages.RUN,
                    messages.RunHead(1, [1], [TensorHead("x", "FP32", (1, 1), 4)], {}, 1, True),
                    4,
                    flags=messages.STREAM,
                )
                + bytes(4),
            ):
                reader, writer = await process.raw(good)
                assert (await reader.read(1000))[4] == messages.WELCOME
                writer.write(then)
                assert await drained(reader), f"not refused: {then[:40]!r}"
                writer.close()
            one = call(1)
            handle.submit([one], 0.0, 1, idempotent=True)
            assert (await answer(one)).tolist() == [[1]]
            assert process.process.poll() is None
            handle.close()

    async def drained(reader: asyncio.StreamReader) -> bool:
        try:
            async with asyncio.timeout(5.0):
                while await reader.read(1 << 16):
                    pass
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return True

    scenario(test)


def test_load_failure_is_told_and_the_neighbour_in_the_pack_serves(tmp_path: Path) -> None:
    async def test() -> None:
        exiting = python_model(tmp_path, "def load(self): sys.exit('no licence')\ndef predict(self, x): return x")
        broken = echo(tmp_path, fail_load="no such luck")
        async with running(tmp_path, broken, exiting, echo(tmp_path)) as process:
            frames = []
            while len(frames) < 3:
                frame = await asyncio.to_thread(process.report)
                if frame.kind in (messages.READY, messages.LOAD_FAILED):
                    frames.append(frame)
            assert [(f.kind, f.replica) for f in frames] == [
                (messages.LOAD_FAILED, 0),
                (messages.LOAD_FAILED, 1),
                (messages.READY, 2),
            ]
            failed = messages.decode_load_failed(frames[0].head)
            assert (failed.code, failed.message) == (errors.LoadFailed.code, "no such luck")
            assert "no licence" in messages.decode_load_failed(frames[1].head).message
            for index, expected in ((0, errors.NotReady), (1, errors.NotReady), (9, errors.NotReady), (2, None)):
                handle = await process.connect(Gateway(), index)
                one = call(1)
                handle.submit([one], 0.0, 1, idempotent=True)
                if expected is None:
                    assert (await answer(one)).tolist() == [[1]]
                else:
                    with pytest.raises(expected):
                        await answer(one)
                handle.close()

    scenario(test)


def test_nothing_a_model_does_with_outputs_or_the_process_breaks_the_worker(tmp_path: Path) -> None:
    body = """
batchable = False
def predict(self, x):
    print("a line on stdout")
    what = int(x["x"].ravel()[0])
    if what == 0: return {"y": np.float64(1.5), "z": np.zeros(50_000)}
    if what == 1: return {"y": np.array([1j])}
    if what == 2: return {"y": np.array([1.5], ">f4")}
    if what == 3: sys.exit(4)
    if what == 4: return {"y": np.array(["a", None], object)}
    if what == 5:
        if os.fork() == 0: os._exit(0)
        return {"y": np.ones(1)}
    if what == 6:
        self.leak = [open(__file__) for _ in range(200)]
        return {"y": np.ones(1)}
    raise KeyError("what")
"""

    async def test() -> None:
        async with running(tmp_path, python_model(tmp_path, body)) as process:
            await process.ready()
            handle = await process.connect(Gateway())

            async def ask(value: float) -> object:
                one = call(value)
                handle.submit([one], 0.0, 1, idempotent=True)
                return await answer(one)

            assert await ask(0) == 1.5
            with pytest.raises(errors.RuntimeFailed, match="complex"):
                await ask(1)
            assert (await ask(2)) == np.array([1.5])  # type: ignore[comparison-overlap]
            with pytest.raises(errors.ModelRaised, match="SystemExit"):
                await ask(3)
            assert (await ask(4)).tolist() == [b"a", b""]  # type: ignore[attr-defined]
            assert (await ask(5)).tolist() == [1.0]  # type: ignore[attr-defined]
            assert (await ask(6)).tolist() == [1.0]  # type: ignore[attr-defined]
            with pytest.raises(errors.ModelRaised, match=r"KeyError: 'what' \(in predict, model.py:"):
                await ask(7)
            assert "a line on stdout" in process.log()
            handle.close()

    scenario(test)


def test_warm_up_times_samples_and_survives_a_model_that_refuses_them(tmp_path: Path) -> None:
    async def test() -> None:
        fussy = python_model(
            tmp_path,
            'def predict(self, x: headrace.Float32) -> {"y": headrace.Float32}:\n'
            '    if not np.asarray(x).any(): sys.exit("zeros")\n    return {"y": x}',
        )
        async with running(tmp_path, fussy, warmup=True) as process:
            (ready,) = await process.ready()
            assert ready.timings == []
            assert "warm-up of m@1#0 failed (SystemExit: zeros)" in process.log()
            assert status_page.read(process.status_path) == []

    scenario(test)


@pytest.mark.parametrize("joined", [False, True])
def test_withdrawn_calls_of_a_batch_that_waits_are_not_computed(tmp_path: Path, joined: bool) -> None:
    """Whether the frame was read before the word came, or still lay in the socket while the model ran: it always does
    here. A batch that has begun is not touched, and one that nobody waits for at all is answered without the model."""

    async def test() -> None:
        body = """
def predict(self, x: headrace.Float32[1]) -> {"y": headrace.Float32[1]}:
    with open(self.path / "ran", "a") as file:
        file.write("".join(f"{value:g} " for value in x[:, 0]))
    if x[0, 0] == 0:
        time.sleep(0.4)
    return {"y": x}
"""
        async with running(tmp_path, python_model(tmp_path, body)) as process:
            await process.ready()
            one, two = [await process.connect(Gateway()) for _ in range(2)]
            began = call(0)
            first = one.submit([began], 0.0, 8, idempotent=True)
            await computing(process)
            calls = [call(1, 2), call(3), call(4)]
            waits = one.submit(calls, 0.0, 8 if joined else 1, idempotent=True)
            abandoned = one.submit([call(5), call(6)], 0.0, 1, idempotent=True)
            beside = call(7)
            two.submit([beside], 0.0, 8 if joined else 1, idempotent=True)
            one.withdraw(first.id, [0])
            one.withdraw(waits.id, [1])
            one.withdraw(abandoned.id, [0, 1])
            assert (await answer(began)).tolist() == [[0]]
            assert (await answer(calls[0])).tolist() == [[1], [2]]
            assert (await answer(calls[2])).tolist() == [[4]]
            assert (await answer(beside)).tolist() == [[7]]
            for gone in (calls[1], *abandoned.calls):
                with pytest.raises(errors.Cancelled):
                    await answer(gone)
            assert calls[0].batch_rows == (4 if joined else 3)
            assert sorted((tmp_path / "ran").read_text().split()) == ["0", "1", "2", "4", "7"]
            one.close()
            two.close()

    scenario(test)


def test_asked_to_stop_closes_models_and_ends(tmp_path: Path) -> None:
    """One that raises hinders nobody; a call that still runs in a thread keeps its model open."""
    body = """
def predict(self, x: headrace.Float32) -> {"y": headrace.Float32}:
    return {"y": x}

def close(self):
    print("closed", flush=True)
    raise RuntimeError("cannot")
"""

    async def test() -> None:
        async with running(tmp_path, python_model(tmp_path, body), echo(tmp_path)) as process:
            await process.ready(2)
            process.supervisor.send([b"\0"])
            assert await process.exit_code() == 0
            assert process.log().splitlines().count("closed") == 1
            assert "closing m@1#0 failed (RuntimeError: cannot)" in process.log()

    scenario(test)


def test_model_that_still_streams_is_not_closed(tmp_path: Path) -> None:
    body = """
def predict(self, x: headrace.Float32) -> {"y": headrace.Float32}:
    yield {"y": x}
    time.sleep(600)

def close(self):
    print("closed", flush=True)
"""

    async def test() -> None:
        async with running(tmp_path, python_model(tmp_path, body)) as process:
            await process.ready()
            handle = await process.connect(Gateway())
            reader = Reader()
            handle.start_stream(call(1), reader, 4, idempotent=True)
            await asyncio.wait_for(reader.chunks.get(), 10.0)
            process.supervisor.send([b"\0"])
            assert await process.exit_code() == 0
            assert "closed" not in process.log()
            handle.close()

    scenario(test)
