"""All event sinks of one proxy: how they are checked, opened, fed and closed."""

import asyncio
import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from soth_mitm.errors import EventSinkError
from soth_mitm.escaping import get_logger
from soth_mitm.observe.event_sink import EventSink, SinkInfo
from soth_mitm.observe.flow_event import FlowEvent, FlowEventKind
from soth_mitm.observe.sink_feed import FlowState, SinkFeed

T = TypeVar("T")

log = get_logger("soth_mitm.observe")

# How long a sink may take to open, and, with all that waits for it, to close.
OPEN_SECONDS = 30.0
CLOSE_SECONDS = 5.0

# of labels and of log lines
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
# Those of proxies that have not ended: none is called in two threads.
_ATTACHED: dict[int, EventSink] = {}


def sink_name(sink: EventSink) -> str:
    """Return the name by which a sink is counted and logged."""
    return sink.name or type(sink).__name__


def check_sink(sink: object) -> EventSink:
    """Return the sink. `TypeError` and `ValueError` say what is wrong with one that could not be fed."""
    if not isinstance(sink, EventSink):
        raise TypeError(f"an event sink derives from soth_mitm.observe.event_sink.EventSink, which {type(sink).__name__} does not")
    name = sink_name(sink)
    if not _NAME.fullmatch(name):
        raise ValueError(f"EventSink.name: {name!r} is no name of 1 to 64 letters, digits and `_.:-`")
    for kind in sink.kinds:
        try:
            FlowEventKind(kind)
        except ValueError:
            raise ValueError(f"{name}.kinds: {kind!r} is no FlowEventKind") from None
    if type(sink).accept is EventSink.accept:
        raise TypeError(f"{type(sink).__name__} has no `accept`, so that it could be given nothing")
    if not sink.kinds and not sink.flows:
        raise ValueError(f"{name} wants nothing: set `kinds`, or `flows`")
    return sink


class SinkFeeds:
    """Feeds the sinks of one proxy, on whose loop it is called."""

    def __init__(self, sinks: Sequence[EventSink], loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._sinks = tuple(sinks)
        self._attached: list[EventSink] = []
        names: Counter[str] = Counter()
        self.feeds: list[SinkFeed] = []
        for sink in sinks:
            name = sink_name(sink)
            names[name] += 1
            self.feeds.append(SinkFeed(sink, name if names[name] == 1 else f"{name}_{names[name]}"))
        self._ended: list[asyncio.Future[None]] = []
        self.illegal_steps = 0
        """Events that came where docs/events.md has none."""

    @property
    def kinds(self) -> frozenset[FlowEventKind]:
        """The events that at least one sink wants."""
        return frozenset().union(*(feed.kinds for feed in self.feeds))

    @property
    def flows(self) -> bool:
        """Whether one wants updates of flows."""
        return any(feed.flows for feed in self.feeds)

    @property
    def content(self) -> int:
        """Bytes that the greediest one wants of each body."""
        return max((feed.content for feed in self.feeds), default=0)

    @property
    def messages(self) -> bool:
        """Whether one wants messages of WebSockets."""
        return any(feed.messages for feed in self.feeds)

    # --- what goes in

    def push_event(self, event: FlowEvent) -> None:
        """Give it to the sinks that want its kind."""
        for feed in self.feeds:
            if event.kind in feed.kinds:
                feed.push_event(event)

    def push_flow(self, state: FlowState) -> None:
        """Give it to the sinks that want flows."""
        for feed in self.feeds:
            if feed.flows:
                feed.push_flow(state)

    # --- from start to end

    async def open(self, info: SinkInfo) -> None:
        """Open all sinks, each in its thread. Raises the `EventSinkError` of the first that fails, and closes the others."""
        for feed, sink in zip(self.feeds, self._sinks, strict=True):
            if id(sink) in _ATTACHED:
                self._detach()
                raise EventSinkError(feed.name, "is attached to a proxy that has not ended; make one for each proxy")
            _ATTACHED[id(sink)] = sink
            self._attached.append(sink)
        opening: list[asyncio.Future[EventSinkError | None]] = []
        for feed in self.feeds:
            opened: asyncio.Future[EventSinkError | None] = self._loop.create_future()
            ended: asyncio.Future[None] = self._loop.create_future()
            opening.append(opened)
            self._ended.append(ended)
            feed.start(info, self._teller(opened), self._teller(ended))
        await asyncio.wait(opening, timeout=OPEN_SECONDS)
        failures = [
            EventSinkError(feed.name, f"was not open after {OPEN_SECONDS:g} s") if not opened.done() else opened.result()
            for feed, opened in zip(self.feeds, opening, strict=True)
        ]
        failure = next((failure for failure in failures if failure is not None), None)
        if failure is not None:
            await self.close()
            raise failure

    def _teller(self, future: asyncio.Future[T]) -> Callable[[T], None]:
        """Return what gives the future its result, from another thread."""

        def set_result(result: T) -> None:
            if not future.done():
                future.set_result(result)

        def tell(result: T) -> None:
            # a loop that is closed waits for nothing
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(set_result, result)

        return tell

    async def close(self) -> None:
        """Have all sinks given what waits for them, and closed, within a bounded time."""
        until = time.monotonic() + CLOSE_SECONDS
        for feed in self.feeds:
            feed.end(until)
        if self._ended:
            await asyncio.wait(self._ended, timeout=CLOSE_SECONDS)
        for feed, ended in zip(self.feeds, self._ended, strict=False):
            if not ended.done():
                left = feed.abandon()
                log.warning(
                    "the event sink %s was not done %g s after the proxy had ended: %d events are lost", feed.name, CLOSE_SECONDS, left
                )
        self._detach()

    def _detach(self) -> None:
        for sink in self._attached:
            _ATTACHED.pop(id(sink), None)
        self._attached.clear()

    # --- figures

    def dropped(self) -> dict[str, int]:
        """Return how many were dropped, by sink and kind with a blank between."""
        return {f"{feed.name} {kind}": count for feed in self.feeds for kind, count in list(feed.dropped.items())}

    def failures(self) -> dict[str, int]:
        """Return how many exceptions each sink has raised."""
        return {feed.name: feed.failures for feed in self.feeds}

    def lags(self) -> dict[str, float]:
        """Return for each sink how long what it has yet to take has waited, in seconds."""
        return {feed.name: feed.lag for feed in self.feeds}

    def disabled(self) -> int:
        """Return how many sinks are given nothing more."""
        return sum(feed.is_disabled for feed in self.feeds)
