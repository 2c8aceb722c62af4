"""HTTP/2 sessions: whole exchanges between two of ours, in any pieces, and what is told and kept on the way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soth_mitm._dataplane.http2.frame import make_frame
from soth_mitm._dataplane.http2.settings import apply_settings
from support.sessions import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    POST,
    PREFACE,
    REQUEST,
    SETTINGS,
    WINDOW_UPDATE,
    Pair,
    Peer,
    frames_of,
    goaways_of,
    plain,
    request_head,
    resets_of,
    response_head,
    updates_of,
)

LARGE = b"GET / HTTP/1.1\r\nHost: a.example\r\nX-Large: " + bytes(33 + i * 7 % 90 for i in range(40_000)) + b"\r\n\r\n"


@pytest.mark.parametrize("piece", [0, 1, 2, 3, 7, 9, 10, 100])
def test_an_exchange_in_any_pieces(piece: int) -> None:
    pair = Pair(piece)
    pair.client.take_events()
    pair.server.take_events()
    stream = pair.client.open(request_head(b"POST /p HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nX-A: 1\r\n\r\n"), False)
    assert stream == 1
    assert pair.client.data(1, b"hello", True) == 5
    pair.settle()
    told = [plain(event) for event in pair.server.take_events()]
    assert told[0] == ("head", 1, "POST", [(b"host", b"a.example"), (b"content-length", b"5"), (b"x-a", b"1")], False)
    assert b"".join(event[2] for event in told[1:-1]) == b"hello"
    assert told[-1] == ("end", 1)
    pair.server.head(1, response_head(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"))
    pair.server.head(1, response_head(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"))
    assert pair.server.data(1, b"abc") == 3
    pair.server.trailers(1, b"Grpc-Status: 0\r\n")
    pair.settle()
    told = [plain(event) for event in pair.client.take_events()]
    assert told[0] == ("head", 1, 103, [(b"link", b"x")], False)
    assert told[1] == ("head", 1, 200, [(b"content-length", b"3")], False)
    assert b"".join(event[2] for event in told[2:-2]) == b"abc"
    assert told[-2:] == [("trailers", 1, b"grpc-status: 0\r\n"), ("end", 1)]
    pair.server.release(1)
    assert pair.server.session.active == 0
    assert pair.server.glitches == pair.client.glitches == 0


def test_an_exchange_split_everywhere() -> None:
    recorded = Peer(start=False)
    octets = PREFACE + make_frame(SETTINGS, 0, 0) + make_frame(SETTINGS, ACK, 0)
    octets += recorded.headers(1, [*POST, (b"x", b"1")]) + make_frame(DATA, PADDED, 1, b"\x03hello\0\0\0") + recorded.data(1, b"!", True)
    octets += make_frame(HEADERS, 0, 3, recorded.block(REQUEST)[:4])
    rest = Peer(start=False).block(REQUEST)
    octets = octets[: -9 - 4] + make_frame(HEADERS, END_STREAM, 3, rest[:3]) + make_frame(CONTINUATION, END_HEADERS, 3, rest[3:])

    def told(*pieces: bytes) -> tuple[list[tuple[object, ...]], bytes]:
        peer = Peer(start=False)
        for piece in pieces:
            peer.feed(piece)
        events: list[tuple[object, ...]] = []
        for event in peer.events():
            if event[0] == "data" and events and events[-1][0] == "data":
                last = events.pop()
                assert isinstance(last[2], bytes)
                event = (*event[:2], last[2] + event[2])
            events.append(event)
        assert peer.rest == b""
        return events, peer.sent

    whole = told(octets)
    assert [event[0] for event in whole[0]] == ["ready", "head", "data", "end", "head", "end"]
    for at in range(len(octets) + 1):
        assert told(octets[:at], octets[at:]) == whole
    assert told(*(octets[at : at + 1] for at in range(len(octets)))) == whole


def test_what_begins_a_connection() -> None:
    client, server = Peer(False, start=False), Peer(True, start=False)
    assert client.began.startswith(PREFACE)
    assert [frame[:3] for frame in frames_of(client.began)] == [(SETTINGS, 0, 0), (WINDOW_UPDATE, 0, 0)]
    settings = apply_settings(frames_of(client.began)[0][3])
    assert (settings["push"], settings["list_size"], settings["no_priorities"]) == (False, 65536, True)
    settings = apply_settings(frames_of(server.began)[0][3], from_server=True)
    assert (settings["max_streams"], settings["list_size"], settings["connect_protocol"]) == (100, 65536, False)
    assert updates_of(server.began) == updates_of(client.began) == [(0, 2**30 - 65535)]


@pytest.mark.parametrize("at", range(24))
def test_another_preface(at: int) -> None:
    peer = Peer(start=False)
    peer.feed(PREFACE[:at] + b"\xee")
    assert peer.failure == "PROTOCOL_ERROR"
    assert [frame[0] for frame in frames_of(peer.sent)] == [GOAWAY]


@pytest.mark.parametrize("is_server", [True, False])
def test_the_first_frame_is_settings(is_server: bool) -> None:
    preface = PREFACE if is_server else b""
    for first in (make_frame(PING, 0, 0, bytes(8)), make_frame(SETTINGS, ACK, 0), make_frame(0xBE, 0, 0)):
        peer = Peer(is_server, start=False)
        peer.feed(preface + first)
        assert peer.failure == "PROTOCOL_ERROR"


def test_settings_and_pings_are_answered() -> None:
    peer = Peer()
    peer.feed(make_frame(SETTINGS, 0, 0) + make_frame(PING, 0, 0, b"12345678"))
    assert frames_of(peer.took()) == [(SETTINGS, ACK, 0, b""), (PING, ACK, 0, b"12345678")]
    assert peer.names() == ["ready"]


def test_the_round_trip_is_measured() -> None:
    peer = Peer(start=False)
    peer.feed(PREFACE + make_frame(SETTINGS, 0, 0) + make_frame(SETTINGS, ACK, 0), 0.25)
    assert peer.ours.session.round_trip == 0.25
    peer.ours.session.now = 10.0
    peer.ours.ping()
    peer.ours.session.now = 10.125
    assert peer.ours.unanswered_for == 0.125
    peer.feed(make_frame(PING, ACK, 0, frames_of(peer.took())[-1][3]))
    assert (peer.ours.session.round_trip, peer.ours.unanswered_for) == (0.125, 0)
    # an answer to nothing is odd
    peer.feed(make_frame(PING, ACK, 0, b"soth\0\0\0\1") + make_frame(PING, ACK, 0, b"soth\0\0\0\2") + make_frame(PING, ACK, 0, bytes(8)))
    assert peer.ours.glitches == 3
    peer.feed(make_frame(SETTINGS, ACK, 0))
    assert peer.ours.glitches == 4


def test_one_answer_answers_all_pings_before_it() -> None:
    peer = Peer()
    for _ in range(3):
        peer.ours.ping()
    pings = [frame[3] for frame in frames_of(peer.took())]
    peer.ours.session.now = 3.0
    peer.feed(make_frame(PING, ACK, 0, pings[1]))
    assert peer.ours.unanswered_for == 3.0
    peer.feed(make_frame(PING, ACK, 0, pings[2]))
    assert peer.ours.unanswered_for == 0


def test_large_heads_leave_as_continuation() -> None:
    pair = Pair()
    assert pair.client.open(request_head(LARGE)) == 1
    sent = frames_of(pair.client.take_sent())
    assert [frame[:3] for frame in sent] == [(HEADERS, END_STREAM, 1), (CONTINUATION, 0, 1), (CONTINUATION, END_HEADERS, 1)]
    assert [len(frame[3]) for frame in sent[:2]] == [16384, 16384]
    for kind, flags, stream, content in sent:
        pair.to_server += make_frame(kind, flags, stream, content)
    pair.settle()
    head = next(event[2] for event in pair.server.take_events() if event[0] == "head")
    assert head.fields[1] == (b"x-large", LARGE.split(b": ")[2].removesuffix(b"\r\n\r\n"))


def test_content_that_is_not_taken_is_kept() -> None:
    peer = Peer()
    peer.ours.give_room(1, 3)
    peer.feed(peer.headers(1, POST) + peer.data(1, b"hello") + peer.data(1, b"world") + peer.headers(1, [(b"x", b"y")], True))
    assert peer.names() == ["head", "data"]
    assert peer.ours.kept(1) == b"loworld"
    assert peer.ours.consume(1, 4) == b"lowo"
    assert peer.events() == []
    assert peer.ours.consume(1, 3) == b"rld"
    assert peer.events() == [("trailers", 1, b"x: y\r\n"), ("end", 1)]
    peer.ours.release(1)
    assert peer.arena.budget.held == 0


def test_what_is_kept_counts_in_the_budget_and_leaves_with_its_stream() -> None:
    peer = Peer()
    peer.ours.give_room(1, 0)
    peer.feed(peer.headers(1, POST) + peer.data(1, bytes(1000)))
    assert peer.arena.budget.held >= 1000
    peer.ours.reset(1)
    assert peer.ours.kept(1) == bytes(1000)
    peer.ours.release(1)
    assert peer.arena.budget.held == 0
    assert peer.ours.session.active == 0


def test_content_of_a_stream_that_was_released_is_dropped_and_credited() -> None:
    peer = Peer()
    peer.feed(peer.headers(1, POST))
    peer.ours.release(1)
    peer.feed(b"".join(peer.data(1, bytes(16384)) for _ in range(3)))
    assert updates_of(peer.took()) == [(1, 32768)]
    assert peer.names() == ["head"]


def test_end_of_a_request_leaves_on_the_frame_that_it_came_on() -> None:
    pair = Pair()
    pair.client.open(request_head())
    pair.client.open(request_head(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"), False)
    assert pair.client.data(3, b"abc", True) == 3
    pair.client.open(request_head(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"), False)
    assert pair.client.data(5, b"", True) == 0
    pair.client.open(request_head(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"), False)
    pair.client.trailers(7, b"X: y\r\n")
    # none that may leave: an empty frame ends it
    pair.client.open(request_head(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"), False)
    pair.client.trailers(9, b"Host: y\r\n")
    ends = [(kind, stream) for kind, flags, stream, _ in frames_of(pair.client.take_sent()) if flags & END_STREAM]
    assert ends == [(HEADERS, 1), (DATA, 3), (DATA, 5), (HEADERS, 7), (DATA, 9)]


def test_the_owner_may_answer_within_its_call() -> None:
    peer = Peer()

    def answer(event: tuple[object, ...]) -> None:
        if event[0] == "head":
            peer.ours.own_head(event[1], 204, is_end=True)
            peer.ours.release(event[1])

    peer.ours.call_with_events(answer)
    peer.feed(b"".join(peer.headers(stream, REQUEST, True) for stream in range(1, 21, 2)))
    assert [frame[:3] for frame in frames_of(peer.took())] == [(HEADERS, END_HEADERS | END_STREAM, stream) for stream in range(1, 21, 2)]
    assert peer.ours.session.active == 0


@pytest.mark.parametrize("moment", ["head", "data", "end"])
def test_the_owner_may_reset_within_its_call(moment: str) -> None:
    peer = Peer()

    def end(event: tuple[object, ...]) -> None:
        if event[0] == moment:
            peer.ours.reset(event[1])
            peer.ours.release(event[1])

    peer.ours.call_with_events(end)
    peer.feed(peer.headers(1, POST) + peer.data(1, b"abc") + peer.data(1, b"def", True) + peer.headers(3, REQUEST, True))
    told = peer.names()
    assert told[told.index(moment) + 1] == "head"
    assert resets_of(peer.took())[0] == (1, 8)
    assert peer.ours.session.active == (1 if moment == "data" else 0)


def test_heads_of_our_own() -> None:
    pair = Pair()
    pair.client.open(request_head())
    pair.settle()
    pair.server.own_head(1, 100)
    pair.server.own_head(1, 403, [(b"Content-Type", b"text/plain")], 6)
    assert pair.server.data(1, b"denied", True) == 6
    pair.settle()
    told = [plain(event) for event in pair.client.take_events() if event[0] != "ready"]
    assert told == [
        ("head", 1, 100, [], False),
        ("head", 1, 403, [(b"content-type", b"text/plain"), (b"content-length", b"6")], False),
        ("data", 1, b"denied"),
        ("end", 1),
    ]


def test_extended_connect() -> None:
    extended = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *REQUEST[1:]]
    peer = Peer(offers_connect=True)
    assert apply_settings(frames_of(peer.began)[0][3])["connect_protocol"]
    peer.feed(peer.headers(1, extended))
    assert peer.names() == ["head"]
    assert peer.ours.protocol(1) == b"websocket"
    peer = Peer()
    peer.feed(peer.headers(1, extended))
    assert resets_of(peer.sent) == [(1, 1)]


def test_nothing_is_sent_on_a_stream_that_is_over() -> None:
    peer = Peer()
    peer.feed(peer.headers(1, POST) + peer.reset(1))
    peer.took()
    peer.ours.own_head(1, 200)
    assert peer.ours.data(1, b"abc", True) == 0
    peer.ours.trailers(1, b"X: y\r\n")
    peer.ours.reset(1)
    assert peer.took() == b""


def test_nothing_is_sent_or_told_after_a_failure() -> None:
    peer = Peer()
    peer.feed(peer.headers(1, POST) + make_frame(PING, 0, 0, bytes(7)) + peer.headers(3, POST))
    assert peer.names() == ["head", "failed"]
    assert goaways_of(peer.took()) == [(1, 6)]
    peer.ours.own_head(1, 200)
    peer.ours.ping()
    peer.ours.drain()
    peer.ours.goaway()
    peer.ours.reset(1)
    peer.feed(peer.headers(5, POST))
    assert (peer.took(), peer.names()) == (b"", [])


def test_padding_that_has_no_room_is_found_without_waiting_for_more() -> None:
    peer = Peer()
    peer.feed(peer.headers(1, POST) + make_frame(DATA, PADDED, 1))
    assert peer.failure == "FRAME_SIZE_ERROR"


def test_a_block_of_nothing() -> None:
    peer = Peer()
    peer.feed(make_frame(HEADERS, END_STREAM, 1) + make_frame(CONTINUATION, END_HEADERS, 1))
    assert resets_of(peer.sent) == [(1, 1)]
    assert peer.events() == []


def test_a_failure_ends_the_frame_in_which_it_happens() -> None:
    peer = Peer()
    peer.feed(peer.headers(1, POST) + make_frame(DATA, PADDED, 1, b"\x09abc") + b"more")
    assert peer.failure == "PROTOCOL_ERROR"
    assert peer.rest == b""


# more than a window holds, and less
CONTENTS = st.binary(max_size=100) | st.integers(0, 150_000).map(lambda size: bytes(at * 7 % 251 for at in range(1000)) * (size // 1000))


@given(st.lists(st.tuples(CONTENTS, CONTENTS), min_size=1, max_size=6), st.integers(0, 3))
def test_many_exchanges_at_once(exchanges: list[tuple[bytes, bytes]], piece: int) -> None:
    pair = Pair((0, 1000, 16384, 77)[piece])
    left: dict[int, bytes] = {}
    received: dict[tuple[str, int], bytes] = {}
    answers = {2 * number + 1: answer for number, (_, answer) in enumerate(exchanges)}

    def send(probe: object, stream: int) -> None:
        side = pair.client if probe is pair.client else pair.server
        data = left[(id(side), stream)]  # type: ignore[index]
        taken = side.data(stream, data, True)
        left[(id(side), stream)] = data[taken:]  # type: ignore[index]

    def told(side: object, event: tuple[object, ...]) -> None:
        name, stream = event[:2] if len(event) > 1 else (event[0], 0)
        assert isinstance(stream, int)
        if name == "data":
            key = ("client" if side is pair.client else "server", stream)
            assert isinstance(event[2], bytes)
            received[key] = received.get(key, b"") + event[2]
        elif name == "writable":
            send(side, stream)
        elif name == "end" and side is pair.server:
            pair.server.own_head(stream, 200)
            left[(id(pair.server), stream)] = answers[stream]  # type: ignore[index]
            send(pair.server, stream)

    pair.client.call_with_events(lambda event: told(pair.client, event))
    pair.server.call_with_events(lambda event: told(pair.server, event))
    for content, _ in exchanges:
        stream = pair.client.open(request_head(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"), False)
        assert stream is not None
        left[(id(pair.client), stream)] = content  # type: ignore[index]
        send(pair.client, stream)
    pair.settle()
    for number, (content, answer) in enumerate(exchanges):
        assert received.get(("server", 2 * number + 1), b"") == content
        assert received.get(("client", 2 * number + 1), b"") == answer
        assert pair.client.state(2 * number + 1) == 4
    assert pair.arena.budget.held == 0
