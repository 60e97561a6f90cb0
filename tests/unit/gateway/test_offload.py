"""The codec process: same results as in place, errors that cross over, and a process that dies in the middle."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from headrace.core import errors
from headrace.core.models import Signature, TensorSpec
from headrace.core.requests import InferenceResponse
from headrace.core.tensors import DType, Tensor
from headrace.gateway import codec_process, offload
from headrace.gateway.codec_link import CodecProcess
from headrace.gateway.codecs import REST_CODECS
from headrace.gateway.offload import Failed, Offload, ParseJob

SIGNATURE = Signature(
    inputs=(TensorSpec("x", DType.FP32, (-1, 2)), TensorSpec("s", DType.BYTES, (-1,), optional=True)),
    outputs=(TensorSpec("y", DType.FP32, (-1,)),),
)


def run(test: Callable[[Offload], Awaitable[None]]) -> None:
    async def scenario() -> None:
        made = Offload()
        try:
            await asyncio.wait_for(test(made), 60.0)
        finally:
            made.close()

    asyncio.run(scenario())


def body(rows: int, *, text: bool = False, **more: Any) -> bytes:
    inputs: list[dict[str, Any]] = [
        {"name": "x", "datatype": "FP32", "shape": [rows, 2], "data": np.arange(rows * 2).tolist()}
    ]
    if text:
        inputs.append({"name": "s", "datatype": "BYTES", "shape": [rows], "data": ["ü"] * rows})
    return json.dumps({"inputs": inputs, **more}).encode()


def process_id(made: Offload) -> int:
    assert made._yielding.pid is not None
    return made._yielding.pid


@pytest.mark.parametrize(
    ("codec", "raw"),
    [
        ("oip", body(50, text=True, id="7", parameters={"a": 1, "b": "x", "c": 1.5, "d": True})),
        ("oip", body(3, outputs=[{"name": "y", "parameters": {"binary_data": True}}])),
        ("oip", body(0)),
        ("v1", b'{"instances": [{"x": [1, 2], "s": "a"}, {"x": [3, 4], "s": ""}]}'),
        ("generate", b'{"x": [[1, 2]], "s": ["a"]}'),
    ],
)
def test_same_request_and_same_reply_as_in_place(codec: str, raw: bytes) -> None:
    async def test(made: Offload) -> None:
        there, there_rendering = await made.parse(codec, [raw[:7], bytearray(raw[7:])], None, SIGNATURE)
        here, here_rendering = REST_CODECS[codec].parse_request(raw, None, SIGNATURE)
        assert (there.id, there.parameters, there.outputs) == (here.id, here.parameters, here.outputs)
        assert [(t.name, t.dtype, t.array.tolist()) for t in there.tensors] == [
            (t.name, t.dtype, t.array.tolist()) for t in here.tensors
        ]
        rows = here.tensors[0].array.shape[0]
        outputs = [Tensor("y", DType.FP32, np.arange(rows, dtype=np.float32))]
        response = InferenceResponse("m", "1", outputs, here.id)
        replies = [
            REST_CODECS[codec].render_response(response, here_rendering, SIGNATURE),
            await made.render(codec, response, there_rendering, SIGNATURE),
            await made.render(codec, response, here_rendering, SIGNATURE),
        ]
        assert replies[0] == replies[1] == replies[2]

    run(test)


def test_errors_cross_over_with_type_and_text() -> None:
    async def test(made: Offload) -> None:
        for raw in (b"{", b"[" * 100_000, b'{"inputs": [{"name": "x", "datatype": "NO", "shape": [1], "data": [1]}]}'):
            with pytest.raises(errors.InvalidInput) as there:
                await made.parse("oip", [raw], None, SIGNATURE)
            with pytest.raises(errors.InvalidInput) as here:
                REST_CODECS["oip"].parse_request(raw, None, SIGNATURE)
            assert there.value.message == here.value.message

    run(test)


def test_one_callers_bad_request_leaves_the_process_and_its_neighbours_alone() -> None:
    async def test(made: Offload) -> None:
        await made.parse("oip", [body(1)], None, SIGNATURE)
        before = process_id(made)
        jobs: list[Awaitable[Any]] = []
        for index in range(20):
            parameters = {"seed": 10**30} if index % 2 else {}
            jobs.append(made.parse("oip", [body(10, parameters=parameters)], None, SIGNATURE))
        results = await asyncio.gather(*jobs, return_exceptions=True)
        assert [isinstance(r, errors.InvalidInput) for r in results] == [False, True] * 10
        with pytest.raises(errors.Bug, match="KeyError"):
            await made.parse("no such codec", [body(1)], None, SIGNATURE)
        assert process_id(made) == before

    run(test)


def test_megabytes_in_order_for_many_at_once() -> None:
    async def test(made: Offload) -> None:
        sizes = [1, 60_000, 3, 90_000, 0, 20_000]
        results = await asyncio.gather(*(made.parse("oip", [body(n)], None, SIGNATURE) for n in sizes))
        assert [r.tensors[0].array.shape[0] for r, _ in results] == sizes

    run(test)


def test_process_that_is_killed_in_the_middle_costs_nobody_an_answer() -> None:
    async def test(made: Offload) -> None:
        await made.parse("oip", [body(1)], None, SIGNATURE)
        first = process_id(made)
        jobs = [asyncio.create_task(made.parse("oip", [body(200_000)], None, SIGNATURE)) for _ in range(3)]
        await asyncio.sleep(0.01)
        os.kill(first, signal.SIGKILL)
        results = await asyncio.gather(*jobs)
        assert [r.tensors[0].array.shape[0] for r, _ in results] == [200_000] * 3
        assert process_id(made) != first

    run(test)


def test_body_that_kills_the_process_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = 0
    start = CodecProcess._start

    async def start_and_die_twice(process: CodecProcess) -> Any:
        nonlocal starts
        link = await start(process)
        starts += 1
        if starts <= 2:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
        return link

    monkeypatch.setattr(CodecProcess, "_start", start_and_die_twice)

    async def test(made: Offload) -> None:
        deadly, fine = [asyncio.create_task(made.parse("oip", [body(1000)], None, SIGNATURE)) for _ in range(2)]
        with pytest.raises(errors.RuntimeFailed, match="died twice"):
            await deadly
        request, _ = await fine
        assert request.tensors[0].array.shape[0] == 1000

    run(test)


def test_callers_that_leave_do_not_shift_the_answers_of_others() -> None:
    async def test(made: Offload) -> None:
        await made.parse("oip", [body(1)], None, SIGNATURE)
        tasks = [asyncio.create_task(made.parse("oip", [body(n)], None, SIGNATURE)) for n in range(1, 9)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        for n, result in enumerate(done, start=1):
            if n % 2:
                assert isinstance(result, asyncio.CancelledError)
            else:
                assert not isinstance(result, BaseException)
                assert result[0].tensors[0].array.shape[0] == n

    run(test)


def test_process_that_gets_no_processor_is_not_waited_for() -> None:
    async def test(made: Offload) -> None:
        await made.parse("oip", [body(1)], None, SIGNATURE)
        starved = process_id(made)
        os.kill(starved, signal.SIGSTOP)
        try:
            request, _ = await made.parse("oip", [body(1000)], None, SIGNATURE)
            assert request.tensors[0].array.shape[0] == 1000
            assert made._sharing.pid is not None
        finally:
            os.kill(starved, signal.SIGCONT)
        assert process_id(made) == starved
        request, _ = await made.parse("oip", [body(7)], None, SIGNATURE)
        assert request.tensors[0].array.shape[0] == 7

    run(test)


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="only Linux has this policy")
def test_first_process_yields_to_everybody_and_the_second_takes_its_share() -> None:
    async def test(made: Offload) -> None:
        await made.parse("oip", [body(1)], None, SIGNATURE)
        assert os.sched_getscheduler(process_id(made)) == os.SCHED_IDLE
        await made._sharing.ask(offload.envelope(ParseJob("oip", None, offload._encode(SIGNATURE)), body(1)))
        assert made._sharing.pid is not None
        assert os.sched_getscheduler(made._sharing.pid) == os.SCHED_OTHER

    run(test)


def test_process_ends_with_its_gateway() -> None:
    async def test(made: Offload) -> None:
        await made.parse("oip", [body(1)], None, SIGNATURE)
        process = made._yielding._process
        assert process is not None
        assert made._yielding._link is not None
        made._yielding._link.abort()
        assert await asyncio.to_thread(process.wait, 10.0) == 0

    run(test)


def test_what_is_too_large_for_an_envelope_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload, "MAX_MESSAGE", 1000)

    async def test(made: Offload) -> None:
        with pytest.raises(errors.PayloadTooLarge):
            await made.parse("oip", [body(1000)], None, SIGNATURE)

    run(test)
    packed = offload._encode(SIGNATURE)
    monkeypatch.setattr(offload, "MAX_MESSAGE", 1 << 20)
    job = b"".join(offload.envelope(ParseJob("oip", None, packed), body(300)))[4:]
    monkeypatch.setattr(offload, "MAX_MESSAGE", 1000)
    head, _ = offload.cut(b"".join(codec_process.answer(job))[4:])
    answer = offload._decode_answer(head)
    assert isinstance(answer, Failed)
    assert answer.code == errors.PayloadTooLarge.code
