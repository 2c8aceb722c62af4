"""What has bitten other engines for HTTP/2, by its number in the list of pitfalls: each limit hit exactly and missed by one."""

import itertools
import struct

import pytest

from soth_mitm._dataplane.http2.frame import make_frame
from soth_mitm._dataplane.http2.settings import make_settings
from soth_mitm._dataplane.memory.buffer import Arena
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
    PRIORITY,
    PUSH_PROMISE,
    REQUEST,
    RESPONSE,
    RST_STREAM,
    SETTINGS,
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

PRIORITY_UPDATE = 16
PROTOCOL, INTERNAL, FLOW_CONTROL, SETTINGS_TIMEOUT, CLOSED, FRAME_SIZE, REFUSED, CANCEL, COMPRESSION = range(1, 10)
CALM = 11
IDLE, OPEN, LOCAL_ENDED, REMOTE_ENDED, ENDED, WE_RESET, PEER_RESET = range(7)


def client(**options: int) -> Peer:
    """A client of ours with three requests sent, the second with content to come."""
    peer = Peer(False, **options)
    peer.ours.open(request_head())
    peer.ours.open(request_head(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"), False)
    peer.ours.open(request_head())
    peer.took()
    return peer


# ---- 2.1 abuse


def test_rule_1_rapid_reset() -> None:
    peer = Peer(reset_burst=20, resets_per_second=0)
    for stream in range(1, 41, 2):
        peer.feed(peer.headers(stream, REQUEST, True) + peer.reset(stream))
        peer.ours.release(stream)
    assert "failed" not in peer.names()
    peer.feed(peer.headers(41, REQUEST, True) + peer.reset(41))
    assert peer.failure == "ENHANCE_YOUR_CALM"
    assert peer.ours.limit_hit == "resets"
    assert goaways_of(peer.sent) == [(41, CALM)]


def test_rules_1_and_15_a_slot_is_free_when_its_owner_has_done() -> None:
    peer = Peer(max_streams=2)
    for stream in (1, 3):
        peer.feed(peer.headers(stream, REQUEST, True) + peer.reset(stream))
    peer.feed(peer.headers(5, REQUEST, True))
    assert resets_of(peer.took()) == [(5, REFUSED)]
    peer.ours.release(1)
    peer.feed(peer.headers(7, REQUEST, True))
    assert resets_of(peer.took()) == []
    assert peer.ours.session.active == 2


def test_rule_2_resets_that_the_peer_makes_us_send() -> None:
    faults = (
        lambda peer, stream: peer.headers(stream, [*REQUEST, (b"connection", b"close")]),
        lambda peer, stream: peer.headers(stream, POST) + peer.window(stream, 0),
        lambda peer, stream: peer.headers(stream, POST) + peer.window(stream, 2**31 - 1),
        lambda peer, stream: peer.headers(stream, REQUEST, True) + peer.data(stream, b"x"),
        lambda peer, stream: peer.headers(stream, [*POST, (b"content-length", b"1")]) + peer.data(stream, b"xy"),
    )
    for goes_away in (False, True):
        for fault in faults:
            peer = Peer(reset_burst=3, resets_per_second=0)
            peer.feed(b"".join(fault(peer, stream) for stream in (1, 3, 5)))
            assert len(resets_of(peer.took())) == 3
            last = fault(peer, 7)
            if goes_away:
                # a stream that is open when we go away counts as before
                peer.feed(peer.headers(9, POST))
                peer.ours.goaway()
                last = peer.window(9, 0)
            peer.feed(last)
            assert peer.failure == "ENHANCE_YOUR_CALM"


def test_rule_3_frames_on_streams_that_we_reset_cost_nothing() -> None:
    peer = Peer(glitch_burst=1, reset_burst=1)
    peer.feed(peer.headers(1, POST))
    peer.ours.reset(1)
    peer.took()
    peer.feed(peer.data(1, bytes(10_000)) * 5 + peer.window(1, 5) * 9 + peer.headers(1, [(b"x", b"y")], True) + peer.reset(1) * 5)
    assert peer.ours.glitches == 0
    assert peer.took() == b""


def fragments(peer: Peer, pieces: int, stream: int = 1) -> bytes:
    """A request's block in so many frames."""
    block = peer.block(REQUEST)
    frames = [make_frame(HEADERS, END_STREAM, stream, block[:1])]
    frames += [make_frame(CONTINUATION, 0, stream, block[at : at + 1]) for at in range(1, pieces - 1)]
    return b"".join(frames) + make_frame(CONTINUATION, END_HEADERS, stream, block[pieces - 1 :])


def test_rules_4_and_5_frames_of_a_block() -> None:
    peer = Peer()
    peer.feed(fragments(peer, 10))
    assert peer.names() == ["head", "end"]
    peer = Peer()
    peer.feed(fragments(peer, 11))
    assert peer.failure == "ENHANCE_YOUR_CALM"
    assert peer.ours.limit_hit == "head"


def test_rule_4_an_endless_block_is_not_kept() -> None:
    peer = Peer()
    peer.feed(make_frame(HEADERS, 0, 1, b"\x00"))
    for _ in range(9):
        peer.feed(make_frame(CONTINUATION, 0, 1, bytes(16384)))
    assert peer.ours.limit_hit == ""
    peer.feed(make_frame(CONTINUATION, 0, 1, b""))
    assert peer.ours.limit_hit == "head"


def test_rule_4_an_empty_continuation() -> None:
    peer = Peer()
    block = peer.block(REQUEST)
    peer.feed(make_frame(HEADERS, END_STREAM, 1, block) + make_frame(CONTINUATION, END_HEADERS, 1, b""))
    assert peer.names() == ["head", "end"]
    peer.feed(make_frame(HEADERS, END_STREAM, 3, block) + make_frame(CONTINUATION, 0, 3, b""))
    assert peer.failure == "ENHANCE_YOUR_CALM"


@pytest.mark.parametrize("begin", ["block", "frame"])
def test_rule_4_a_block_that_does_not_end(begin: str) -> None:
    peer = Peer(head_seconds=30)
    octets = make_frame(HEADERS, 0, 1, b"\x82") if begin == "block" else peer.headers(1, REQUEST)[:12]
    peer.feed(octets, 100.0)
    peer.ours.session.now = 130.0
    peer.ours.check_head()
    assert peer.failure == ""
    peer.ours.session.now = 130.5
    peer.ours.check_head()
    assert peer.failure == "ENHANCE_YOUR_CALM"
    assert peer.ours.limit_hit == "head_time"


def test_rule_4_a_block_that_drips() -> None:
    peer = Peer(head_seconds=30)
    frame = peer.headers(1, REQUEST)
    peer.feed(frame[:10], 100.0)
    peer.feed(frame[10:11], 130.0)
    assert peer.failure == ""
    peer.feed(frame[11:12], 130.5)
    assert peer.failure == "ENHANCE_YOUR_CALM"


def test_a_busy_connection_is_not_one_that_drips() -> None:
    peer = Peer(head_seconds=30)
    octets = peer.headers(1, POST) + b"".join(make_frame(PING, 0, 0, bytes(8)) for _ in range(1000))
    for at in range(0, len(octets), 20):
        peer.feed(octets[at : at + 20], at / 10)
    assert peer.failure == ""


def test_rule_6_hpack_bomb() -> None:
    peer = Peer()
    entry = peer.encoder.encode_block([*((*field, False) for field in REQUEST), (b"x", b"y" * 3000, False)])
    peer.feed(make_frame(HEADERS, END_HEADERS | END_STREAM, 1, entry))
    # 62 is the newest entry: 3033 octets of list for each octet of the block
    block = peer.block(REQUEST)
    peer.feed(make_frame(HEADERS, END_HEADERS | END_STREAM, 3, block + b"\xbe" * 22))
    assert [frame[2] for frame in frames_of(peer.took()) if frame[0] == HEADERS] == [3]
    peer.feed(make_frame(HEADERS, END_HEADERS | END_STREAM, 5, block + b"\xbe" * 16000))
    assert peer.failure == "ENHANCE_YOUR_CALM"
    assert peer.ours.limit_hit == "list"


def test_rules_7_and_8_cookie_crumbs_count_by_size() -> None:
    peer = Peer()
    peer.feed(peer.headers(1, [*REQUEST, *((b"cookie", b"c%d=1" % number) for number in range(1000))], True))
    head = next(event for event in peer.ours.take_events() if event[0] == "head")[2]
    assert len(head.fields) == 2
    peer.feed(peer.headers(3, [*REQUEST, *((b"cookie", b"a=1") for _ in range(1700))], True))
    assert (peer.names(), peer.ours.totals.http2_oversized_heads) == ([], 1)


def test_rule_7_number_of_fields() -> None:
    peer = Peer()
    peer.feed(peer.headers(1, [*REQUEST, *((b"x", b"") for _ in range(255))], True))
    assert peer.names() == ["head", "end"]
    peer.feed(peer.headers(3, [*REQUEST, *((b"x", b"") for _ in range(256))], True))
    assert (peer.names(), peer.ours.totals.http2_oversized_heads) == ([], 1)


def test_rule_7_heads_of_open_streams() -> None:
    """Twenty octets for each of 60 000: a stream that would add to 2 MiB of heads is refused, until others are over."""
    peer = Peer(glitch_burst=1e9)
    large = [*REQUEST, *([(b"x-large", b"~" * 3000)] * 20)]
    opened: list[int] = []
    sizes = 0
    for stream in range(1, 201, 2):
        frame = peer.headers(stream, large, True)
        assert stream == 1 or len(frame) < 50
        peer.feed(frame)
        heads = [event for event in peer.ours.take_events() if event[0] == "head"]
        opened += [event[1] for event in heads]
        sizes += sum(len(event[2].raw) for event in heads)
    assert 2 << 20 < sizes < (2 << 20) + 65536
    refused = resets_of(peer.took())
    assert len(opened) + len(refused) == 100 and {code for _, code in refused} == {REFUSED}
    assert peer.ours.totals.http2_refused_streams == len(refused)
    peer.ours.own_head(opened[0], 200, (), 0, True)
    peer.ours.release(opened[0])
    for stream, is_opened in ((201, True), (203, False)):
        peer.feed(peer.headers(stream, large, True))
        assert [event[1] for event in peer.events() if event[0] == "head"] == [stream] * is_opened
    assert peer.failure == ""


def test_rule_7_heads_of_responses() -> None:
    """An upstream does the same: a response that would add to 2 MiB of heads is refused, and no more is asked until others are over."""
    peer = Peer(False, {"max_streams": 200}, max_streams=200, glitch_burst=1e9)
    large = [*RESPONSE, *([(b"x-large", b"~" * 3000)] * 20)]
    for _ in range(100):
        peer.ours.open(request_head())
    peer.took()
    taken: list[int] = []
    sizes = 0
    for stream in range(1, 201, 2):
        peer.feed(peer.headers(stream, large))
        heads = [event for event in peer.ours.take_events() if event[0] == "head"]
        taken += [event[1] for event in heads]
        sizes += sum(len(event[2].raw) for event in heads)
    assert 2 << 20 < sizes < (2 << 20) + 65536
    refused = resets_of(peer.took())
    assert len(taken) + len(refused) == 100 and {code for _, code in refused} == {CALM}
    assert peer.ours.totals.http2_oversized_heads == len(refused)
    assert peer.ours.capacity == 0 and peer.ours.open(request_head()) is None
    # one of them is over, and its owner has left it
    peer.feed(peer.data(taken[0], b"", True))
    assert peer.ours.capacity == 0
    peer.ours.release(taken[0])
    for stream, is_taken in ((201, True), (203, False)):
        is_open = peer.ours.open(request_head()) is not None
        assert is_open == is_taken
        if is_open:
            peer.feed(peer.headers(stream, large))
            assert [event[1] for event in peer.events() if event[0] == "head"] == [stream]
    assert peer.failure == ""


def test_rule_34_a_request_whose_content_is_missing_takes_no_slot() -> None:
    """Nobody is told of it, and so nobody would release its stream."""
    peer = Peer(max_streams=2)
    for stream in (1, 3, 5):
        peer.feed(peer.headers(stream, [*POST, (b"content-length", b"5")], True))
    assert resets_of(peer.took()) == [(1, 1), (3, 1), (5, 1)]
    assert (peer.ours.take_events(), peer.ours.session.active) == ([], 0)


def write_when_told(peer: Peer) -> None:
    """More content than any window lets through."""
    peer.ours.call_with_events(lambda event: peer.ours.data(event[1], bytes(100_000)) if event[0] == "writable" else None)


def stalled(moved: int) -> Peer:
    """A response whose stream could move so many octets, and waits."""
    peer = Peer(settings={"window": 100}, stall_seconds=60)
    peer.feed(peer.headers(1, REQUEST, True), 1000.0)
    peer.ours.own_head(1, 200)
    assert peer.ours.data(1, bytes(100_000)) == 100
    write_when_told(peer)
    peer.feed(peer.window(1, moved), 1030.0)
    assert sum(len(frame[3]) for frame in frames_of(peer.took()) if frame[0] == DATA) == 100 + moved
    peer.ours.take_events()
    return peer


def test_rule_9_a_window_that_hardly_opens() -> None:
    peer = stalled(4095)
    peer.ours.session.now = 1059.0
    peer.ours.check_stalls()
    assert peer.took() == b""
    peer.ours.session.now = 1060.0
    peer.ours.check_stalls()
    assert resets_of(peer.took()) == [(1, CANCEL)]
    assert peer.events() == [("reset", 1, "CANCEL", False)]
    assert peer.ours.totals.http2_stalled_streams == 1
    peer = stalled(4096)
    peer.ours.session.now = 1060.0
    peer.ours.check_stalls()
    assert peer.took() == b""
    peer.ours.session.now = 1120.0
    peer.ours.check_stalls()
    assert resets_of(peer.took()) == [(1, CANCEL)]


def test_rule_9_the_connections_window_or_the_socket_does_not_move() -> None:
    for unread in (False, True):
        peer = Peer(settings={"window": 2**31 - 1}, stall_seconds=60)
        peer.feed(peer.headers(1, REQUEST, True), 1000.0)
        peer.ours.own_head(1, 200)
        peer.ours.count_unsent(unread)
        taken = peer.ours.data(1, bytes(100_000))
        assert 65535 <= taken < 90_000
        peer.ours.session.now = 1061.0
        peer.ours.check_stalls()
        # what was moved when it began to wait does not count
        assert peer.failure == "ENHANCE_YOUR_CALM"
        assert peer.ours.limit_hit == "stall"


def test_a_stream_that_had_all_of_it_taken_begins_anew() -> None:
    peer = stalled(200)
    peer.ours.call_with_events(lambda event: peer.ours.data(1, bytes(1000)) if event[0] == "writable" else None)
    peer.feed(peer.window(1, 1000), 1055.0)
    peer.took()
    peer.ours.session.now = 1065.0
    peer.ours.check_stalls()
    assert peer.ours.data(1, bytes(1000)) == 0
    peer.ours.session.now = 1124.0
    peer.ours.check_stalls()
    assert peer.took() == b""
    peer.ours.session.now = 1125.0
    peer.ours.check_stalls()
    assert resets_of(peer.took()) == [(1, CANCEL)]


@pytest.mark.parametrize("kind", ["ping", "settings", "reset"])
def test_rule_10_replies_that_are_not_read(kind: str) -> None:
    peer = Peer(max_queued_replies=50, glitch_burst=1e9, reset_burst=1e9)
    if kind == "reset":
        peer.feed(peer.headers(1, POST) + peer.reset(1))
        frame = peer.data(1, b"x")
    else:
        frame = make_frame(PING, 0, 0, bytes(8)) if kind == "ping" else make_frame(SETTINGS, 0, 0)
    peer.ours.take_sent()
    peer.ours.count_unsent(True)
    peer.ours.feed_all(frame * 50)
    assert "failed" not in peer.names()
    # what is read is forgotten
    assert len(frames_of(peer.ours.take_sent())) == 50
    peer.ours.feed_all(frame * 50)
    assert "failed" not in peer.names()
    peer.ours.feed_all(frame)
    assert peer.failure == "ENHANCE_YOUR_CALM"
    assert peer.ours.limit_hit == "replies"
    # and not even a GOAWAY is added
    assert goaways_of(peer.ours.take_sent()) == []


def test_rule_10_heads_that_are_not_read() -> None:
    """They wait for no room, and their streams are over: a stream that would add to 1 MiB of them is refused."""
    peer = Peer(max_queued_replies=5, glitch_burst=1e9)
    peer.ours.take_sent()
    peer.ours.count_unsent(True)
    head = [(b"x-large", bytes(range(33, 127)) * 150)]
    refused = 0
    for stream in range(1, 1001, 2):
        peer.ours.feed_all(peer.headers(stream, REQUEST, True))
        heads = [event[1] for event in peer.events() if event[0] == "head"]
        for number in heads:
            peer.ours.own_head(number, 200, head, 0, True)
            peer.ours.release(number)
        refused += not heads
        if refused:
            break
    unsent = peer.ours.take_sent()
    assert refused and 1048576 < len(unsent) < 1048576 + 20_000
    assert resets_of(unsent) == [(stream, REFUSED)]
    # what is read makes room
    peer.ours.feed_all(peer.headers(stream + 2, REQUEST, True))
    assert [event[1] for event in peer.events() if event[0] == "head"] == [stream + 2]
    assert peer.failure == ""


def test_rule_10_a_peer_that_reads_slowly_but_reads() -> None:
    peer = Peer(max_queued_replies=5)
    peer.feed(peer.headers(1, REQUEST, True))
    peer.ours.own_head(1, 200)
    peer.ours.count_unsent(True)
    for _ in range(100):
        # content always waits, but what stood before it was read
        peer.ours.take_sent()
        peer.ours.feed_all(make_frame(PING, 0, 0, bytes(8)) + peer.window(1, 1000) + peer.window(0, 1000))
        assert peer.ours.data(1, bytes(1000)) == 1000
    assert peer.failure == ""


@pytest.mark.parametrize(
    "frame",
    [
        make_frame(DATA, 0, 1),
        make_frame(DATA, PADDED, 1, b"\x01\0"),
        make_frame(PRIORITY, 0, 1, bytes(5)),
        make_frame(PRIORITY, 0, 99, bytes(5)),
        make_frame(PRIORITY_UPDATE, 0, 0, bytes(4)),
        make_frame(0xBE, 0xFF, 1, b"x"),
        make_frame(0xBE, 0xFF, 0),
        make_frame(SETTINGS, ACK, 0),
    ],
)
def test_rules_11_and_12_odd_frames_are_glitches(frame: bytes) -> None:
    peer = Peer(glitch_burst=100, glitches_per_second=0)
    peer.feed(peer.headers(1, POST))
    peer.feed(frame * 75)
    assert goaways_of(peer.took()) == []
    peer.feed(frame)
    # it is told politely first
    assert goaways_of(peer.took()) == [(2**31 - 1, 0)]
    peer.feed(frame * 24)
    assert "failed" not in peer.names()
    peer.feed(frame)
    assert peer.failure == "ENHANCE_YOUR_CALM"
    assert peer.ours.limit_hit == "glitches"


def test_rule_12_last_frames_that_are_empty_are_free() -> None:
    peer = Peer()
    peer.feed(b"".join(peer.headers(stream, POST) + peer.data(stream, b"", True) for stream in range(1, 101, 2)))
    assert peer.ours.glitches == 0


def test_rule_13_bytes_that_carry_nothing() -> None:
    frames = make_frame(PING, ACK, 0, bytes(8))
    peer = Peer(glitch_burst=1e9)
    count = 8 * 2**20 // 17
    fed = 0
    while fed < count - 10:
        peer.feed(frames * min(10_000, count - 10 - fed))
        fed += min(10_000, count - 10 - fed)
    assert "failed" not in peer.names()
    peer.feed(frames * 20)
    assert peer.failure == "ENHANCE_YOUR_CALM"
    assert peer.ours.limit_hit == "overhead"


def test_rule_14_streams_of_one_read() -> None:
    peer = Peer(max_streams=10)
    peer.ours.call_with_events(
        lambda event: (peer.ours.own_head(event[1], 204, is_end=True), peer.ours.release(event[1])) if event[0] == "head" else None
    )
    octets = b"".join(peer.headers(stream, REQUEST, True) for stream in range(1, 51, 2))
    used = peer.ours.feed(octets)
    assert 0 < used < len(octets)
    assert peer.ours.session.has_more
    assert [event[0] for event in peer.ours.take_events()].count("head") == 10
    assert peer.ours.feed_all(octets[used:]) == b""
    assert [event[0] for event in peer.ours.take_events()].count("head") == 15
    assert not peer.ours.session.has_more


def test_rule_14_streams_beyond_the_limit() -> None:
    peer = Peer(max_streams=10)
    peer.ours.feed(b"".join(peer.headers(stream, POST) for stream in range(1, 21, 2)))
    peer.took()
    # in turns of their own they are refused only
    for stream in range(21, 61, 2):
        peer.ours.feed(peer.headers(stream, REQUEST, True))
    assert [code for _, code in resets_of(peer.took())] == [REFUSED] * 20
    assert peer.ours.totals.http2_refused_streams == 20
    peer.ours.feed(b"".join(peer.headers(stream, REQUEST, True) for stream in range(61, 81, 2)))
    assert peer.failure == ""
    peer.ours.feed(b"".join(peer.headers(stream, REQUEST, True) for stream in range(81, 103, 2)))
    assert peer.failure == "ENHANCE_YOUR_CALM"
    assert peer.ours.limit_hit == "streams"


def test_rule_14_frames_of_one_read() -> None:
    peer = Peer()
    octets = make_frame(PING, 0, 0, bytes(8)) * 1001
    assert peer.ours.feed(octets) == 17_000
    assert peer.ours.session.has_more
    assert peer.ours.feed(octets[17_000:]) == 17
    assert not peer.ours.session.has_more


def opened_by_a_call(peer: Peer, octets: bytes) -> list[int]:
    """Feed all of it, and return how many streams each call opened."""
    counts = []
    while octets:
        octets = octets[peer.ours.feed(octets) :]
        counts.append([event[0] for event in peer.ours.take_events()].count("head"))
        assert peer.ours.session.has_more == bool(octets)
    return counts


def test_rule_14_streams_weigh_more_than_frames() -> None:
    peer = Peer()
    octets = b"".join(peer.headers(stream, REQUEST, True) for stream in range(1, 201, 2))
    counts = opened_by_a_call(peer, octets)
    assert sum(counts) == 100 and 30 < max(counts) < 40
    # a peer that opens one at a time gets its answers at once
    assert opened_by_a_call(Peer(), Peer().headers(1, REQUEST, True)) == [1]


def by_reference(stream: int) -> bytes:
    """A request of 57,000 octets in some 20: a field of 3,900 enters the table in stream 1, and is named again and again."""
    entered = b"\x40\x01x\x7f\xbd\x1d" + b"v" * 3900 if stream == 1 else b"\xbe"
    return make_frame(HEADERS, END_STREAM | END_HEADERS, stream, b"\x82\x87\x84\x01\x01a" + entered + b"\xbe" * 13)


def test_rule_14_a_head_weighs_what_it_is_and_not_what_it_takes() -> None:
    peer = Peer()
    octets = b"".join(by_reference(stream) for stream in range(1, 31, 2))
    assert opened_by_a_call(peer, octets) == [2] * 7 + [1]


def test_rule_14_streams_that_are_refused_in_several_turns_are_counted_together() -> None:
    peer = Peer(max_streams=10, glitch_burst=1e9)
    post = b"\x83\x87\x84\x01\x01a"
    peer.ours.feed_all(by_reference(1) + b"".join(make_frame(HEADERS, END_HEADERS, stream, post) for stream in range(3, 21, 2)))
    assert peer.ours.feed_all(b"".join(by_reference(stream) for stream in range(21, 41, 2))) == b""
    assert peer.failure == ""
    peer.ours.feed_all(b"".join(by_reference(stream) for stream in range(41, 63, 2)))
    assert peer.failure == "ENHANCE_YOUR_CALM"
    assert peer.ours.limit_hit == "streams"


def change_of_windows(size: int) -> bytes:
    return make_frame(SETTINGS, 0, 0, make_settings({"window": size}, False))


def test_rule_14_a_change_of_all_windows_weighs_what_it_changes() -> None:
    peer = Peer()
    peer.ours.feed_all(b"".join(peer.headers(stream, POST) for stream in range(1, 201, 2)))
    octets = (change_of_windows(1) + change_of_windows(2)) * 50
    assert peer.ours.feed(octets) == len(octets) // 10
    # what changes nothing weighs no more than any frame
    assert peer.ours.feed_all(octets[len(octets) // 10 :]) == b""
    assert peer.ours.feed(change_of_windows(2) * 900) == len(change_of_windows(2)) * 900


def test_rule_11_windows_that_change_again_and_again() -> None:
    peer = Peer(settings={"window": 100}, glitch_burst=10, glitches_per_second=0)
    assert peer.ours.glitches == 0
    peer.feed(change_of_windows(100) * 20)
    assert peer.ours.glitches == 0
    peer.feed((change_of_windows(1) + change_of_windows(2)) * 5)
    assert peer.ours.glitches == 10
    assert peer.failure == ""
    peer.feed(change_of_windows(1))
    assert peer.failure == "ENHANCE_YOUR_CALM"
    assert peer.ours.limit_hit == "glitches"


@pytest.mark.parametrize(("padding", "content"), [(255, 0), (255, 1), (0, 0), (254, 16384 - 255)])
def test_rule_16_padding(padding: int, content: int) -> None:
    peer = Peer()
    peer.feed(peer.headers(1, POST))
    peer.feed(make_frame(DATA, PADDED, 1, bytes([padding]) + bytes(content) + bytes(padding)))
    assert peer.ours.windows(1)[0] == 65535 - content - padding - 1
    assert sum(len(event[2]) for event in peer.ours.take_events() if event[0] == "data") == content


def listed(size: int) -> list[tuple[bytes, bytes]]:
    """Fields that are a list of so many octets with the request's own."""
    own = sum(len(name) + len(value) + 32 for name, value in REQUEST)
    fields, left = [], size - own
    while left > 5000:
        fields.append((b"x", b"\xee" * (4000 - 33)))
        left -= 4000
    return [*REQUEST, *fields, (b"x", b"\xee" * (left - 33))]


def large(peer: Peer, stream: int, size: int) -> bytes:
    block = peer.block(listed(size))
    pieces = [block[at : at + 16384] for at in range(0, len(block), 16384)]
    last = END_HEADERS if len(pieces) == 1 else 0
    frames = [make_frame(HEADERS, END_STREAM | last, stream, pieces[0])]
    frames += [make_frame(CONTINUATION, END_HEADERS if piece is pieces[-1] else 0, stream, piece) for piece in pieces[1:]]
    return b"".join(frames)


def test_rule_17_lists_that_are_too_large() -> None:
    peer = Peer(list_size=8192)
    peer.feed(large(peer, 1, 8192))
    assert peer.names() == ["head", "end"]
    peer.feed(large(peer, 3, 8193))
    assert peer.names() == []
    sent = frames_of(peer.took())
    assert sent[0][:3] == (HEADERS, END_STREAM | END_HEADERS, 3)
    assert (b":status", b"431", False) in peer.decoder.decode_block(sent[0][3])[0]
    assert peer.ours.session.active == 1
    # the table has followed: what comes next is understood
    peer.feed(peer.headers(5, [*REQUEST, (b"x", b"1")], True))
    assert peer.names() == ["head", "end"]
    peer.feed(large(peer, 7, 4 * 8192))
    assert peer.ours.limit_hit == ""
    peer.feed(large(peer, 9, 4 * 8192 + 1))
    assert peer.ours.limit_hit == "list"
    assert peer.failure == "ENHANCE_YOUR_CALM"


def test_rule_17_a_request_that_goes_on_is_stopped() -> None:
    peer = Peer(list_size=1024)
    fields = [*POST, (b"x", b"y" * 1000)]
    peer.feed(peer.headers(1, fields) + peer.data(1, b"abc"))
    kinds = [frame[:3] for frame in frames_of(peer.sent)]
    assert kinds == [(HEADERS, END_STREAM | END_HEADERS, 1), (RST_STREAM, 0, 1)]
    assert resets_of(peer.sent) == [(1, 0)]
    assert peer.ours.session.active == 0


def test_rule_17_responses_and_trailers_that_are_too_large() -> None:
    peer = client(list_size=1024)
    peer.feed(peer.headers(1, [*RESPONSE, (b"x", b"y" * 1000)], True))
    assert peer.events() == [("reset", 1, "ENHANCE_YOUR_CALM", False)]
    peer.feed(peer.headers(5, RESPONSE) + peer.headers(5, [(b"x", b"y" * 1000)], True))
    assert peer.names() == ["head", "reset"]
    assert resets_of(peer.took()) == [(1, CALM), (5, CALM)]


@pytest.mark.parametrize("is_server", [True, False], ids=["server", "client"])
def test_rule_18_any_order_leaves_nothing(is_server: bool) -> None:
    """What a peer and the owner of a stream do, in each order; a block is made in the moment in which it comes."""
    acts = {
        "head": lambda peer: peer.feed(peer.headers(1, POST if is_server else RESPONSE)),
        "content": lambda peer: peer.feed(peer.data(1, bytes(1000), end=True)),
        "window": lambda peer: peer.feed(peer.window(1, 1000)),
        "reset": lambda peer: peer.feed(peer.reset(1)),
        "goaway": lambda peer: peer.feed(make_frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0))),
        "our reset": lambda peer: peer.ours.reset(1),
        "release": lambda peer: peer.ours.release(1),
    }
    for order in itertools.permutations(acts):
        peer = Peer(is_server)
        peer.ours.give_room(1, 0)
        if not is_server:
            peer.ours.open(request_head(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"), False)
        known = not is_server
        for name in [*order, "release"]:
            # content before its head ends the connection, and nobody hears of the stream
            if known or name not in ("our reset", "release"):
                acts[name](peer)
            known = known or "head" in peer.names()
        assert (peer.arena.budget.held, peer.ours.session.active) == (0, 0), order


# ---- 2.2 flow control


def closed_by_all(peer: Peer, streams: range) -> None:
    for number in streams:
        peer.feed(peer.headers(number, REQUEST, True) + peer.reset(number))
        peer.ours.release(number)


DROPPED = ("we reset", "going away", "forgotten")


@pytest.mark.parametrize("what", ["taken", "padding", "kept", "ended", "peer reset", "released", *DROPPED])
def test_rule_19_the_connection_is_credited_for_everything(what: str) -> None:
    peer = Peer(glitch_burst=1e9, reset_burst=1e9)
    stream = 1
    peer.feed(peer.headers(1, POST, what == "ended"))
    if what == "we reset":
        peer.ours.reset(1)
    elif what == "peer reset":
        peer.feed(peer.reset(1))
    elif what == "released":
        peer.ours.release(1)
    elif what == "kept":
        peer.ours.give_room(1, 0)
    elif what == "forgotten":
        peer.feed(peer.reset(1))
        closed_by_all(peer, range(3, 403, 2))
    elif what == "going away":
        peer.ours.goaway()
        stream = 99
    octets = peer.data(stream, bytes(1000))
    if what == "padding":
        octets = make_frame(DATA, PADDED, stream, b"\x0a" + bytes(989) + bytes(10))
    peer.feed(octets * 40)
    assert peer.failure == ""
    assert peer.ours.windows()[:2] == (2**30 - 40_000, 2**30)
    if what in DROPPED:
        # an eighth of the window is announced, whatever became of the stream
        peer.took()
        octets = peer.data(stream, bytes(16384))
        for _ in range(2**27 // 16384):
            peer.ours.feed(octets)
        assert [(number, increment >= 2**27) for number, increment in updates_of(peer.took())] == [(0, True)]


def test_rule_20_a_stream_that_is_stuck_holds_no_other() -> None:
    peer = Peer()
    peer.ours.give_room(1, 0)
    peer.feed(peer.headers(1, POST) + peer.headers(3, POST))
    for _ in range(3):
        peer.feed(peer.data(1, bytes(16384)))
    peer.feed(peer.data(1, bytes(65535 - 3 * 16384)))
    assert peer.ours.windows(1)[0] == 0
    for _ in range(100):
        peer.feed(peer.data(3, bytes(16384)))
    assert peer.failure == ""
    assert sum(increment for stream, increment in updates_of(peer.took()) if stream == 3) >= 100 * 16384 - 65535


def test_rule_21_windows_grow_with_use() -> None:
    peer = Peer(start=False, max_window=1 << 20)
    peer.feed(PREFACE + make_frame(SETTINGS, 0, 0) + make_frame(SETTINGS, ACK, 0), 0.1)
    peer.feed(peer.headers(1, POST))
    now, sizes = 1.0, []
    for _ in range(400):
        left = min(peer.ours.windows(1)[0], 16384)
        now += 0.001
        peer.feed(peer.data(1, bytes(left)), now)
        sizes.append(peer.ours.windows(1)[1])
    assert sizes == sorted(sizes)
    assert sizes[-1] == 1 << 20
    # 65535, 262140, 1048560, 1048576: all of it comes within half of the round trip
    assert peer.ours.totals.http2_window_growths == 3


@pytest.mark.parametrize("taken_at_once", [True, False])
def test_rule_21_a_window_grows_unless_its_taker_is_the_slower_one(taken_at_once: bool) -> None:
    peer = Peer(start=False, max_window=1 << 20)
    peer.feed(PREFACE + make_frame(SETTINGS, 0, 0) + make_frame(SETTINGS, ACK, 0), 0.1)
    peer.ours.give_room(1, 0)
    peer.feed(peer.headers(1, POST))
    first = peer.ours.windows(1)[1]
    now = 1.0
    for _ in range(100):
        now += 0.001
        waited = 0
        while (left := min(peer.ours.windows(1)[0], 16384)) and waited < 40_000:
            peer.feed(peer.data(1, bytes(left)), now)
            waited += left
        # what comes is more than is taken in the same turn; a fast taker has all of it in the next
        peer.ours.consume(1, waited if taken_at_once or not waited else waited - 1)
    assert (peer.ours.windows(1)[1] > first) is taken_at_once


def test_rule_22_credit_only_for_what_was_taken() -> None:
    peer = Peer()
    peer.ours.give_room(1, 10_000)
    peer.feed(peer.headers(1, POST))
    for _ in range(4):
        peer.feed(peer.data(1, bytes(16000)))
    assert updates_of(peer.took()) == []
    peer.ours.consume(1, 22_767)
    assert updates_of(peer.took()) == []
    peer.ours.consume(1, 1)
    assert updates_of(peer.took()) == [(1, 32_768)]


def test_rule_22_no_growth_while_the_budget_is_short() -> None:
    peer = Peer(start=False)
    peer.feed(PREFACE + make_frame(SETTINGS, 0, 0) + make_frame(SETTINGS, ACK, 0), 0.1)
    peer.arena.budget.set_limit(0)
    peer.feed(peer.headers(1, [*POST, (b"content-length", b"1000000")]), 1.0)
    assert peer.ours.windows(1)[1] == 65535
    for _ in range(60):
        peer.feed(peer.data(1, bytes(16384)))
    assert peer.ours.windows(1)[1] == 65535


def test_rule_22_a_connection_that_begins_while_the_budget_is_short_has_small_windows() -> None:
    for limit, window in ((0, 16384), (1 << 20, 65535)):
        arena = Arena()
        arena.budget.set_limit(limit)
        for is_server in (True, False):
            peer = Peer(is_server, arena=arena)
            if is_server:
                peer.feed(peer.headers(1, POST))
            else:
                peer.ours.open(request_head())
                peer.feed(peer.headers(1, RESPONSE))
            assert peer.ours.windows(1)[:2] == (window, window)
        # a key that is lower stays
        arena.budget.set_limit(0)
        peer = Peer(arena=arena, initial_window=1000)
        peer.feed(peer.headers(1, POST))
        assert peer.ours.windows(1)[1] == 1000


def used_much(peer: Peer, stream: int) -> int:
    """Open a stream and send on it as fast as the windows allow; return the size of its window."""
    peer.feed(peer.headers(stream, POST))
    for _ in range(100):
        peer.feed(peer.data(stream, bytes(min(peer.ours.windows(stream)[0], 16384))), peer.ours.session.now + 0.001)
    return peer.ours.windows(stream)[1]


def quick_peer(arena: Arena | None = None) -> Peer:
    peer = Peer(start=False, max_window=1 << 20, arena=arena)
    peer.feed(PREFACE + make_frame(SETTINGS, 0, 0) + make_frame(SETTINGS, ACK, 0), 0.1)
    peer.ours.session.now = 1.0
    return peer


def test_rule_22_windows_grow_by_half_of_the_budget_and_by_a_quarter_on_one_connection() -> None:
    arena = Arena()
    arena.budget.set_limit(1 << 20)
    peers = [quick_peer(arena) for _ in range(3)]
    sizes = [[used_much(peer, stream) for stream in (1, 3)] for peer in peers]
    assert sizes == [[65535 + (1 << 18), 65535], [65535 + (1 << 18), 65535], [65535, 65535]]
    assert arena.budget.promised == 1 << 19


@pytest.mark.parametrize("how", ["end", "reset", "our reset", "failure"])
def test_rule_22_what_can_come_no_more_is_promised_no_more(how: str) -> None:
    peer = quick_peer()
    peer.arena.budget.set_limit(1 << 20)
    assert used_much(peer, 1) == 65535 + (1 << 18)
    if how == "end":
        peer.feed(peer.data(1, b"", True))
    elif how == "reset":
        peer.feed(peer.reset(1))
    elif how == "our reset":
        peer.ours.reset(1, CANCEL)
    else:
        peer.feed(make_frame(DATA, 0, 0, b""))
    assert peer.arena.budget.promised == 0
    if how != "failure":
        assert used_much(peer, 3) == 65535 + (1 << 18)


def test_rule_22_announced_content_is_let_in_as_far_as_windows_may_grow() -> None:
    peer = quick_peer()
    peer.arena.budget.set_limit(1 << 20)
    for stream in (1, 3):
        peer.feed(peer.headers(stream, [*POST, (b"content-length", b"1000000")]))
    assert [peer.ours.windows(stream)[1] for stream in (1, 3)] == [65535 + (1 << 18), 65535]
    peer.feed(peer.reset(1))
    assert peer.arena.budget.promised == 0


def test_content_that_is_announced_is_let_in_at_once() -> None:
    peer = Peer()
    peer.feed(peer.headers(1, [*POST, (b"content-length", b"200000")]) + peer.headers(3, [*POST, (b"content-length", b"10000000")]))
    peer.feed(peer.headers(5, [*POST, (b"content-length", b"65535")]))
    assert updates_of(peer.took()) == [(1, 200_000 - 65535), (3, (1 << 20) - 65535)]


def test_rule_23_no_update_for_each_frame_nor_at_the_end() -> None:
    peer = Peer()
    peer.feed(peer.headers(1, POST))
    for _ in range(10):
        peer.feed(peer.data(1, bytes(3000)))
    assert updates_of(peer.took()) == []
    peer.feed(peer.data(1, bytes(3000)))
    assert updates_of(peer.took()) == [(1, 33_000)]
    peer.feed(peer.data(1, bytes(16384)) + peer.data(1, bytes(16384), True))
    # the last frame makes none
    assert updates_of(peer.took()) == []


def test_rule_24_their_window_changes() -> None:
    peer = Peer(settings={"window": 1000})
    peer.feed(peer.headers(1, REQUEST, True) + peer.headers(3, REQUEST, True))
    for stream in (1, 3):
        peer.ours.own_head(stream, 200)
    assert peer.ours.data(1, bytes(5000)) == 1000
    peer.feed(make_frame(SETTINGS, 0, 0, make_settings({"window": 100})))
    assert (peer.ours.windows(1)[2], peer.ours.windows(3)[2]) == (-900, 100)
    peer.ours.take_events()
    peer.feed(peer.window(1, 900))
    assert peer.names() == []
    peer.feed(make_frame(SETTINGS, 0, 0, make_settings({"window": 600})))
    # who waits is told, and who does not is not
    assert [event for event in peer.events() if event[0] != "ready"] == [("writable", 1)]
    assert peer.ours.data(1, bytes(5000)) == 500
    peer.feed(make_frame(SETTINGS, 0, 0, make_settings({"window": 2**31 - 1})))
    assert peer.failure == ""
    peer.feed(peer.window(3, 1) + make_frame(SETTINGS, 0, 0, make_settings({"window": 2**31 - 1})))
    assert resets_of(peer.took()) == [(3, FLOW_CONTROL)]


def test_rule_24_settings_that_overflow_a_window() -> None:
    peer = Peer(settings={"window": 100})
    peer.feed(peer.headers(1, REQUEST, True) + peer.window(1, 100))
    peer.feed(make_frame(SETTINGS, 0, 0, make_settings({"window": 2**31 - 1})))
    assert peer.failure == "FLOW_CONTROL_ERROR"


@pytest.mark.parametrize(("window", "before", "after"), [(16384, 65535, 16384), (100_000, 100_000, 100_000)])
def test_rule_24_our_window_counts_from_the_acknowledgement_on(window: int, before: int, after: int) -> None:
    def sent(size: int, acknowledge: bool) -> str:
        peer = Peer(start=False, initial_window=window)
        peer.feed(PREFACE + make_frame(SETTINGS, 0, 0) + peer.headers(1, POST))
        peer.ours.give_room(1, 0)
        if acknowledge:
            peer.feed(make_frame(SETTINGS, ACK, 0))
        while size:
            peer.feed(peer.data(1, bytes(min(size, 16384))))
            size -= min(size, 16384)
        resets = resets_of(peer.sent)
        assert peer.failure == ""
        return str(resets)

    assert sent(before, False) == "[]"
    assert sent(before + 1, False) == f"[(1, {FLOW_CONTROL})]"
    assert sent(after, True) == "[]"
    assert sent(after + 1, True) == f"[(1, {FLOW_CONTROL})]"


def test_rule_25_updates_that_are_wrong() -> None:
    for increment, code in ((0, PROTOCOL), (2**31 - 1, FLOW_CONTROL)):
        peer = Peer()
        peer.feed(peer.headers(1, POST) + peer.window(1, increment) + peer.headers(3, POST))
        assert resets_of(peer.took()) == [(1, code)]
        assert peer.names() == ["head", "reset", "head"]
        assert peer.ours.glitches == 1
        peer.feed(peer.window(0, increment))
        assert peer.failure == ("PROTOCOL_ERROR" if increment == 0 else "FLOW_CONTROL_ERROR")
    peer = Peer()
    peer.feed(peer.window(0, 2**31 - 1 - 65535))
    assert peer.failure == ""


def test_rules_27_and_28_streams_write_in_turn() -> None:
    peer = Peer(settings={"window": 1 << 20})
    order: list[int] = []
    left = dict.fromkeys((1, 3, 5), 100_000)

    def write(event: tuple[object, ...]) -> None:
        if event[0] != "writable":
            return
        stream = event[1]
        assert isinstance(stream, int)
        taken = peer.ours.data(stream, bytes(left[stream]), True)
        assert 0 < taken <= 16384
        order.append(stream)
        left[stream] -= taken

    for stream in left:
        peer.feed(peer.headers(stream, REQUEST, True))
        peer.ours.own_head(stream, 200)
    peer.ours.call_with_events(write)
    # the first takes the whole window of the connection, and the others wait behind it
    left[1] -= peer.ours.data(1, bytes(left[1]))
    left[3] -= peer.ours.data(3, bytes(left[3]))
    left[5] -= peer.ours.data(5, bytes(left[5]))
    assert left == {1: 100_000 - 65535, 3: 100_000, 5: 100_000}
    while any(left.values()):
        peer.feed(peer.window(0, 40_000))
    assert order[:6] == [1, 3, 5, 1, 3, 5]
    assert [peer.ours.state(stream) for stream in left] == [ENDED] * 3


def test_a_stream_that_asks_again_in_its_turn_waits_once() -> None:
    peer = Peer(settings={"window": 1 << 20})
    for stream in (1, 3):
        peer.feed(peer.headers(stream, REQUEST, True))
        peer.ours.own_head(stream, 200)
    assert peer.ours.data(1, bytes(70_000)) == 65535
    assert peer.ours.data(3, bytes(70_000)) == 0
    taken: list[tuple[int, int]] = []

    def write(event: tuple[object, ...]) -> None:
        if event[0] == "writable":
            stream = event[1]
            assert isinstance(stream, int)
            taken.extend((stream, peer.ours.data(stream, bytes(20_000))) for _ in range(3))

    peer.ours.call_with_events(write)
    peer.feed(peer.window(0, 32768))
    assert taken == [(1, 16384), (1, 0), (1, 0), (3, 16384), (3, 0), (3, 0)]
    peer.ours.call_with_events(None)
    peer.ours.reset(1)
    peer.ours.reset(3)
    peer.ours.take_events()
    peer.feed(peer.window(0, 1000))
    assert peer.events() == []


def test_rule_27_the_socket_says_how_much() -> None:
    peer = Peer(settings={"window": 1 << 20})
    peer.feed(peer.headers(1, REQUEST, True) + peer.window(0, 1 << 20))
    peer.ours.own_head(1, 200)
    peer.ours.count_unsent(True)
    taken = peer.ours.data(1, bytes(1 << 20))
    assert 65536 - 16384 <= taken <= 65536 + 16384
    peer.ours.serve()
    assert "writable" not in peer.names()
    peer.ours.take_sent()
    peer.ours.serve()
    assert peer.names() == ["writable"]


@pytest.mark.parametrize("piece", [1000, 16384, 40_000])
def test_rule_29_what_waits_is_consumed_from_its_beginning(piece: int) -> None:
    content = bytes(number * number >> 8 & 255 for number in range(1 << 20))
    peer = Peer(initial_window=len(content))
    peer.ours.give_room(1, 0)
    peer.feed(peer.headers(1, POST))
    for at in range(0, len(content), 16384):
        peer.feed(peer.data(1, content[at : at + 16384]))
    assert peer.ours.kept(1) == content and len(content) <= peer.arena.budget.held < 2 * len(content)
    taken = bytearray()
    while kept := len(peer.ours.kept(1)):
        taken += peer.ours.consume(1, min(kept, piece))
    assert taken == content and peer.failure == ""
    assert peer.arena.budget.held == 0


def test_rule_31_a_reset_waits_for_nothing() -> None:
    peer = Peer(settings={"window": 0})
    peer.feed(peer.headers(1, REQUEST, True))
    peer.ours.own_head(1, 200)
    assert peer.ours.data(1, b"x" * 100) == 0
    peer.ours.reset(1)
    assert [frame[0] for frame in frames_of(peer.took())] == [HEADERS, RST_STREAM]
    peer.feed(peer.window(1, 1000) + make_frame(SETTINGS, 0, 0, make_settings({"window": 1000})))
    assert "writable" not in peer.names()
    assert not peer.ours.waits(1)


# ---- 2.3 messages


def test_rule_34_content_length_against_the_end() -> None:
    length = (b"content-length", b"3")
    for octets, is_good in (
        (lambda peer: peer.headers(1, [*POST, length], True), False),
        (lambda peer: peer.headers(1, [*POST, (b"content-length", b"0")], True), True),
        (lambda peer: peer.headers(1, [*POST, length]) + peer.data(1, b"ab", True), False),
        (lambda peer: peer.headers(1, [*POST, length]) + peer.data(1, b"abc", True), True),
        (lambda peer: peer.headers(1, [*POST, length]) + peer.data(1, b"abcd"), False),
        (lambda peer: peer.headers(1, [*POST, length]) + peer.data(1, b"abc") + peer.data(1, b"", True), True),
        (lambda peer: peer.headers(1, [*POST, length]) + peer.headers(1, [(b"x", b"y")], True), False),
        (lambda peer: peer.headers(1, [*POST, length]) + peer.data(1, b"abc") + peer.headers(1, [(b"x", b"y")], True), True),
        (lambda peer: peer.headers(1, [*POST, length]) + make_frame(DATA, PADDED | END_STREAM, 1, b"\x02abc\0\0"), True),
    ):
        peer = Peer()
        peer.feed(octets(peer))
        assert resets_of(peer.took()) == ([] if is_good else [(1, PROTOCOL)])
        assert ("end" in peer.names()) == is_good


@pytest.mark.parametrize(
    ("head", "fields"),
    [
        (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", [(b":status", b"200"), (b"content-length", b"5")]),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", [(b":status", b"204"), (b"content-length", b"5")]),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", [(b":status", b"304"), (b"content-length", b"5")]),
    ],
)
def test_rule_34_responses_without_content(head: bytes, fields: list[tuple[bytes, bytes]]) -> None:
    for end in ("head", "data", "content"):
        peer = Peer(False)
        peer.ours.open(request_head(head))
        peer.took()
        peer.feed(peer.headers(1, fields, end == "head"))
        if end != "head":
            peer.feed(peer.data(1, b"hello" if end == "content" else b"", True))
        assert peer.names() == (["head", "reset"] if end == "content" else ["head", "end"])


def test_rule_39_nothing_is_invented() -> None:
    pair = Pair()
    pair.client.open(request_head())
    pair.settle()
    pair.server.head(1, response_head(b"HTTP/1.1 200 OK\r\nGrpc-Status: 12\r\n\r\n"), True)
    assert [frame[:2] for frame in frames_of(pair.server.take_sent())] == [(HEADERS, END_HEADERS | END_STREAM)]


def test_rule_41_interim_heads() -> None:
    peer = client()
    interim = [(b":status", b"103"), (b"link", b"x")]
    peer.feed(b"".join(peer.headers(1, interim) for _ in range(64)) + peer.headers(1, RESPONSE, True))
    assert peer.names() == ["head"] * 65 + ["end"]
    peer.feed(b"".join(peer.headers(5, interim) for _ in range(64)))
    assert peer.names() == ["head"] * 64
    peer.feed(peer.headers(5, interim))
    assert peer.events() == [("reset", 5, "ENHANCE_YOUR_CALM", False)]
    peer.feed(peer.headers(3, [(b":status", b"103")], True))
    assert peer.events() == [("reset", 3, "PROTOCOL_ERROR", False)]
    for octets in (lambda peer: peer.headers(1, [(b":status", b"101")]), lambda peer: peer.data(1, b"x")):
        peer = client()
        peer.feed(octets(peer))
        assert peer.events() == [("reset", 1, "PROTOCOL_ERROR", False)]


def test_rule_42_an_early_answer() -> None:
    pair = Pair()
    pair.client.open(request_head(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"), False)
    pair.settle()
    pair.server.own_head(1, 413, (), 0, True)
    pair.server.reset(1, 0)
    pair.server.release(1)
    pair.client.data(1, bytes(1000))
    pair.settle()
    told = [plain(event) for event in pair.client.take_events() if event[0] != "ready"]
    assert told == [("head", 1, 413, [(b"content-length", b"0")], True), ("end", 1), ("reset", 1, "NO_ERROR", True)]
    assert pair.server.glitches == pair.client.glitches == 0
    assert pair.server.session.active == 0


def test_rule_43_what_came_before_a_reset_is_delivered() -> None:
    peer = client()
    peer.ours.give_room(3, 0)
    peer.feed(peer.headers(3, RESPONSE) + peer.data(3, b"whole", True) + peer.reset(3, 0))
    assert peer.names() == ["head", "reset"]
    assert peer.ours.consume(3, 5) == b"whole"
    assert peer.events() == [("end", 3)]
    peer.ours.give_room(1, 0)
    peer.feed(peer.headers(1, RESPONSE) + peer.data(1, b"part") + peer.reset(1, 2))
    assert peer.events()[1:] == [("reset", 1, "INTERNAL_ERROR", True)]
    assert peer.ours.consume(1, 4) == b"part"
    assert peer.events() == []


def test_rule_44_codes_are_told_as_they_are() -> None:
    peer = Peer()
    for stream, code in ((1, 13), (3, 0), (5, 0xFFFFFFFF)):
        peer.feed(peer.headers(stream, POST) + peer.reset(stream, code))
    assert [event[2] for event in peer.events() if event[0] == "reset"] == ["HTTP_1_1_REQUIRED", "NO_ERROR", "0xffffffff"]


# ---- 2.4 connections


def test_rule_48_streams_before_the_peers_settings() -> None:
    peer = Peer(False, start=False, max_streams=1000)
    assert peer.ours.capacity == 100
    for _ in range(100):
        assert peer.ours.open(request_head()) is not None
    assert peer.ours.open(request_head()) is None
    peer.feed(make_frame(SETTINGS, 0, 0))
    assert peer.ours.capacity == 900
    assert peer.names() == ["ready"]


@pytest.mark.parametrize(("theirs", "ours", "capacity"), [(5, 100, 5), (1000, 100, 100), (0, 100, 0), (None, 7, 7)])
def test_how_many_streams_we_open(theirs: int | None, ours: int, capacity: int) -> None:
    peer = Peer(False, None if theirs is None else {"max_streams": theirs}, max_streams=ours)
    opened = 0
    while peer.ours.open(request_head()) is not None:
        opened += 1
    assert opened == capacity
    if capacity:
        peer.feed(peer.headers(1, RESPONSE, True))
        assert peer.ours.capacity == 1
    # fewer than are open is legal
    peer.feed(make_frame(SETTINGS, 0, 0, make_settings({"max_streams": 0})))
    assert peer.ours.capacity == 0


def test_rule_50_a_goaway_ends_streams_above_its_last() -> None:
    peer = client()
    peer.feed(make_frame(GOAWAY, 0, 0, struct.pack(">II", 3, 2) + b"debug"))
    assert peer.events() == [("reset", 5, "REFUSED_STREAM", True), ("going_away", 3, "INTERNAL_ERROR")]
    assert peer.ours.capacity == 0
    assert peer.ours.open(request_head()) is None
    peer.feed(peer.headers(1, RESPONSE, True))
    assert peer.names() == ["head", "end"]
    # a second one may only be lower
    peer.feed(make_frame(GOAWAY, 0, 0, struct.pack(">II", 2**31 - 1, 0)))
    assert peer.events() == [("going_away", 3, "NO_ERROR")]
    peer.feed(make_frame(GOAWAY, 0, 0, struct.pack(">II", 1, 0)))
    assert peer.events() == [("reset", 3, "REFUSED_STREAM", True), ("going_away", 1, "NO_ERROR")]


def test_rule_50_a_clients_goaway_is_no_end() -> None:
    peer = Peer()
    peer.feed(peer.headers(1, POST) + make_frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0)) + peer.data(1, b"x", True))
    assert peer.names() == ["head", "going_away", "data", "end"]


def test_rule_51_a_polite_goaway() -> None:
    peer = Peer()
    peer.feed(peer.headers(1, REQUEST, True))
    peer.ours.drain()
    sent = frames_of(peer.took())
    assert [frame[0] for frame in sent] == [GOAWAY, PING]
    assert struct.unpack(">II", sent[0][3]) == (2**31 - 1, 0)
    # what was on its way is served
    peer.feed(peer.headers(3, REQUEST, True))
    assert peer.names() == ["head", "end", "head", "end"]
    peer.feed(make_frame(PING, ACK, 0, sent[1][3]))
    assert goaways_of(peer.took()) == [(3, 0)]
    # and what comes now is not seen, but decoded
    peer.feed(peer.headers(5, [*POST, (b"x-new", b"1")]) + peer.data(5, b"x") + peer.window(5, 3) + peer.reset(5))
    assert (peer.names(), peer.took()) == ([], b"")
    peer.ours.own_head(1, 200, is_end=True)
    peer.feed(peer.headers(7, [*POST, (b"x-new", b"1")]))
    assert peer.failure == ""
    peer.ours.drain()
    peer.ours.goaway()
    peer.ours.finish_drain()
    assert goaways_of(peer.took()) == []


def test_rule_51_without_an_answer_to_the_ping() -> None:
    peer = Peer()
    peer.ours.drain()
    peer.took()
    peer.ours.finish_drain()
    assert goaways_of(peer.took()) == [(0, 0)]


def test_a_client_goes_away_at_once() -> None:
    peer = client()
    peer.ours.drain()
    assert goaways_of(peer.took()) == [(0, 0)]
    assert peer.ours.capacity == 0
    peer.feed(peer.headers(1, RESPONSE, True))
    assert peer.names() == ["head", "end"]


def test_rule_55_numbers_are_taken_in_the_order_of_heads() -> None:
    pair = Pair()
    for _ in range(5):
        pair.client.open(request_head())
    assert [frame[2] for frame in frames_of(pair.client.take_sent())] == [1, 3, 5, 7, 9]


def test_rule_56_a_slot_is_taken_until_the_peer_can_know() -> None:
    peer = Peer(False, {"max_streams": 3})
    for _ in range(3):
        peer.ours.open(request_head())
    peer.took()
    peer.ours.reset(1)
    sent = frames_of(peer.took())
    assert [frame[0] for frame in sent] == [RST_STREAM, PING]
    assert peer.ours.capacity == 0
    # another one asks when the first has been answered
    peer.ours.reset(3)
    assert [frame[0] for frame in frames_of(peer.took())] == [RST_STREAM]
    peer.feed(make_frame(PING, ACK, 0, sent[1][3]))
    assert peer.ours.capacity == 1
    asked = frames_of(peer.took())
    assert [frame[0] for frame in asked] == [PING]
    peer.feed(make_frame(PING, ACK, 0, asked[0][3]))
    assert peer.ours.capacity == 2
    assert peer.took() == b""


def test_rule_56_or_for_a_second() -> None:
    peer = Peer(False, {"max_streams": 1})
    peer.ours.open(request_head())
    peer.ours.reset(1)
    peer.ours.session.now = 1.0
    assert peer.ours.capacity == 0
    peer.ours.session.now = 1.1
    assert peer.ours.capacity == 1


def test_rule_56_not_when_the_peer_has_ended() -> None:
    peer = Peer(False, {"max_streams": 1})
    peer.ours.open(request_head(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"), False)
    peer.feed(peer.headers(1, RESPONSE, True))
    peer.took()
    peer.ours.reset(1)
    assert [frame[0] for frame in frames_of(peer.took())] == [RST_STREAM]
    assert peer.ours.capacity == 1


CLOSED_BY = ("we reset", "peer reset", "ended", "forgotten", "skipped", "idle")


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        # in the order of CLOSED_BY: nothing, a stream error, a connection error, or "glitch"
        ("headers", ("", "stream", "STREAM_CLOSED", "glitch", "PROTOCOL_ERROR", "head")),
        ("data", ("", "stream", "STREAM_CLOSED", "glitch", "glitch", "PROTOCOL_ERROR")),
        ("window", ("", "", "", "", "", "PROTOCOL_ERROR")),
        ("reset", ("", "", "", "", "", "PROTOCOL_ERROR")),
        ("priority", ("glitch", "glitch", "glitch", "glitch", "glitch", "glitch")),
    ],
)
@pytest.mark.parametrize("closed", range(6), ids=CLOSED_BY)
def test_rule_57_frames_of_streams_that_are_not_open(frame: str, expected: tuple[str, ...], closed: int) -> None:
    peer = Peer(reset_burst=1e9)
    stream = 401
    if closed < 4:
        peer.feed(peer.headers(401, POST))
        if closed == 0:
            peer.ours.reset(401)
        elif closed == 2:
            peer.ours.own_head(401, 200, is_end=True)
            peer.feed(peer.data(401, b"", True))
        else:
            peer.feed(peer.reset(401))
        peer.ours.release(401)
    if closed == 3:
        closed_by_all(peer, range(403, 403 + 2 * 129, 2))
    elif closed == 4:
        peer.feed(peer.headers(403, POST))
    elif closed == 5:
        peer.feed(peer.headers(399, POST))
    before = peer.ours.glitches
    peer.took()
    peer.names()
    made = {
        "headers": peer.headers(stream, POST, True),
        "data": peer.data(stream, b"x"),
        "window": peer.window(stream, 1),
        "reset": peer.reset(stream),
        "priority": make_frame(PRIORITY, 0, stream, bytes(5)),
    }[frame]
    peer.feed(made)
    said = expected[closed]
    sent, told = peer.took(), peer.events()
    if said in ("", "glitch", "head"):
        assert sent == b""
        assert [event[0] for event in told] == (["head", "end"] if said == "head" else [])
    elif said == "stream":
        assert resets_of(sent) == [(stream, CLOSED)]
        assert told == []
    else:
        assert [event[:2] for event in told] == [("failed", said)]
    assert peer.ours.glitches - before == (1 if said in ("glitch", "stream") else 0)


def test_rule_57_half_closed() -> None:
    peer = Peer()
    for stream, octets in ((1, peer.data(1, b"x")), (3, peer.headers(3, [(b"x", b"y")], True))):
        peer.feed(peer.headers(stream, REQUEST, True) + octets)
        assert resets_of(peer.took()) == [(stream, CLOSED)]
    assert peer.names() == ["head", "end", "reset"] * 2


def test_numbers_of_streams() -> None:
    for octets in (
        lambda peer: peer.headers(2, REQUEST),
        lambda peer: peer.headers(5, REQUEST) + peer.headers(3, REQUEST),
        lambda peer: peer.data(2, b"x"),
        lambda peer: peer.reset(2),
        lambda peer: peer.window(2, 1),
    ):
        peer = Peer()
        peer.feed(octets(peer))
        assert peer.failure == "PROTOCOL_ERROR"
    for stream in (2, 7):
        peer = client()
        peer.feed(peer.headers(stream, RESPONSE))
        assert peer.failure == "PROTOCOL_ERROR"


def test_rule_59_a_table_that_shrinks() -> None:
    peer = Peer()
    peer.feed(peer.headers(1, REQUEST, True))
    values = make_settings({"table_size": 0}) + make_settings({"table_size": 100})
    peer.feed(make_frame(SETTINGS, 0, 0, values))
    peer.took()
    peer.ours.own_head(1, 200, is_end=True)
    # smallest first, then the one that holds; then `:status: 200`
    assert frames_of(peer.took())[0][3] == bytes.fromhex("203f4588")
    for update in (b"\x82\x20", b"\x3f\xe2\x1f\x82"):
        peer.feed(make_frame(HEADERS, END_HEADERS | END_STREAM, 3, update))
        assert peer.failure == "COMPRESSION_ERROR"
        peer = Peer()


@pytest.mark.parametrize("dropped", ["refused", "reset", "left", "malformed", "forgotten"])
def test_rule_61_every_block_is_decoded(dropped: str) -> None:
    peer = Peer(max_streams=1, reset_burst=1e9)
    new = (b"x-new", b"value")
    if dropped == "refused":
        peer.feed(peer.headers(1, POST) + peer.headers(3, [*POST, new]))
        peer.ours.reset(1)
        peer.ours.release(1)
    elif dropped == "reset":
        peer.feed(peer.headers(1, POST))
        peer.ours.reset(1)
        peer.ours.release(1)
        peer.feed(peer.headers(1, [new], True))
    elif dropped == "left":
        peer.feed(peer.headers(5, POST))
        peer.ours.goaway()
        peer.feed(peer.headers(7, [*POST, new]))
    elif dropped == "malformed":
        peer.feed(peer.headers(1, [*POST, new, (b"te", b"gzip")]))
    else:
        for stream in range(1, 301, 2):
            peer.feed(peer.headers(stream, REQUEST, True) + peer.reset(stream))
            peer.ours.release(stream)
        peer.feed(peer.headers(1, [*POST, new], True))
    peer.ours.take_events()
    if dropped == "left":
        # the stream that goes on gets its trailers from the same table
        peer.feed(peer.headers(5, [new], True))
        assert peer.events() == [("trailers", 5, b"x-new: value\r\n"), ("end", 5)]
        return
    peer.feed(peer.headers(1001, [*REQUEST, new], True))
    head = next(event for event in peer.events() if event[0] == "head")
    assert new in head[3]


@pytest.mark.parametrize("is_server", [True, False])
def test_rule_63_what_is_an_error_of_the_connection(is_server: bool) -> None:
    for frame, code in (
        (make_frame(SETTINGS, 0, 0, struct.pack(">HI", 2, 2)), "PROTOCOL_ERROR"),
        (make_frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 2**31)), "FLOW_CONTROL_ERROR"),
        (make_frame(SETTINGS, 0, 0, struct.pack(">HI", 5, 16383)), "PROTOCOL_ERROR"),
        (make_frame(SETTINGS, 0, 0, bytes(5)), "FRAME_SIZE_ERROR"),
        (make_frame(SETTINGS, 0, 0, struct.pack(">HI", 3, 1) * 33), "ENHANCE_YOUR_CALM"),
        (make_frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4)), "PROTOCOL_ERROR"),
        (make_frame(CONTINUATION, END_HEADERS, 1, b"\x82"), "PROTOCOL_ERROR"),
        (make_frame(HEADERS, 0, 1, b"\x82") + make_frame(PING, 0, 0, bytes(8)), "PROTOCOL_ERROR"),
        (make_frame(HEADERS, 0, 1, b"\x82") + make_frame(CONTINUATION, END_HEADERS, 3, b"\x82"), "PROTOCOL_ERROR"),
        (make_frame(HEADERS, 0, 1, b"\x82") + make_frame(0xBE, 0, 1), "PROTOCOL_ERROR"),
        (make_frame(HEADERS, END_HEADERS, 1, b"\x80"), "COMPRESSION_ERROR"),
        (make_frame(DATA, 0, 0), "PROTOCOL_ERROR"),
        (make_frame(0xBE, 0, 0, bytes(16385)), "FRAME_SIZE_ERROR"),
    ):
        peer = Peer(is_server)
        if not is_server:
            peer.ours.open(request_head())
            peer.took()
        peer.feed(frame)
        assert peer.failure == code
        assert len(goaways_of(peer.took())) == 1
    # what a client may say and a server may not
    for frame in (make_frame(PRIORITY_UPDATE, 0, 0, bytes(4)), make_frame(SETTINGS, 0, 0, struct.pack(">HI", 2, 1))):
        peer = Peer(is_server)
        peer.feed(frame)
        assert peer.failure == ("" if is_server else "PROTOCOL_ERROR")


def test_settings_that_are_not_acknowledged() -> None:
    peer = Peer(start=False)
    peer.ours.session.now = 10.0
    peer.ours.check_settings(10)
    assert peer.failure == ""
    peer.ours.session.now = 10.5
    peer.ours.check_settings(10)
    assert peer.failure == "SETTINGS_TIMEOUT"
    assert goaways_of(peer.ours.take_sent()) == [(0, SETTINGS_TIMEOUT)]
    peer = Peer()
    peer.ours.session.now = 100.0
    peer.ours.check_settings(10)
    assert peer.failure == ""


def test_nothing_is_told_of_a_stream_that_was_released() -> None:
    peer = client(stall_seconds=60)
    for stream in (1, 3, 5):
        assert peer.ours.data(3, bytes(70_000)) == (65535 if stream == 1 else 0)
        peer.ours.release(stream)
    peer.feed(peer.headers(1, [(b":status", b"103")]) + peer.headers(1, RESPONSE) + peer.data(1, b"x", True))
    peer.feed(peer.window(0, 100_000) + peer.window(3, 100_000))
    peer.feed(make_frame(GOAWAY, 0, 0, struct.pack(">II", 3, 0)) + peer.reset(3))
    assert peer.events() == [("going_away", 3, "NO_ERROR")]
