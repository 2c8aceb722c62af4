"""An event sink that keeps what it is given."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from soth_mitm.observe.event_sink import EventSink
from soth_mitm.observe.flow_event import FlowEvent, FlowEventKind
from soth_mitm.observe.flow_record import FlowRecord, FlowUpdate


class Collector(EventSink):
    """Wants everything, unless told otherwise."""

    kinds = frozenset(FlowEventKind)
    flows = True
    content = 1 << 20
    messages = True

    def __init__(self, **wants: object) -> None:
        for name, value in wants.items():
            setattr(self, name, value)
        self.items: list[FlowEvent | FlowUpdate] = []
        self.lost = 0
        self._changed = threading.Condition()

    def accept(self, batch: Sequence[FlowEvent | FlowUpdate]) -> None:
        with self._changed:
            self.items += batch
            self._changed.notify_all()

    def dropped(self, count: int) -> None:
        self.lost += count

    def wait(self, is_there: Callable[[Collector], object]) -> None:
        """Wait until what is kept fits."""
        with self._changed:
            assert self._changed.wait_for(lambda: is_there(self), 10), self.items

    @property
    def events(self) -> list[FlowEvent]:
        return [item for item in self.items if isinstance(item, FlowEvent)]

    @property
    def updates(self) -> list[FlowUpdate]:
        return [item for item in self.items if isinstance(item, FlowUpdate)]

    @property
    def records(self) -> list[FlowRecord]:
        """Of the flows that are over, in the order in which they ended."""
        return [update.record for update in self.updates if update.record.is_over]

    def body(self, flow_id: int, to_client: bool) -> bytes:
        """Return the content of one side of a flow."""
        pieces = [piece for update in self.updates if update.record.flow_id == flow_id for piece in update.pieces]
        return b"".join(piece.data for piece in pieces if piece.to_client == to_client)

    def of(self, *kinds: FlowEventKind) -> list[FlowEvent]:
        """Return the events of these kinds."""
        return [event for event in self.events if event.kind in kinds]
