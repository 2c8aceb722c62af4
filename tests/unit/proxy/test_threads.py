"""Threads beside the loop: what is called in them comes back, and they end with whom they belong to."""

from __future__ import annotations

import asyncio
import threading

import pytest

from soth_mitm.proxy.threads import Threads

pytestmark = pytest.mark.anyio


def named(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


async def test_what_is_called_comes_back() -> None:
    threads = Threads(2, "calls")
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(threads, divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(threads, divmod, 7, 0)
    threads.close()


async def test_idle_threads_have_ended_when_they_are_closed() -> None:
    for _ in range(50):
        threads = Threads(4, "idle")
        await asyncio.gather(*(asyncio.get_running_loop().run_in_executor(threads, int) for _ in range(8)))
        threads.close()
        assert named("idle") == []


async def test_a_call_that_hangs_is_not_waited_for_and_the_next_one_not_begun() -> None:
    threads, go_on = Threads(1, "hanging"), threading.Event()
    hanging, next_one = threads.submit(go_on.wait, 10), threads.submit(int)
    threads.close()
    assert len(named("hanging")) == 1
    assert next_one.cancelled()
    go_on.set()
    assert hanging.result(10) is True
    with pytest.raises(RuntimeError):
        threads.submit(int)
