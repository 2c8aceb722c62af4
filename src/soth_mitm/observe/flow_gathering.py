"""Flows that arrive in updates, put together: one update that has all of a flow, when it is over."""

from soth_mitm.observe.flow_record import FlowMessage, FlowRecord, FlowUpdate, Piece

# What a message or a piece takes beside its octets
_OVERHEAD = 100
MOST_OPEN = 65_536
"""Flows that are held. One whose end was dropped would be held for good."""


class _Open:
    __slots__ = ("messages", "missed", "octets", "pieces", "record")

    def __init__(self, record: FlowRecord) -> None:
        self.record = record
        self.pieces: list[Piece] = []
        self.messages: list[FlowMessage] = []
        self.missed = 0
        self.octets = 0


class FlowGathering:
    """Holds the content of flows that are open, `most_octets` of all together. Where there is no room, the flow of which nothing was
    heard for longest loses what is held of it.

    That something is missing shows: a record says how much content there was, and `missed` counts messages.
    """

    def __init__(self, most_octets: int) -> None:
        self._most = most_octets
        self._octets = 0
        self._open: dict[int, _Open] = {}

    def add(self, update: FlowUpdate) -> FlowUpdate | None:
        """Take an update; return the whole flow if it is over."""
        record = update.record
        flow_id = record.flow_id
        held = self._open.pop(flow_id, None)
        if held is None and record.is_over:
            return update
        if held is None:
            held = _Open(record)
        held.record = record
        held.missed += update.missed
        for piece in update.pieces:
            if self._take(held, len(piece.data)):
                held.pieces.append(piece)
        for message in update.messages:
            if self._take(held, len(message.data)):
                held.messages.append(message)
            else:
                held.missed += 1
        if not record.is_over:
            self._open[flow_id] = held
            if len(self._open) > MOST_OPEN:
                self._octets -= self._open.pop(next(iter(self._open))).octets
            return None
        return self._whole(held)

    def _take(self, held: _Open, octets: int) -> bool:
        octets += _OVERHEAD
        while self._octets + octets > self._most and self._octets > held.octets:
            self._forget_oldest()
        if self._octets + octets > self._most:
            return False
        self._octets += octets
        held.octets += octets
        return True

    def _forget_oldest(self) -> None:
        # those that were heard of are at the end
        flow_id = next(iter(self._open))
        oldest = self._open.pop(flow_id)
        self._octets -= oldest.octets
        oldest.octets = 0
        oldest.missed += len(oldest.messages)
        oldest.pieces.clear()
        oldest.messages.clear()
        self._open[flow_id] = oldest

    def _whole(self, held: _Open) -> FlowUpdate:
        self._octets -= held.octets
        return FlowUpdate(held.record, tuple(held.pieces), tuple(held.messages), held.missed)

    def rest(self) -> list[FlowUpdate]:
        """Return the flows that are still open, and hold them no longer."""
        found = [self._whole(held) for held in self._open.values()]
        self._open.clear()
        return found
