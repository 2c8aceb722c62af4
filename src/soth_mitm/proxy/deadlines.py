"""The deadline queues of one configuration."""

import asyncio

from soth_mitm._dataplane.memory.deadline import DeadlineQueue


class Deadlines:
    """One queue for each duration: however many connections wait that long, the loop has one timer for them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._call_later = loop.call_later
        self._queues: dict[int, DeadlineQueue] = {}

    def after(self, milliseconds: int) -> DeadlineQueue:
        """Return the queue of a duration."""
        queue = self._queues.get(milliseconds)
        if queue is None:
            queue = self._queues[milliseconds] = DeadlineQueue(self._call_later, milliseconds / 1000)
        return queue

    def close(self) -> None:
        """Stop the timers. When nothing waits any more."""
        for queue in self._queues.values():
            queue.close()
