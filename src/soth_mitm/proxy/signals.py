"""The signals that end a proxy which has its process to itself: the first lets open flows finish, a second one cuts them."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable

from soth_mitm.proxy.handle import MitmProxyHandle


class StopSignals:
    """SIGINT, SIGTERM and, unless it is ignored (`nohup`) or `hangup` says otherwise, SIGHUP. Taken from now on until the loop ends."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, hangup: bool = True) -> None:
        self._asked = asyncio.Event()
        self._again = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            on_signal(loop, number, self._ask)
        if sys.platform != "win32" and hangup and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            # a terminal that is closed may send several, and means to cut nothing
            loop.add_signal_handler(signal.SIGHUP, self._asked.set)

    def _ask(self) -> None:
        (self._again if self._asked.is_set() else self._asked).set()

    async def wait_for_one(self, handle: MitmProxyHandle) -> None:
        """Wait until a signal came, or the proxy has ended by itself."""
        await _first(self._asked.wait(), handle.wait_ended())

    async def shut_down(self, handle: MitmProxyHandle) -> bool:
        """Shut down; tell whether a further signal has cut what was left. Raises what `handle.shutdown` raises, unless it was cut."""
        ending = asyncio.ensure_future(handle.shutdown())
        await _first(self._again.wait(), asyncio.shield(ending))
        if ending.done():
            ending.result()
            return False
        await handle.shutdown(0)
        await asyncio.wait((ending,))
        # that connections were cut is no news now
        ending.exception()
        return True


async def _first(*waits: Awaitable[object]) -> None:
    """Wait until one of them is done; raises what it raises."""
    tasks = [asyncio.ensure_future(each) for each in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()


def on_signal(loop: asyncio.AbstractEventLoop, number: int, call: Callable[[], object]) -> None:
    """Have `call` called on `loop` when the signal comes."""
    if sys.platform == "win32":
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(call))
    else:
        loop.add_signal_handler(number, call)
