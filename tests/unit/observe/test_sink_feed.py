"""How event sinks are fed: in their order, in a thread, within bounds, whatever the sink does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from uuid import UUID

import msgspec
import pytest

from soth_mitm import EventSinkError
from soth_mitm.connection import ConnectionMeta, TcpV4
from soth_mitm.observe import sink_feed, sink_feeds
from soth_mitm.observe.event_sink import EventSink, SinkInfo
from soth_mitm.observe.flow_event import FlowEvent, FlowEventKind
from soth_mitm.observe.flow_record import FlowKind, FlowRecord, FlowUpdate, Piece
from soth_mitm.observe.sink_feed import Lost
from soth_mitm.observe.sink_feeds import SinkFeeds, check_sink

INFO = SinkInfo(proxy_id=UUID(int=1), version="1", pid=1, started=1.0)
META = ConnectionMeta(UUID(int=2), TcpV4(("127.0.0.1", 1), ("127.0.0.1", 2)))
ALL_KINDS = frozenset(FlowEventKind)


def event(number: int, kind: FlowEventKind = FlowEventKind.SSE_EVENT) -> FlowEvent:
    return FlowEvent(
        sequence_id=number,
        flow_id=1,
        flow_sequence_id=number,
        kind=kind,
        protocol="sse",
        stream_key=f"sequence:{number}",
        connection_id="c",
        client_addr="127.0.0.1:2",
        server_host="a.example",
        server_port=443,
        attributes={},
        unix_us=number,
    )


class State(msgspec.Struct):
    """A flow whose content is `data`."""

    flow_id: int
    is_over: bool
    data: bytes = b""

    @property
    def octets(self) -> int:
        return len(self.data)

    def update(self, content: int, messages: bool, lost: Lost) -> FlowUpdate:
        record = FlowRecord(
            flow_id=self.flow_id,
            kind=FlowKind.HTTP,
            connection=META,
            is_over=self.is_over,
            started=1.0,
            response_kept=len(self.data) - lost.response,
        )
        return FlowUpdate(record, (Piece(0.0, True, self.data[:content]),) if self.data else (), (), lost.messages)

    def spared(self, content: int) -> tuple[State, Lost]:
        return State(self.flow_id, self.is_over), Lost(0, min(content, len(self.data)), 1)


class Keeper(EventSink):
    """Keeps what it is given; `gate` holds it up."""

    kinds = ALL_KINDS
    flows = True
    content = 100

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.given: list[FlowEvent | FlowUpdate] = []
        self.told_dropped: list[int] = []
        self.threads: set[int] = set()
        self.info: SinkInfo | None = None
        self.closed_within: float | None = None
        self.fails = False

    def open(self, info: SinkInfo) -> None:
        self.info = info
        self.threads.add(threading.get_ident())

    def accept(self, batch: Sequence[FlowEvent | FlowUpdate]) -> None:
        self.threads.add(threading.get_ident())
        self.entered.set()
        self.gate.wait()
        if self.fails:
            raise LookupError("on purpose")
        self.given += batch

    def dropped(self, count: int) -> None:
        self.told_dropped.append(count)

    def close(self, timeout: float) -> None:
        self.closed_within = timeout
        self.threads.add(threading.get_ident())

    def numbers(self) -> list[int]:
        return [item.sequence_id for item in self.given if isinstance(item, FlowEvent)]


async def held(feeds: SinkFeeds, sink: Keeper) -> None:
    """Have the sink hold a first event in hand, and wait for more."""
    sink.gate.clear()
    feeds.push_event(event(0))
    assert await asyncio.to_thread(sink.entered.wait, 10)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what the sink's thread does after its call."""
    pause = threading.Event()

    def wait() -> None:
        while not is_so():
            pause.wait(0.001)

    await asyncio.to_thread(wait)


def run(work: object) -> None:
    asyncio.run(work)  # type: ignore[arg-type]


def test_a_sink_is_opened_fed_in_order_and_closed_in_one_thread_of_its_own() -> None:
    async def work() -> None:
        sink = Keeper()
        feeds = SinkFeeds([sink], asyncio.get_running_loop())
        await feeds.open(INFO)
        assert sink.info == INFO
        for number in range(3000):
            feeds.push_event(event(number))
        feeds.push_flow(State(1, True, b"abc"))
        await feeds.close()
        assert sink.numbers() == list(range(3000))
        assert isinstance(sink.given[-1], FlowUpdate)
        assert sink.given[-1].pieces[0].data == b"abc"
        assert sink.closed_within is not None
        assert len(sink.threads) == 1
        assert sink.threads != {threading.get_ident()}
        assert feeds.dropped() == {}
        assert feeds.lags() == {"Keeper": 0.0}

    run(work())


def test_each_sink_gets_what_it_has_asked_for() -> None:
    async def work() -> None:
        class Events(Keeper):
            flows = False
            kinds = frozenset({FlowEventKind.STREAM_CLOSED})

        class Flows(Keeper):
            kinds = frozenset()
            content = 2

        one, other = Events(), Flows()
        feeds = SinkFeeds([one, other], asyncio.get_running_loop())
        assert (feeds.kinds, feeds.flows, feeds.content, feeds.messages) == (Events.kinds, True, 2, False)
        await feeds.open(INFO)
        feeds.push_event(event(1))
        feeds.push_event(event(2, FlowEventKind.STREAM_CLOSED))
        feeds.push_flow(State(1, True, b"abc"))
        await feeds.close()
        assert one.numbers() == [2]
        assert len(one.given) == 1
        assert [item.pieces[0].data for item in other.given if isinstance(item, FlowUpdate)] == [b"ab"]

    run(work())


def test_what_does_not_fit_is_dropped_and_counted_and_ends_keep_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_feed, "MOST_ENTRIES", 3)
    monkeypatch.setattr(sink_feed, "RESERVED_ENTRIES", 2)

    async def work() -> None:
        sink = Keeper()
        feeds = SinkFeeds([sink], asyncio.get_running_loop())
        await feeds.open(INFO)
        await held(feeds, sink)
        for number in range(1, 5):
            feeds.push_event(event(number))
        feeds.push_event(event(5, FlowEventKind.STREAM_CLOSED))
        feeds.push_flow(State(1, False, b"ab"))
        feeds.push_flow(State(1, True, b"cd"))
        feeds.push_event(event(6, FlowEventKind.STREAM_CLOSED))
        assert feeds.lags()["Keeper"] > 0
        sink.gate.set()
        await feeds.close()
        assert sink.numbers() == [0, 1, 2, 5]
        assert sink.told_dropped == [4]
        assert feeds.dropped() == {"Keeper sse_event": 2, "Keeper flow_update": 1, "Keeper stream_closed": 1}
        last = sink.given[-1]
        assert isinstance(last, FlowUpdate)
        # that content was lost before is in its record
        assert last.record.response_kept == 0
        assert last.missed == 1

    run(work())


def test_content_beyond_the_bound_is_left_out_of_ends_and_other_updates_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_feed, "MOST_OCTETS", 10)

    async def work() -> None:
        sink = Keeper()
        feeds = SinkFeeds([sink], asyncio.get_running_loop())
        await feeds.open(INFO)
        await held(feeds, sink)
        feeds.push_flow(State(1, False, b"12345678"))
        feeds.push_flow(State(1, False, b"12345678"))
        feeds.push_flow(State(1, True, b"1234"))
        feeds.push_event(event(9))
        sink.gate.set()
        await feeds.close()
        updates = [item for item in sink.given if isinstance(item, FlowUpdate)]
        assert [update.pieces for update in updates] == [(Piece(0.0, True, b"12345678"),), ()]
        assert updates[1].record.is_over
        assert updates[1].missed == 2
        assert sink.numbers() == [0, 9]
        assert feeds.dropped() == {"Keeper flow_update": 1}

    run(work())


def test_a_sink_that_fails_three_times_in_a_row_is_given_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        sink, other = Keeper(), Keeper()
        feeds = SinkFeeds([sink, other], asyncio.get_running_loop())
        assert [feed.name for feed in feeds.feeds] == ["Keeper", "Keeper_2"]
        await feeds.open(INFO)
        sink.fails = True
        for number in range(sink_feed.MOST_FAILURES):
            sink.entered.clear()
            feeds.push_event(event(number))
            assert await asyncio.to_thread(sink.entered.wait, 10)
        await until(lambda: feeds.disabled() == 1)
        feeds.push_event(event(7))
        feeds.push_event(event(8, FlowEventKind.STREAM_CLOSED))
        await feeds.close()
        assert feeds.failures() == {"Keeper": 3, "Keeper_2": 0}
        assert feeds.dropped() == {"Keeper sse_event": 1, "Keeper stream_closed": 1}
        assert other.numbers() == [0, 1, 2, 7, 8]
        # files can be closed all the same
        assert sink.closed_within is not None

    run(work())
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]


def test_a_failure_now_and_then_disables_nothing() -> None:
    async def work() -> None:
        sink = Keeper()
        feeds = SinkFeeds([sink], asyncio.get_running_loop())
        await feeds.open(INFO)
        for number in range(8):
            sink.fails = number % 2 == 0
            sink.entered.clear()
            feeds.push_event(event(number))
            assert await asyncio.to_thread(sink.entered.wait, 10)
            await until(lambda: not feeds.lags()["Keeper"])
        await feeds.close()
        assert feeds.failures() == {"Keeper": 4}
        assert sink.numbers() == [1, 3, 5, 7]

    run(work())


def test_a_sink_that_hangs_holds_up_the_end_for_a_bounded_time(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(sink_feeds, "CLOSE_SECONDS", 0.05)
    sink = Keeper()

    async def work() -> None:
        feeds = SinkFeeds([sink], asyncio.get_running_loop())
        await feeds.open(INFO)
        await held(feeds, sink)
        feeds.push_event(event(1))
        began = time.monotonic()
        await feeds.close()
        assert time.monotonic() - began < 4
        feeds.push_event(event(2))
        assert feeds.dropped() == {"Keeper sse_event": 2}

    run(work())
    assert "2 events are lost" in caplog.text
    # its loop is closed, and the thread may end all the same
    sink.gate.set()


def test_a_sink_that_cannot_be_opened_is_told_and_closes_the_others() -> None:
    class Broken(Keeper):
        def open(self, info: SinkInfo) -> None:
            raise OSError("no space")

    async def work() -> None:
        sink = Keeper()
        feeds = SinkFeeds([sink, Broken()], asyncio.get_running_loop())
        with pytest.raises(EventSinkError, match="event sink Broken: cannot be opened: no space") as caught:
            await feeds.open(INFO)
        assert caught.value.sink == "Broken"
        assert sink.closed_within is not None
        # free again
        again = SinkFeeds([sink], asyncio.get_running_loop())
        await again.open(INFO)
        await again.close()

    run(work())


def test_a_sink_that_does_not_come_out_of_open_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_feeds, "OPEN_SECONDS", 0.05)
    monkeypatch.setattr(sink_feeds, "CLOSE_SECONDS", 0.05)
    gate = threading.Event()

    class Hanging(Keeper):
        def open(self, info: SinkInfo) -> None:
            gate.wait()

    async def work() -> None:
        with pytest.raises(EventSinkError, match="was not open after"):
            await SinkFeeds([Hanging()], asyncio.get_running_loop()).open(INFO)

    run(work())
    gate.set()


def test_one_sink_serves_one_proxy_at_a_time() -> None:
    async def work() -> None:
        sink = Keeper()
        feeds = SinkFeeds([sink], asyncio.get_running_loop())
        await feeds.open(INFO)
        with pytest.raises(EventSinkError, match="attached to a proxy that has not ended"):
            await SinkFeeds([sink], asyncio.get_running_loop()).open(INFO)
        await feeds.close()

    run(work())


def test_a_sink_that_cannot_be_fed_is_refused() -> None:
    class Nameless(Keeper):
        name = "two words"

    class Unknown(Keeper):
        kinds = frozenset({"no_kind"})  # type: ignore[arg-type]

    class Idle(Keeper):
        kinds = frozenset()
        flows = False

    class Deaf(EventSink):
        flows = True

    for sink, error, words in (
        (object(), TypeError, "derives from"),
        (Nameless(), ValueError, "two words"),
        (Unknown(), ValueError, "no_kind"),
        (Idle(), ValueError, "wants nothing"),
        (Deaf(), TypeError, "no `accept`"),
    ):
        with pytest.raises(error, match=words):
            check_sink(sink)
