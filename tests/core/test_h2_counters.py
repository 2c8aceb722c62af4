"""What sessions of HTTP/2 count, for all connections together."""

from collections.abc import Callable

import pytest

from soth_mitm._dataplane.http2.limits import LIMIT_NAMES
from support.sessions import ACK, GOAWAY, PING, REQUEST, Peer, frames_of, goaways_of, request_head, resets_of

CANCEL, REFUSED, NO_NAME = 8, 7, 14


def test_streams() -> None:
    peer = Peer()
    totals = peer.ours.totals
    for stream in (1, 3, 5):
        peer.feed(peer.headers(stream, REQUEST, True))
    assert (totals.http2_streams, totals.http2_streams_total) == (3, 3)
    peer.ours.own_head(1, 204, is_end=True)
    assert (totals.http2_streams, totals.http2_streams_total) == (2, 3)
    peer.ours.reset(3, CANCEL)
    assert (totals.http2_streams, totals.http2_streams_total) == (1, 3)
    # the connection ends with those that are open
    peer.feed(b"\0\0\0\x08\0\0\0\0\0")
    assert peer.failure and (totals.http2_streams, totals.http2_streams_total) == (0, 3)


def test_streams_of_ours() -> None:
    peer = Peer(False)
    peer.ours.open(request_head())
    peer.ours.open(request_head())
    assert (peer.ours.totals.http2_streams, peer.ours.totals.http2_streams_total) == (2, 2)
    peer.feed(peer.reset(1))
    assert (peer.ours.totals.http2_streams, peer.ours.totals.http2_streams_total) == (1, 2)


def counted(counts: list[int]) -> dict[int, int]:
    """Those that are not zero."""
    return {place: count for place, count in enumerate(counts) if count}


def test_resets_received() -> None:
    peer = Peer()
    for stream, code in ((1, CANCEL), (3, CANCEL), (5, 0), (7, 13), (9, 14), (11, 2**32 - 1)):
        peer.feed(peer.headers(stream, REQUEST, True) + peer.reset(stream, code))
    # of a stream that is over already
    peer.feed(peer.reset(1, CANCEL))
    assert counted(peer.ours.totals.http2_resets_received) == {0: 1, CANCEL: 2, 13: 1, NO_NAME: 2}
    assert counted(peer.ours.totals.http2_resets_sent) == {}


def test_resets_sent() -> None:
    peer = Peer(max_streams=2)
    for stream in (1, 3, 5):
        peer.feed(peer.headers(stream, REQUEST, True))
    peer.ours.reset(1, CANCEL)
    peer.ours.reset(3, 99)
    assert len(resets_of(peer.took())) == 3
    assert counted(peer.ours.totals.http2_resets_sent) == {CANCEL: 1, REFUSED: 1, NO_NAME: 1}


def test_glitches() -> None:
    peer = Peer()
    peer.feed(b"\0\0\0\x04\x01\0\0\0\0" * 2)
    assert peer.ours.totals.http2_glitches == peer.ours.glitches > 0


def drained(peer: Peer) -> None:
    peer.ours.drain()
    (ping,) = [frame for frame in frames_of(peer.took()) if frame[0] == PING]
    peer.feed(b"\0\0\x08\x06" + bytes([ACK]) + b"\0\0\0\0" + ping[3])
    assert GOAWAY in [frame[0] for frame in frames_of(peer.took())]


@pytest.mark.parametrize(
    ("happens", "drains", "idle", "codes", "limits"),
    [
        (drained, 1, 0, {}, []),
        (lambda peer: peer.ours.goaway(0), 0, 1, {}, []),
        (lambda peer: peer.feed(b"\0\0\0\x08\0\0\0\0\0"), 0, 0, {6: 1}, []),
        (lambda peer: peer.feed(peer.headers(1, REQUEST, True) + peer.reset(1)), 0, 0, {}, ["resets"]),
    ],
    ids=["drain", "idle", "fault", "limit"],
)
def test_goaways(happens: Callable[[Peer], None], drains: int, idle: int, codes: dict[int, int], limits: list[str]) -> None:
    peer = Peer(reset_burst=0)
    happens(peer)
    totals = peer.ours.totals
    assert (totals.http2_drains, totals.http2_idle_ends, counted(totals.http2_goaways_sent)) == (drains, idle, codes)
    assert [LIMIT_NAMES[limit] for limit in counted(totals.http2_goaways_of_limits)] == limits
    assert max(LIMIT_NAMES) < len(totals.http2_goaways_of_limits)
    assert drains or idle or goaways_of(peer.took())
