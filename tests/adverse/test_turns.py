"""One peer's bytes, however many they are and whatever they ask for, are worked off in many turns of the loop: others have theirs between.

What is counted is what was done within one read, not how long it took.
"""

from __future__ import annotations

import gzip

import pytest

from fuzz.conversations import finals
from fuzz.exchanges import ExchangeScene, check_end
from fuzz.scene import Peer

MOST_REQUESTS = 16
MOST_PIECES = 512
MOST_FRAMES = 64
FRAMED_AT_ONCE = 2048
ROUTED = 32
ASK = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"


def say(peer: Peer, data: bytes) -> None:
    """Let a peer say something, and the loop read it once."""
    peer.transport.peer_sends(data)
    peer.transport.pump()


def answered(scene: ExchangeScene, data: bytes) -> None:
    """Let a client ask, and its upstream answer, read once."""
    say(scene.client(0), ASK)
    scene.settle()
    say(scene.upstreams[0], data)


def end(scene: ExchangeScene) -> None:
    """See that everything ends as it should."""
    scene.wind_down()
    check_end(scene)


def frames_told(scene: ExchangeScene) -> int:
    """Return how many frames the handler was shown."""
    return sum(name == "on_stream_chunk" for name, _, _ in scene.handler.told)


def test_requests_that_are_answered_here() -> None:
    scene = ExchangeScene(bytes((0, 0, 0, ROUTED)))
    with scene.loop:
        client = scene.client(0)
        say(client, b"GET / HTTP/1.1\r\nHost: no.example\r\n\r\n" * 500)
        assert len(finals(client.responses)) == MOST_REQUESTS
        scene.settle()
        assert [message.head.status for message in finals(client.responses)] == [403] * 500
        end(scene)


def test_requests_before_the_end_of_their_client_are_all_answered() -> None:
    scene = ExchangeScene(bytes((0, 0, 0, ROUTED)))
    with scene.loop:
        client = scene.client(0)
        client.transport.peer_sends(b"GET / HTTP/1.1\r\nHost: no.example\r\n\r\n" * 100)
        client.transport.peer_ends()
        scene.settle()
        assert len(finals(client.responses)) == 100
        end(scene)


@pytest.mark.parametrize("ends", [False, True])
def test_chunks_of_one_byte(ends: bool) -> None:
    """Whether or not the upstream ends behind them; that is told when they have been relayed."""
    scene = ExchangeScene(b"\0")
    with scene.loop:
        answered(scene, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 9000 + b"0\r\n\r\n")
        (message,) = finals(scene.clients[0].responses)
        assert len(message.content) <= MOST_PIECES
        if ends:
            scene.upstreams[0].transport.peer_ends()
        scene.settle()
        assert message.complete and len(message.content) == 9000
        end(scene)


def test_what_comes_after_turns_that_were_too_short() -> None:
    """The upstream is read again once what lay here was relayed."""
    scene = ExchangeScene(b"\0")
    with scene.loop:
        answered(scene, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 9000)
        scene.settle()
        (message,) = finals(scene.clients[0].responses)
        assert len(message.content) == 9000 and not message.complete
        say(scene.upstreams[0], b"1\r\ny\r\n0\r\n\r\n")
        scene.settle()
        assert message.complete and message.content[-1:] == b"y"
        end(scene)


@pytest.mark.parametrize(
    ("kind", "frame"),
    [("text/event-stream", b"data:\n\n"), ("application/x-ndjson", b"1\n"), ("application/grpc", b"\0\0\0\0\0")],
)
def test_frames_that_are_tiny(kind: str, frame: bytes) -> None:
    scene = ExchangeScene(b"\0")
    count = 60_000 // len(frame)
    with scene.loop:
        answered(
            scene,
            b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (kind.encode(), count * len(frame)) + frame * count,
        )
        assert 0 < frames_told(scene) <= MOST_FRAMES + FRAMED_AT_ONCE // len(frame)
        scene.settle()
        assert frames_told(scene) == count
        (message,) = finals(scene.clients[0].responses)
        assert message.complete
        end(scene)


def test_frames_that_little_is_decoded_to() -> None:
    """A thousand times as much; the upstream is not read on before they have been shown."""
    scene = ExchangeScene(b"\0")
    packed = gzip.compress(b"1\n" * 30_000)
    with scene.loop:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(
            packed
        )
        answered(scene, head + packed)
        assert 0 < frames_told(scene) <= MOST_FRAMES + FRAMED_AT_ONCE // 2
        scene.settle()
        assert frames_told(scene) == 30_000
        end(scene)


def test_interim_responses() -> None:
    scene = ExchangeScene(b"\0")
    with scene.loop:
        answered(scene, b"HTTP/1.1 103 E\r\n\r\n" * 3000)
        scene.settle()
        messages = scene.clients[0].responses.messages
        assert [message.head.status for message in messages] == [103] * 64 + [502]
        end(scene)
