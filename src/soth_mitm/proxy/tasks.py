"""asyncio's task functions as the data plane calls them.

`_enter_task` and `_leave_task` are what asyncio documents for third-party task implementations ("Extending asyncio").
"""

import asyncio
from asyncio.tasks import _enter_task, _leave_task, current_task
from collections.abc import Coroutine
from typing import Any

enter = _enter_task
leave = _leave_task
current = current_task
Cancelled = asyncio.CancelledError


def make(coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
    """Return a task that drives `coroutine`."""
    return asyncio.Task(coroutine, loop=loop, name="soth-mitm hook")
