"""Waiting for one client, before its connection is handed to the data plane and after it came back.

The coroutine that serves a connection is run by the connection's `ClientReader`, in the callbacks of the loop and not in a task: a task and
its turns of the loop cost more than all that is decided there. What else has to be awaited is awaited in a task of its own, by `in_task`.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from soth_mitm._dataplane.transport.awaitable_endpoint import InlineTask

T = TypeVar("T")


class ClientGone(Exception):
    """The client has left; there is nothing left to do for it."""


class ClientRefused(Exception):
    """The client was told why it is refused, and is given the time to read it."""


class ClientReader(InlineTask):
    """What one client sends, and all that its coroutine waits for."""

    _task: asyncio.Task[Any] | None = None
    _is_idle = False
    draining = False
    """Set when the connection is to be closed as soon as nothing of it is under way."""

    @property
    def is_idle(self) -> bool:
        """Whether the coroutine waits for bytes and none have come."""
        return self._is_idle and not self.peek()

    async def read_more(self, known: int) -> bytes:
        """Return what has come and is not consumed, when that is more than `known` bytes; `ClientGone` when no more will come."""
        while True:
            data = self.peek()
            if len(data) > known:
                return data
            if self.over or (self.draining and not data):
                raise ClientGone
            self._is_idle = True
            try:
                await self.changed()
            finally:
                self._is_idle = False

    async def in_task(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work` in a task of its own, in which user code finds what it expects of a task."""
        self._task = self.loop.create_task(work)
        self._task.add_done_callback(self.wake)
        try:
            while not self._task.done():
                await self.changed()
            return cast(T, self._task.result())
        finally:
            # no variable of this frame holds the task: what it raises names the frame, and would never be freed
            self._task.cancel()
            self._task = None

    async def wait_for(self, task: asyncio.Task[T], has_left: Callable[[], bool]) -> T:
        """Return what `task` returns; `ClientGone` when the client, for which alone it runs, `has_left`."""
        task.add_done_callback(self.wake)
        while not task.done() and not has_left():
            await self.changed()
        if has_left():
            if task.done() and not task.cancelled():
                # or the loop would report an exception that was never retrieved
                task.exception()
            raise ClientGone
        return task.result()

    def end(self) -> None:
        """Cancel what hangs although the connection was aborted."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
        else:
            self.cancel(asyncio.CancelledError())
