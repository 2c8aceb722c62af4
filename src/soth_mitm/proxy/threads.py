"""Threads for calls that the loop must not wait for."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class Threads(ThreadPoolExecutor):
    """At most `count` threads, made as they are needed; for `run_in_executor`."""

    def __init__(self, count: int, name: str) -> None:
        super().__init__(count, thread_name_prefix=name)
        self._calls: set[Future[Any]] = set()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call `fn` in a thread."""
        call = super().submit(fn, *args, **kwargs)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return call

    def close(self) -> None:
        """Begin nothing more. Threads have ended when this returns, unless a call is under way, which may hang and is not waited for."""
        self.shutdown(wait=False, cancel_futures=True)
        if not self._calls:
            self.shutdown()
