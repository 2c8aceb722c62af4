"""Threads beside the loop: what is called in them comes back, and they end with whom they belong to."""

from __future__ import annotations

import asyncio
import subprocess
import sys
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


async def test_a_call_that_hangs_takes_no_thread_that_another_one_needs() -> None:
    threads, go_on, loop = Threads(3, "needed"), threading.Event(), asyncio.get_running_loop()
    await asyncio.gather(*(loop.run_in_executor(threads, int) for _ in range(20)))
    hanging = [threads.submit(go_on.wait, 10) for _ in range(2)]
    assert await asyncio.wait_for(loop.run_in_executor(threads, int), 10) == 0
    waiting = [threads.submit(go_on.wait, 10) for _ in range(2)]
    assert len(named("needed")) == 3
    go_on.set()
    assert [call.result(10) for call in hanging + waiting] == [True] * 4
    threads.close()


async def test_idle_threads_have_ended_when_they_are_closed() -> None:
    for _ in range(50):
        threads = Threads(4, "idle")
        await asyncio.gather(*(asyncio.get_running_loop().run_in_executor(threads, int) for _ in range(8)))
        threads.close()
        assert named("idle") == []


async def test_a_call_that_hangs_is_not_waited_for_and_the_next_one_not_begun() -> None:
    threads, begun, go_on = Threads(1, "hanging"), threading.Event(), threading.Event()

    def hang() -> bool:
        begun.set()
        return go_on.wait(10)

    hanging, next_one = threads.submit(hang), threads.submit(int)
    assert begun.wait(10)
    threads.close()
    assert len(named("hanging")) == 1
    assert next_one.cancelled()
    go_on.set()
    assert hanging.result(10) is True
    with pytest.raises(RuntimeError):
        threads.submit(int)


@pytest.mark.parametrize("is_closed", [True, False])
def test_the_interpreter_ends_although_a_call_hangs(is_closed: bool) -> None:
    program = """
import threading
from soth_mitm.proxy.threads import Threads

threads, begun = Threads(1, "hanging"), threading.Event()
threads.submit(lambda: (begun.set(), threading.Event().wait()))
begun.wait()
"""
    subprocess.run([sys.executable, "-c", program + "threads.close()" * is_closed], check=True, timeout=30)
