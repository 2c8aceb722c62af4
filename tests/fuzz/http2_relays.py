"""The conversations of `relays` in which somebody speaks HTTP/2: whole, in pieces and byte by byte, each request gets the same response.

What `client` operations say is one text, see `http2_wire`, or the requests of an HTTP/1 client. Each `upstream` operation is a
response that both protocols can give: a line with the status, lines with fields, an empty line and content. A request gets the one
that its path asks for, when it is complete: in which order they come makes no difference then.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from fuzz.cutting import every_way
from fuzz.deciding import DecidingByContent
from fuzz.exchanges import ExchangeScene, Http2ExchangeClient, check_end, check_permits
from fuzz.http2_agreement import DROPPED, Pair, Said, pairs_of
from fuzz.http2_peers import Http2Peer
from fuzz.http2_wire import ACK, PREFACE, SETTINGS, Fields, FrameMaker
from fuzz.operations import Operation
from fuzz.scene import Client, Peer
from soth_mitm._dataplane.http2.frame import make_frame

# What a client may say and have everything answered, if each frame may stand where it does
HARMLESS = frozenset(b"HTDPYW")
NAME = re.compile(rb"[a-z][a-z0-9-]*")
Pieces = Callable[[bytes], list[bytes]]


class Response:
    """A response that an input asks for."""

    def __init__(self, data: bytes) -> None:
        head, _, self.content = data.partition(b"\n\n")
        status, *lines = head.split(b"\n")
        self.status = int(status) if re.fullmatch(rb"[2-5][0-9][0-9]", status) else 200
        pairs = [line.partition(b":") for line in lines]
        self.fields: Fields = [
            (name, value.strip(b" \t"))
            for name, _, value in pairs
            if NAME.fullmatch(name) and name not in DROPPED and not set(value) & set(b"\r\0") and not name.startswith(b"www-")
        ]
        if self.status in (204, 304):
            self.content = b""

    def as_text(self, method: str) -> bytes:
        """Write it as HTTP/1."""
        fields = self.fields if self.status in (204, 304) else [*self.fields, (b"content-length", b"%d" % len(self.content))]
        head = b"HTTP/1.1 %d X\r\n" % self.status + b"".join(name + b": " + value + b"\r\n" for name, value in fields) + b"\r\n"
        return head if method == "HEAD" else head + self.content

    def as_operations(self, number: int, method: str) -> list[bytes]:
        """Write it as operations of a peer that speaks HTTP/2."""
        stream = bytes((48 + (number + 1) // 2,))
        content = b"" if method == "HEAD" else self.content
        head = b"\n".join([b"%d" % self.status, *(name + b":" + value for name, value in self.fields)])
        return [b"H" + stream + (b"@" if content else b"A") + head, *([b"D" + stream + b"A" + content] if content else [])]


class Http2RelayScene(ExchangeScene):
    """One client, and upstreams that give the `responses`."""

    def __init__(self, settings: bytes, responses: list[Response], pieces: Pieces) -> None:
        # a long body is streamed, dials succeed at once, and limits that end connections are not those of small numbers
        plain = bytes((settings[0] & ~36, settings[1], settings[2] & ~16, *settings[3:6], settings[6] & 7, settings[7]))
        super().__init__(plain, DecidingByContent.kind(settings[7]))
        self._responses = responses
        self._pieces = pieces
        self._answered: set[tuple[int, int]] = set()

    def new_client(self) -> Client:
        return Http2ExchangeClient(self, bare=True) if self.http2 & 1 else super().new_client()

    def say(self, peer: Peer, data: bytes) -> None:
        """Let the client say something, and the upstreams answer what is complete."""
        for piece in self._pieces(data):
            peer.transport.peer_sends(piece)
            self.settle()
            while any([self._answer(number, upstream) for number, upstream in enumerate(self.upstreams)]):
                pass

    def _answer(self, which: int, peer: Peer) -> bool:
        """Answer what has come whole; tell whether there was something."""
        if peer.transport.closing:
            return False
        found = False
        for number, message in enumerate(list(peer.requests.messages)):
            if not message.complete or (which, number) in self._answered:
                continue
            found = True
            self._answered.add((which, number))
            response = self._responses[len(message.head.path) % len(self._responses)]
            if isinstance(peer, Http2Peer):
                for operation in response.as_operations(message.number, message.head.method):  # type: ignore[attr-defined]
                    peer.speak(operation, False)
            else:
                peer.transport.peer_sends(response.as_text(message.head.method))
            self.settle()
        return found


def run(settings: bytes, operations: list[Operation]) -> None:
    """Test one input."""
    said = [operation.data for operation in operations if operation.verb == "client"]
    responses = [Response(operation.data) for operation in operations if operation.verb == "upstream"][:12] or [Response(b"204")]
    is_http2 = bool(settings[6] & 1)
    text = b"".join(said)
    if is_http2:
        maker = FrameMaker(b"http")
        begin = PREFACE + make_frame(SETTINGS, 0, 0) + make_frame(SETTINGS, ACK, 0)
        text = begin + b"".join(map(maker.make, said)) + maker.make(b"")
    three, single = every_way(text, settings[4], settings[5])
    ways: list[Pieces] = [
        lambda data: [data],
        lambda data: [piece for piece in three if piece],
        lambda data: [piece for piece in single if piece],
    ]
    whole, *others = [relay(settings, responses, text, pieces) for pieces in ways]
    harmless = is_http2 and all(data[0] in HARMLESS for data in said if data)
    for other in others:
        compare(whole, other, harmless and not whole[1] and not other[1])


def relay(settings: bytes, responses: list[Response], text: bytes, pieces: Pieces) -> tuple[list[Pair], bool, list[Said]]:
    """Relay in these pieces; return what the client asked and got, whether anybody complained, and what upstreams were sent."""
    scene = Http2RelayScene(settings, responses, pieces)
    with scene.loop:
        client = scene.client(0)
        scene.say(client, text)
        got = list(pairs_of(client))
        complains = has_complained(scene.peers)
        if not complains:
            for pair in got:
                is_over = client.transport.closing or client.transport.eof_written or pair.request.switches
                assert pair.response or is_over or not pair.request.complete, f"no answer to {pair.request}, though every upstream gave one"
        scene.wind_down()
    check_permits(scene)
    check_end(scene)
    sent = [pair.request for peer in scene.upstreams for pair in pairs_of(peer)]
    return got, complains, sent


def has_complained(peers: list[Peer]) -> bool:
    """Tell whether anything was reset, refused or broken: then it depends on the pieces what was done before."""
    for peer in peers:
        if peer.requests.fault or peer.responses.fault or peer.transport.aborted:
            return True
        if peer.http2 is not None:
            streams = [*peer.http2.said.streams.values(), *peer.http2.heard.streams.values()]
            if peer.http2.heard.goaways or any(stream.reset is not None for stream in streams):
                return True
    return False


def compare(whole: tuple[list[Pair], bool, list[Said]], other: tuple[list[Pair], bool, list[Said]], harmless: bool) -> None:
    """What is complete in both is the same in both; where nothing went wrong, that is everything."""
    for one, two in zip(whole[0], other[0], strict=False):
        if one.request.complete and one.request == two.request and one.response and two.response:
            pair: Any = one.response, two.response
            assert not harmless or pair[0] == pair[1], f"another split, another response: {pair}"
    if harmless:
        assert len(whole[0]) == len(other[0]), "another split, and other requests"
        first, second = (sorted(said for said in sent if said.complete) for sent in (whole[2], other[2]))
        assert first == second, f"another split, and upstreams were sent something else: {first} {second}"
