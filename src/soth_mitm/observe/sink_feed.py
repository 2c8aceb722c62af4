"""How one event sink is fed: a bounded queue, and a thread that calls the sink.

Whoever puts something in never waits. What does not fit is dropped and counted. Ends of flows and of connections have places of their own,
as many again, and without content if that does not fit.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from soth_mitm.errors import EventSinkError
from soth_mitm.escaping import get_logger
from soth_mitm.observe.event_sink import EventSink, SinkInfo
from soth_mitm.observe.flow_event import FlowEvent, FlowEventKind
from soth_mitm.observe.flow_record import FlowUpdate

log = get_logger("soth_mitm.observe")

# What waits for a sink at most, what it has in hand included.
MOST_ENTRIES = 8192
MOST_OCTETS = 64 << 20
# Ends may be that many beyond it.
RESERVED_ENTRIES = 8192
# What it is given at a time, so that room is made again before it has seen all that waited.
MOST_AT_ONCE = 1024
# The thread waits so long for more before it takes what is there: each waking takes the interpreter from the traffic.
GATHER_SECONDS = 0.02
# Exceptions in a row, after which a sink is given nothing more.
MOST_FAILURES = 3
# How updates are named where events are by their kind.
FLOW_UPDATE = "flow_update"

# that nothing less than them is left out for want of places
_ENDS = frozenset({FlowEventKind.STREAM_CLOSED, FlowEventKind.CONNECTION_CLOSED})


class Lost(NamedTuple):
    """What of one flow was dropped: bytes of content, each way, and messages since the last update."""

    request: int = 0
    response: int = 0
    messages: int = 0


NOTHING_LOST = Lost()


class FlowState(Protocol):
    """A flow at one moment, of which an update can be made for each sink."""

    flow_id: int
    is_over: bool
    octets: int
    """That it holds of content."""

    def update(self, content: int, messages: bool, lost: Lost) -> FlowUpdate:
        """Return the update for a sink that wants `content` bytes of each body, and perhaps messages."""

    def spared(self, content: int) -> tuple["FlowState", Lost]:
        """Return the same without its content, and what a sink that wants `content` bytes misses by that."""


# What waits: the item, its octets, since when, and what of its flow was lost before. A plain tuple: one is made for each item
_Entry = tuple[FlowEvent | FlowState, int, float, Lost]


class SinkFeed:
    """Feeds one sink. Everything but `run` may be called from any thread."""

    def __init__(self, sink: EventSink, name: str) -> None:
        self.name = name
        self.kinds = frozenset(map(FlowEventKind, sink.kinds))
        self.flows = bool(sink.flows)
        self.content = max(0, int(sink.content)) if self.flows else 0
        self.messages = self.flows and bool(sink.messages)
        self.failures = 0
        """Exceptions of the sink."""
        self.is_disabled = False
        self.dropped: Counter[str] = Counter()
        """By kind of event, or `FLOW_UPDATE`."""
        self._sink = sink
        # taken by itself it is cheaper than by the condition
        self._lock = threading.Lock()
        """Guards what follows."""
        self._changed = threading.Condition(self._lock)
        self._waiting: deque[_Entry] = deque()
        self._entries = 0
        self._octets = 0
        self._in_hand: float | None = None
        self._untold = 0
        self._lost: dict[int, Lost] = {}
        self._is_asleep = False
        self._ends_at: float | None = None
        self._is_abandoned = False
        self._in_row = 0

    # --- what goes in

    def push_event(self, event: FlowEvent) -> None:
        """Put in an event of a kind that the sink wants."""
        with self._lock:
            if not self._has_place(event.kind in _ENDS):
                self._drop(event.kind)
                return
            self._put((event, 0, time.monotonic(), NOTHING_LOST))

    def push_flow(self, state: FlowState) -> None:
        """Put in a flow as it stands."""
        with self._lock:
            is_over = state.is_over
            lost = self._lost.pop(state.flow_id, NOTHING_LOST) if self._lost else NOTHING_LOST
            has_room = self._octets + state.octets <= MOST_OCTETS
            if not self._has_place(is_over) or not (has_room or is_over):
                self._drop(FLOW_UPDATE)
                if not is_over:
                    # the next one says so
                    self._lost[state.flow_id] = _sum(lost, state.spared(self.content)[1])
                return
            if not has_room:
                state, more = state.spared(self.content)
                lost = _sum(lost, more)
            if not is_over and (lost.request or lost.response):
                # what is not there stays so
                self._lost[state.flow_id] = Lost(lost.request, lost.response, 0)
            self._put((state, state.octets, time.monotonic(), lost))

    def _has_place(self, is_end: bool) -> bool:
        if self.is_disabled or self._is_abandoned:
            return False
        return self._entries < MOST_ENTRIES + (RESERVED_ENTRIES if is_end else 0)

    def _drop(self, kind: str) -> None:
        self.dropped[str(kind)] += 1
        self._untold += 1

    def _put(self, entry: _Entry) -> None:
        self._waiting.append(entry)
        self._entries += 1
        self._octets += entry[1]
        if self._is_asleep:
            self._is_asleep = False
            self._changed.notify()

    # --- the thread

    def start(self, info: SinkInfo, opened: Callable[[EventSinkError | None], None], ended: Callable[[None], None]) -> None:
        """Call the sink from now on. `opened` is called in the thread when the sink is open or has failed, `ended` when it is closed."""
        threading.Thread(target=self._run, args=(info, opened, ended), name=f"soth-mitm sink {self.name}", daemon=True).start()

    def _run(self, info: SinkInfo, opened: Callable[[EventSinkError | None], None], ended: Callable[[None], None]) -> None:
        try:
            self._sink.open(info)
        except (Exception, SystemExit) as error:
            # not ours: whatever it raises is told to whoever starts the proxy
            failure = EventSinkError(self.name, f"cannot be opened: {error or type(error).__name__}")
            failure.__cause__ = error
            opened(failure)
            ended(None)
            return
        opened(None)
        while (batch := self._next()) is not None:
            self._give(batch)
        with self._changed:
            left = 0.0 if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())
        self._tell_dropped()
        self._call(lambda: self._sink.close(left))
        ended(None)

    def _next(self) -> list[_Entry] | None:
        """Wait for what to give next; None: there will be nothing."""
        with self._changed:
            while not self._waiting:
                if self._ends_at is not None:
                    return None
                self._is_asleep = True
                self._changed.wait()
                self._is_asleep = False
            if self._ends_at is None and len(self._waiting) < MOST_AT_ONCE:
                self._changed.wait(GATHER_SECONDS)
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
            self._in_hand = batch[0][2]
            return batch

    def _give(self, batch: list[_Entry]) -> None:
        self._tell_dropped()
        items: list[FlowEvent | FlowUpdate] = []
        for item, _, _, lost in batch:
            items.append(item if isinstance(item, FlowEvent) else item.update(self.content, self.messages, lost))
        if not self.is_disabled:
            self._call(lambda: self._sink.accept(items))
        with self._changed:
            self._entries -= len(batch)
            self._octets -= sum(entry[1] for entry in batch)
            self._in_hand = None
            if self.is_disabled:
                self._drop_waiting()

    def _tell_dropped(self) -> None:
        with self._changed:
            count, self._untold = self._untold, 0
        if count and not self.is_disabled:
            self._call(lambda: self._sink.dropped(count))

    def _call(self, call: Callable[[], None]) -> None:
        try:
            call()
        except (Exception, SystemExit) as error:
            # not ours: whatever it raises stays here
            self._failed(error)
        else:
            self._in_row = 0

    def _failed(self, error: BaseException) -> None:
        self.failures += 1
        self._in_row += 1
        if self.failures == 1:
            log.warning("the event sink %s failed: %r (further failures are counted only)", self.name, error, exc_info=error)
        if self._in_row == MOST_FAILURES:
            self.is_disabled = True
            log.error("the event sink %s failed %d times in a row, and is given nothing more: %r", self.name, MOST_FAILURES, error)

    def _drop_waiting(self) -> None:
        for item, _, _, _ in self._waiting:
            self._drop(item.kind if isinstance(item, FlowEvent) else FLOW_UPDATE)
        self._waiting.clear()
        self._lost.clear()
        self._entries = self._octets = 0

    # --- its end, and figures

    def end(self, at: float) -> None:
        """Give what waits, then close the sink, which is told to be done at `at` (of `time.monotonic`)."""
        with self._changed:
            self._ends_at = at
            self._changed.notify_all()

    def abandon(self) -> int:
        """The sink hangs: drop what waits, and return how much that was, with what it has in hand."""
        with self._changed:
            left = self._entries
            self._is_abandoned = True
            self._drop_waiting()
            return left

    @property
    def lag(self) -> float:
        """How long what waits for longest, or is in hand, has waited, in seconds."""
        with self._changed:
            since = self._in_hand
            if since is None and self._waiting:
                since = self._waiting[0][2]
            return 0.0 if since is None else time.monotonic() - since


def _sum(one: Lost, other: Lost) -> Lost:
    return Lost(one.request + other.request, one.response + other.response, one.messages + other.messages)
