"""An event loop without time and without sockets: callbacks run when they are told to, timers when they are chosen."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

# No input needs as many; a loop that goes on for longer is spinning
MOST_STEPS = 20_000


class FakeHandle:
    """A callback that waits, with the methods of `asyncio.Handle` and `asyncio.TimerHandle` that are in use."""

    def __init__(self, callback: Callable[..., object], arguments: tuple[object, ...], context: contextvars.Context | None) -> None:
        self._callback = callback
        self._arguments = arguments
        self._context = context or contextvars.copy_context()
        self.done = False

    def cancel(self) -> None:
        self.done = True

    def cancelled(self) -> bool:
        return self.done

    def when(self) -> float:
        return 0.0

    def run(self) -> None:
        if not self.done:
            self.done = True
            self._context.run(self._callback, *self._arguments)


class FakeLoop(asyncio.AbstractEventLoop):
    """Just enough of a loop for tasks, futures and the data plane. Whatever a callback raises goes to whoever runs the loop."""

    def __init__(self) -> None:
        self._ready: deque[FakeHandle] = deque()
        self._timers: list[FakeHandle] = []
        self.faults: list[str] = []

    # --- what asyncio and the code under test call

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def time(self) -> float:
        return 0.0

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        handle = FakeHandle(callback, args, context)
        self._ready.append(handle)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        handle = FakeHandle(callback, args, context)
        self._timers.append(handle)
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        return self.call_later(when, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Any = None) -> asyncio.Task[Any]:  # type: ignore[override]
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.faults.append(f"{context.get('message')}: {context.get('exception')!r}")

    # --- what the test calls

    def __enter__(self) -> FakeLoop:
        """Be the running loop."""
        asyncio._set_running_loop(self)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio._set_running_loop(None)

    def run_ready(self) -> bool:
        """Run what waits and what comes of it; tell whether there was something."""
        steps = 0
        while self._ready:
            self._ready.popleft().run()
            steps += 1
            assert steps < MOST_STEPS, "the loop spins"
        return steps > 0

    def fire(self, number: int) -> bool:
        """Let the time of one timer come; tell whether there was one."""
        self._timers = [timer for timer in self._timers if not timer.done]
        if not self._timers:
            return False
        self._timers[number % len(self._timers)].run()
        return True
