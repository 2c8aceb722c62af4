"""Threads for calls that the loop must not wait for."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")


class Threads(Executor):
    """At most `count` threads, made as they are needed; for `run_in_executor`.

    A call may hang, because of a name server or a process that does not answer. It holds up neither `close` nor the end of the interpreter,
    which waits for the threads of a `ThreadPoolExecutor`.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._changed = threading.Condition()
        """Guards what follows."""
        self._work: deque[Callable[[], None]] = deque()
        self._idle = 0
        """Threads that wait, for a call that lies in `_work` already or for the next one."""
        self._threads: list[threading.Thread] = []
        self._calls: set[Future[Any]] = set()
        """Those that are not over."""
        self._is_closed = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call `fn` in a thread."""
        call: Future[T] = Future()

        def work() -> None:
            if not call.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                call.set_exception(error)
            else:
                call.set_result(result)

        with self._changed:
            if self._is_closed:
                raise RuntimeError(f"the threads for {self._name} are closed")
            self._calls.add(call)
            self._work.append(work)
            if self._idle >= len(self._work):
                self._changed.notify()
            elif len(self._threads) < self._count:
                thread = threading.Thread(target=self._run, name=f"{self._name}_{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
        call.add_done_callback(self._over)
        return call

    def _over(self, call: Future[Any]) -> None:
        with self._changed:
            self._calls.discard(call)

    def _run(self) -> None:
        while (work := self._next()) is not None:
            work()
            # what it refers to is not kept until the next one comes
            del work

    def _next(self) -> Callable[[], None] | None:
        """Wait for the next call; None: there will be none."""
        with self._changed:
            while not self._work:
                if self._is_closed:
                    return None
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
            return self._work.popleft()

    def close(self) -> None:
        """Begin nothing more. Threads have ended when this returns, unless a call is under way, which may hang and is not waited for."""
        with self._changed:
            self._is_closed = True
            calls = list(self._calls)
            self._changed.notify_all()
        for call in calls:
            # outside: it calls back
            call.cancel()
        if all(call.done() for call in calls):
            for thread in self._threads:
                thread.join()
