"""Server-sent events: order, credit, errors before and after the first event, readers that stall or leave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import numpy as np
import pytest

from headrace.core import errors
from headrace.core.models import SlotKind, Slots
from headrace.core.requests import Outcome
from headrace.core.tensors import DType, Tensor
from headrace.pipeline.deployment import STREAM_CREDIT
from tests.fakes import ROWS, until
from tests.gateways import Exchange, Gateway, run

STREAM = "/v2/models/m/generate_stream"
STREAMING = msgspec.structs.replace(ROWS, streaming=True)
BODY = json.dumps({"x": [[1.0, 2.0]]}).encode()
OK, CANCELLED = ("generate", Outcome.OK, ""), ("generate", Outcome.CANCELLED, "cancelled")


def counting(count: int) -> Callable[[list[Any]], Iterator[Any]]:
    def chunks(arrays: list[Any]) -> Iterator[list[Tensor]]:
        for number in range(count):
            yield [Tensor("n", DType.INT64, np.array([number]))]

    return chunks


def failing(after: int, error: errors.HeadraceError) -> Callable[[list[Any]], Iterator[Any]]:
    def chunks(arrays: list[Any]) -> Iterator[list[Tensor]]:
        yield from counting(after)(arrays)
        raise error

    return chunks


def events(going: Exchange) -> list[Any]:
    parts = going.content.split(b"\n\n")
    assert parts[-1] == b""
    return [json.loads(p.removeprefix(b"data: ")) for p in parts[:-1]]


def streaming(gateway: Gateway, chunks: Callable[[list[Any]], Any], **route: Any) -> Any:
    return gateway.serve(
        chunks=chunks, signature=STREAMING, slots=Slots(SlotKind.CONCURRENT, 8), **{"stream_stall_s": 5.0, **route}
    )


@pytest.mark.parametrize("count", [0, 1, 5, 200])
def test_events_come_in_order_and_then_the_end(tmp_path: Path, count: int) -> None:
    async def test(gateway: Gateway) -> None:
        replica = streaming(gateway, counting(count))
        going = await Exchange(gateway, STREAM).body(BODY).end()
        assert going.status == 200
        assert going.headers["content-type"].startswith("text/event-stream")
        assert going.headers["x-request-id"].startswith("test-")
        assert [e["n"] for e in events(going)] == list(range(count))
        assert going.sent[-1].get("more_body", False) is False
        assert sum(chunks for _, chunks in replica.granted) >= count - STREAM_CREDIT
        assert gateway.outcomes() == [OK]
        assert gateway.seen[0].bytes_out == len(going.content)

    run(tmp_path, test)


def test_model_that_answers_once_is_a_stream_of_one(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        gateway.serve()
        going = await Exchange(gateway, STREAM).body(BODY).end()
        (event,) = events(going)
        assert event["y"] == [2.0, 4.0]
        assert gateway.outcomes() == [OK]

    run(tmp_path, test)


def test_generate_gives_the_one_answer_or_says_what_to_use(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        streaming(gateway, counting(1))
        one = await Exchange(gateway, "/v2/models/m/generate").body(BODY).end()
        assert (one.status, json.loads(one.content)["n"]) == (200, 0)
        streaming(gateway, counting(2), endpoint="many", id="many@1")
        many = await Exchange(gateway, "/v2/models/many/generate").body(BODY).end()
        assert many.status == 501
        assert "use generate_stream" in json.loads(many.content)["error"]
        unary = await Exchange(gateway, "/v2/models/m/infer").body(b"{}").end()
        assert unary.status == 501
        assert "answers with a stream" in json.loads(unary.content)["error"]

    run(tmp_path, test)


@pytest.mark.parametrize(("body", "status"), [(b"{", 400), (b'{"x": [[1]]}', 400)])
def test_error_before_the_first_event_has_its_own_status(tmp_path: Path, body: bytes, status: int) -> None:
    async def test(gateway: Gateway) -> None:
        streaming(gateway, counting(3))
        going = await Exchange(gateway, STREAM).body(body).end()
        assert going.status == status
        assert json.loads(going.content)["error"]
        assert len(gateway.outcomes()) == 1

    run(tmp_path, test)


def test_model_error_before_the_first_event(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        streaming(gateway, failing(0, errors.ModelRaised("no luck")))
        going = await Exchange(gateway, STREAM).body(BODY).end()
        assert (going.status, json.loads(going.content)["error"]) == (500, "no luck")
        assert gateway.outcomes() == [("generate", Outcome.MODEL_ERROR, "model_raised")]

    run(tmp_path, test)


def test_model_error_after_events_is_told_in_the_stream_and_recorded(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        streaming(gateway, failing(2, errors.ModelRaised("no luck")))
        going = await Exchange(gateway, STREAM).body(BODY).end()
        assert going.status == 200
        assert [e.get("n") for e in events(going)] == [0, 1, None]
        assert "no luck" in str(events(going)[-1])
        assert not going.sent[-1].get("more_body")
        assert gateway.outcomes() == [("generate", Outcome.MODEL_ERROR, "model_raised")]

    run(tmp_path, test)


def test_chunk_that_cannot_be_rendered_is_a_logged_bug_in_the_stream(tmp_path: Path) -> None:
    def chunks(arrays: list[Any]) -> Iterator[list[Tensor]]:
        yield from counting(1)(arrays)
        yield [Tensor("n", DType.INT64, None)]  # type: ignore[arg-type]

    async def test(gateway: Gateway) -> None:
        streaming(gateway, chunks)
        going = await Exchange(gateway, STREAM).body(BODY).end()
        assert going.status == 200
        assert "internal error" in str(events(going)[-1])
        assert gateway.outcomes() == [("generate", Outcome.BUG, "bug")]

    run(tmp_path, test, logged=1)


def test_replica_that_dies_ends_the_stream_with_an_error(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        replica = streaming(gateway, counting(1000))
        going = Exchange(gateway, STREAM)
        going.body(BODY)
        await going.message(3)
        going.send_blocked.clear()
        replica.die()
        going.send_blocked.set()
        await going.end()
        assert "replica died" in str(events(going)[-1])
        assert gateway.outcomes() == [("generate", Outcome.MODEL_ERROR, "replica_died")]

    run(tmp_path, test)


@pytest.mark.parametrize("how", ["task", "send", "receive"])
def test_reader_that_leaves_cancels_the_work(tmp_path: Path, how: str) -> None:
    """Servers tell it in three ways: they cancel the handler, make ``send`` raise, or say http.disconnect."""

    async def test(gateway: Gateway) -> None:
        replica = streaming(gateway, counting(100_000))
        going = Exchange(gateway, STREAM)
        if how == "send":
            going.send_error, going.fail_from = ConnectionResetError("gone"), 4
        going.body(BODY)
        await going.message(4)
        if how == "task":
            going.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await going.task
        else:
            if how == "receive":
                going.leave()
            await going.end()
        assert replica.cancelled == [1]
        assert replica.produced < 1000
        assert gateway.outcomes() == [CANCELLED]

    run(tmp_path, test)


def test_reader_that_leaves_before_the_model_has_anything_to_say(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        replica = streaming(gateway, counting(3))
        replica.alive = False
        going = Exchange(gateway, STREAM).body(BODY)
        await until(lambda: gateway.services.router.find("m", "").queue.count)
        await going.leave().end()
        gateway.services.router.sweep(monotonic() + 100)
        assert gateway.outcomes() == [CANCELLED]

    run(tmp_path, test)


def test_stalled_reader_is_cancelled_and_the_others_go_on(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        replica = streaming(gateway, counting(300), stream_stall_s=0.1)
        stalled = Exchange(gateway, STREAM)
        stalled.body(BODY)
        await stalled.message(2)
        stalled.send_blocked.clear()
        others = [Exchange(gateway, STREAM).body(BODY) for _ in range(5)]
        for other in others:
            assert len(events(await other.end())) == 300
        await stalled.end()
        assert replica.cancelled == [1]
        assert replica.produced <= 5 * 300 + 2 * STREAM_CREDIT + 5, "what the stalled one holds is bounded"
        assert sorted(gateway.outcomes()) == sorted([CANCELLED, *[OK] * 5])

    run(tmp_path, test)


def test_callers_deadline_bounds_the_whole_stream_the_default_one_only_the_first_chunk(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        replica = streaming(gateway, counting(100), timeout_s=0.15)
        slow = Exchange(gateway, STREAM)
        slow.body(BODY)
        await slow.message(2)
        slow.send_blocked.clear()
        await asyncio.sleep(0.2)
        slow.send_blocked.set()
        await slow.end()
        assert len(events(slow)) == 100
        bounded = Exchange(gateway, STREAM, headers={"x-request-timeout-ms": "100"})
        bounded.body(BODY)
        await bounded.message(2)
        bounded.send_blocked.clear()
        replica._credit[2] = 0
        await asyncio.sleep(0.15)
        bounded.send_blocked.set()
        await bounded.end()
        assert "deadline" in str(events(bounded)[-1])
        assert gateway.outcomes()[1] == ("generate", Outcome.DEADLINE, "deadline_exceeded")

    run(tmp_path, test)
