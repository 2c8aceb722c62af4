"""Spans on their way to a collector: gathered for a second, sent in a thread of their own, and counted."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

MOST_WAITING = 8192
"""Spans that wait. Who adds more of them waits too: the proxy's queue for the sink is there for that, and counts what it drops."""
MOST_AT_ONCE = 512
GATHER_SECONDS = 1.0


class SpanExport:
    """Sends spans by `export`, which takes a list of them and says whether it could send them."""

    def __init__(self, export: Callable[[Sequence[Any]], bool]) -> None:
        self.sent = 0
        self.lost = 0
        """Spans that could not be sent."""
        self._export = export
        self._changed = threading.Condition()
        self._waiting: list[Any] = []
        self._is_ending = False
        self._thread = threading.Thread(target=self._run, name="soth-mitm spans", daemon=True)
        self._thread.start()

    def add(self, spans: Sequence[Any]) -> None:
        """Have the spans sent. Waits where too many wait already."""
        with self._changed:
            while len(self._waiting) >= MOST_WAITING and not self._is_ending:
                self._changed.wait()
            self._waiting += spans
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._is_ending:
                    self._changed.wait()
                until = time.monotonic() + GATHER_SECONDS
                while len(self._waiting) < MOST_AT_ONCE and not self._is_ending:
                    if not self._changed.wait(until - time.monotonic()):
                        break
                batch = self._waiting[:MOST_AT_ONCE]
                del self._waiting[:MOST_AT_ONCE]
                self._changed.notify_all()
                if not batch:
                    return
            is_sent = self._export(batch)
            with self._changed:
                if is_sent:
                    self.sent += len(batch)
                else:
                    self.lost += len(batch)

    def close(self, timeout: float) -> None:
        """Send what waits, within `timeout` seconds; what is left then is lost, and counted."""
        with self._changed:
            self._is_ending = True
            self._changed.notify_all()
        self._thread.join(max(0.0, timeout))
        if self._thread.is_alive():
            with self._changed:
                self.lost += len(self._waiting)
                self._waiting.clear()
