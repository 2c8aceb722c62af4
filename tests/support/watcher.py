"""An observer that keeps what it is told."""

import threading

from soth_mitm.observe.observation import Event, EventKind


class Watcher:
    """Keeps the events, and raises at each if it is to."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.events: list[Event] = []
        self.error = error
        self._changed = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()
        if self.error is not None:
            raise self.error

    def wait(self, kind: EventKind, count: int = 1) -> list[Event]:
        with self._changed:
            assert self._changed.wait_for(lambda: sum(event.kind is kind for event in self.events) >= count, 10), self.events
            return [event for event in self.events if event.kind is kind]
