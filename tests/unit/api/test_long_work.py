"""Long work waits for its turn without a thread."""

from __future__ import annotations

import asyncio
import threading

from headrace.api.long_work import AT_ONCE, LongWork


def test_a_few_run_at_once_and_short_requests_are_not_held_up() -> None:
    work = LongWork()
    go = threading.Event()
    running = threading.Semaphore(0)
    most = 0
    now = 0
    lock = threading.Lock()

    def long() -> int:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        running.release()
        go.wait(30)
        with lock:
            now -= 1
        return 1

    async def main() -> int:
        waiting = [asyncio.create_task(work.run(long)) for _ in range(60)]
        for _ in range(AT_ONCE):
            assert await asyncio.to_thread(running.acquire, timeout=30)
        assert await asyncio.to_thread(lambda: "a short one") == "a short one"
        go.set()
        return sum(await asyncio.gather(*waiting))

    assert asyncio.run(main()) == 60
    assert most == AT_ONCE
