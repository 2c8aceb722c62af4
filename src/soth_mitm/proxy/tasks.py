"""asyncio's task functions as the data plane calls them.

`_enter_task`, `_leave_task` and `_unregister_task` are what asyncio documents for third-party task implementations ("Extending asyncio").
"""

import asyncio
from asyncio.tasks import _enter_task, _leave_task, _unregister_task, current_task
from collections.abc import Coroutine
from contextvars import Context
from typing import Any

enter = _enter_task
leave = _leave_task
current = current_task
Cancelled = asyncio.CancelledError


def make(coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop, context: Context | None = None) -> asyncio.Task[None]:
    """Return a task that drives `coroutine`, in `context` or in a copy of the current one."""
    return asyncio.Task(coroutine, loop=loop, name="soth-mitm hook", context=context)


def leave_behind(task: asyncio.Task[None]) -> None:
    """Let nothing wait for a task that does not end though it was cancelled: `asyncio.Runner` would, for ever."""
    _unregister_task(task)
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # which asyncio.gather sets for the same reason
