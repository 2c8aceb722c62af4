"""What event sinks are told agrees with what happened: each step where the grammar has it, each flow and each connection ended once."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from soth_mitm import ProxyMetrics
from soth_mitm.observe.event_sink import EventSink
from soth_mitm.observe.event_states import FLOW
from soth_mitm.observe.flow_event import FlowEventKind
from soth_mitm.observe.flow_record import FlowKind
from support.acts import ACTS, Act, Scene, answered
from support.sinks import Collector
from support.websocket import FIN, MASK, PING, TEXT, ask, closing, frame
from support.wire_client import RESET_ON_CLOSE

SECONDS = 10


@pytest.fixture
def collector() -> Collector:
    """What the proxy feeds."""
    return Collector()


@pytest.fixture
def sinks(collector: Collector) -> list[EventSink]:
    """The same, for the scene."""
    return [collector]


def check(collector: Collector, metrics: ProxyMetrics) -> None:
    """Check what holds when a proxy has ended."""
    assert metrics.illegal_event_count == 0
    assert collector.lost == 0
    assert metrics.dropped_event_count_by_sink_and_kind == {}
    assert metrics.event_sink_failure_count_by_sink == {"Collector": 0}
    events = collector.events
    assert [event.sequence_id for event in events] == list(range(1, len(events) + 1))
    # flows
    ids = [record.flow_id for record in collector.records]
    assert len(set(ids)) == len(ids)
    assert {update.record.flow_id for update in collector.updates} == set(ids)
    requests = [record for record in collector.records if record.kind in (FlowKind.HTTP, FlowKind.WEBSOCKET)]
    assert len(requests) == metrics.total_flows
    assert Counter(record.outcome for record in requests) == +Counter(metrics.ended_flow_count_by_outcome)
    tunnels = [record for record in collector.records if record.kind is FlowKind.TUNNEL]
    assert len(tunnels) == metrics.tunnel_count - metrics.upgrade_count
    closed = [event.flow_id for event in collector.of(FlowEventKind.STREAM_CLOSED) if event.flow_id]
    assert sorted(closed) == sorted(ids)
    began = [event.flow_id for event in collector.of(FlowEventKind.REQUEST_HEADERS)]
    assert sorted(began) == sorted(record.flow_id for record in requests)
    # connections
    assert metrics.active_connections == 0
    for kind in (FlowEventKind.CONNECTION_OPENED, FlowEventKind.CONNECTION_CLOSED):
        assert len({event.connection_id for event in collector.of(kind)}) == metrics.total_connections == len(collector.of(kind))
    ends = [event.connection_id for event in collector.of(FlowEventKind.STREAM_CLOSED) if not event.flow_id]
    assert len(ends) == len(set(ends)) == metrics.total_connections
    numbers = Counter[tuple[str, int]]()
    for event in events:
        key = (event.connection_id, event.flow_id)
        numbers[key] += 1
        assert event.flow_sequence_id == numbers[key]
        assert list(event.attributes) == sorted(event.attributes)


def finish(scene: Scene, collector: Collector) -> None:
    scene.running.wait_idle()
    scene.running.handle.shutdown(SECONDS)
    check(collector, scene.running.metrics())


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
def test_each_act_is_told_by_the_grammar(scene: Scene, collector: Collector, act: Act) -> None:
    for _ in range(2):
        expected = act(scene)
    finish(scene, collector)
    if expected is not None:
        last = [record for record in collector.records if record.kind in (FlowKind.HTTP, FlowKind.WEBSOCKET)][0]
        assert (last.protocol, last.outcome) == (expected.protocol, expected.outcome)
        assert (last.pattern or "unlisted") == expected.pattern


# --- faults: a client that says some of what it has to say, and leaves


def http1(scene: Scene) -> bytes:
    head = f"CONNECT localhost:{scene.plain.port} HTTP/1.1\r\n\r\n".encode()
    post = b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    return head + post + b"GET /sse/3/0 HTTP/1.1\r\nHost: localhost\r\n\r\nGET /blocked HTTP/1.1\r\nHost: localhost\r\n\r\nno head at all"


def absolute(scene: Scene) -> bytes:
    asks = [
        f"GET http://{host}:{scene.plain.port}/bytes/100 HTTP/1.1\r\nHost: x\r\n\r\n" for host in ("127.0.0.1", "localhost", "127.0.0.1")
    ]
    return "".join((*asks, "GET http://a.blocked.test/ HTTP/1.1\r\nHost: x\r\n\r\n", *asks)).encode()


def http2(scene: Scene) -> bytes:
    h2 = H2Connection(H2Configuration(client_side=True))
    h2.initiate_connection()
    for number, path in enumerate(("/bytes/100", "/blocked", "/sse/3/0", "/lines", "/echo")):
        stream = 2 * number + 1
        head = [(":method", "POST"), (":scheme", "http"), (":authority", f"localhost:{scene.plain.port}"), (":path", path)]
        h2.send_headers(stream, head, end_stream=path != "/echo")
    h2.send_data(9, b"hello")
    h2.reset_stream(5, 8)
    h2.end_stream(9)
    return f"CONNECT localhost:{scene.plain.port} HTTP/1.1\r\n\r\n".encode() + h2.data_to_send()


def messages(scene: Scene) -> bytes:
    head = f"CONNECT localhost:{scene.plain.port} HTTP/1.1\r\n\r\n".encode()
    frames = frame(TEXT, b"one ", MASK) + frame(FIN, b"two", MASK) + frame(FIN | PING, b"", MASK) + frame(FIN | TEXT, b"three", MASK)
    return head + ask() + frames + closing(1001, b"bye", MASK)


def through(scene: Scene) -> bytes:
    return f"CONNECT 127.0.0.2:{scene.elsewhere} HTTP/1.1\r\n\r\n".encode() + b"hello" * 20


CONVERSATIONS = (http1, absolute, http2, messages, through)


@dataclasses.dataclass
class Leaving:
    """A client that says a part of a conversation, hears what comes at once if it waits, and closes or resets its connection."""

    conversation: Callable[[Scene], bytes]
    share: float
    waits: bool
    resets: bool

    def __call__(self, scene: Scene) -> None:
        said = self.conversation(scene)
        with scene.running.client() as client:
            client.send(said[: round(len(said) * self.share)])
            if self.waits:
                client.socket.settimeout(0.05)
                with contextlib.suppress(OSError):
                    client.socket.recv(1 << 16)
            if self.resets:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)


QUICK = tuple(act for act in ACTS if act.__name__ not in ("late", "cut_by_the_upstream"))
DOINGS = st.one_of(
    st.sampled_from(QUICK),
    st.builds(Leaving, st.sampled_from(CONVERSATIONS), st.floats(0, 1), st.booleans(), st.booleans()),
)


def test_any_mix_with_any_faults_is_told_by_the_grammar(scene: Scene, collector: Collector) -> None:
    @settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(DOINGS, min_size=1, max_size=12), st.integers(1, 6))
    def play(doings: list[Callable[[Scene], object]], threads: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda doing: doing(scene), doings))
        scene.running.wait_idle()
        metrics = scene.running.metrics()
        collector.wait(lambda sink: len(sink.of(FlowEventKind.CONNECTION_CLOSED)) == metrics.total_connections)
        check(collector, metrics)

    play()
    finish(scene, collector)


def test_a_checker_that_knows_better_counts(scene: Scene, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """The grammar is looked at: one that lacks a step finds it."""
    monkeypatch.setitem(FLOW["requested"], FlowEventKind.RESPONSE_HEADERS, None)  # type: ignore[index]
    answered(scene)
    scene.running.wait_idle()
    assert scene.running.metrics().illegal_event_count > 0
