"""A WebSocket through the proxy: any split, its receiver reads the messages that the handler let pass, and nothing that breaks the rules.

Input: a byte of options, one for the limit, two that cut the rest, then the operations of `websocket_streams`: what one side sends. With
FILTERS the handler decides by what a message holds, at once or later; else it looks on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from fuzz import websocket_streams
from fuzz.cutting import every_way
from fuzz.exchanges import ExchangeScene, acceptance
from fuzz.plain_websocket import CUT_LONG, TEXT, Plain, Rules, read_stream
from fuzz.relays import RecordingClient, RecordingUpstream
from fuzz.scene import Peer
from fuzz.scripted_handler import ScriptedHandler
from fuzz.websocket_streams import LARGE, Act, Composer, compose
from soth_mitm import ChunkDecision, StreamChunk

WORDS = websocket_streams.WORDS
# options
CLIENT, COMPRESSED, FORGETS, FILTERS, SLOW, PINGS = 1, 2, 4, 8, 16, 32
LIMITS = (0, 2, 3)  # of `scene.BODY_LIMITS`: 65536, 100, 4096
MOST = (65536, 100, 4096)
# times these, a message inflates to; more is not read any more
INFLATED = 8
OPENING = (
    b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%b\r\n"
)
OPENED = b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %b\r\n%b\r\n"
DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate%b\r\n"
Message = tuple[int, bytes]


def decide(payload: bytes, is_whole: bool) -> ChunkDecision:
    """Decide by what a message holds."""
    match sum(payload) % 8:
        case 0:
            return ChunkDecision.DROP
        case 1 if is_whole:
            return ChunkDecision.replace(b"<" + payload + b">")
        case 2 if is_whole:
            return ChunkDecision.replace(payload, b"again")
        case 3 if len(payload) % 4 == 0:
            return ChunkDecision.END
        case _:
            return ChunkDecision.PASS


class Watching(ScriptedHandler):
    """Looks on, and keeps what it was shown."""

    def __init__(self, loop: Any, names: tuple[str, ...]) -> None:
        super().__init__(loop, names)
        self.shown: list[Message] = []
        self.held: list[asyncio.Future[None]] = []
        self.on_stream_chunk = self._show

    def _show(self, chunk: StreamChunk) -> None:
        if chunk.frame_kind != "websocket_close":
            self.shown.append((TEXT if chunk.frame_kind == "websocket_text" else TEXT + 1, chunk.payload))


class Deciding(Watching):
    """Decides at once."""

    def filter_stream_chunk(self, chunk: StreamChunk) -> Any:
        return decide(chunk.payload, not chunk.truncated)


class DecidingLater(Watching):
    """Decides when it is let go."""

    async def filter_stream_chunk(self, chunk: StreamChunk) -> Any:
        future: asyncio.Future[None] = self._loop.create_future()
        self.held.append(future)
        await future
        return decide(chunk.payload, not chunk.truncated)


class SocketScene(ExchangeScene):
    """One client, one upstream, and a WebSocket between them."""

    def __init__(self, options: int, limit: int) -> None:
        kind = Watching if not options & FILTERS else DecidingLater if options & SLOW else Deciding
        # all hooks but on_request, on_response, on_stream_end; the limit; dials succeed at once
        super().__init__(bytes((16, LIMITS[limit % 3], 0, 7)), kind)

    def _connect(self) -> Peer:
        return self.attach(RecordingUpstream)

    def new_client(self) -> RecordingClient:
        return RecordingClient(self)

    def let_go(self) -> None:
        """Run until nothing is held any more."""
        self.settle()
        while self.handler.held:
            held, self.handler.held = self.handler.held, []
            for future in held:
                if not future.done():
                    future.set_result(None)
            self.settle()


def run(data: bytes) -> None:
    """Test one input."""
    if len(data) < 5:
        return
    options, limit, first, second = data[:4]
    from_client, takeover = bool(options & CLIENT), not options & FORGETS
    sent = compose(data[4:], SmallComposer(from_client, not takeover))
    most = MOST[limit % 3]
    rules = Rules(from_client, bool(options & COMPRESSED), takeover, CUT_LONG, LARGE)
    plain = read_stream(sent, rules)
    expected, is_ended = messages_of(plain), False
    if options & FILTERS:
        expected, is_ended = decided(expected, most)
    runs = [relay(options, limit, pieces) for pieces in ([sent], *every_way(sent, first, second))]
    # a ping that breaks the rules overtakes what is held as a good one does, and ends it undecided; where decisions wait for it, also
    # one that comes in the same read as the message before it
    is_overtaken = bool(options & (PINGS | SLOW)) and bool(plain.wrong)
    for heard, code in runs:
        known = messages_of(read_stream(heard, rules))
        left = expected[: len(known)] if is_overtaken else expected
        if not options & FILTERS and options & COMPRESSED and any(len(payload) > most * INFLATED for _, payload in messages_of(plain)):
            # who looks on gives up on what inflates to so much, and looks at nothing behind it
            assert sent.startswith(heard) or code
            continue
        check(heard, code, sent, plain, left, is_ended and (code == 1008 or not is_overtaken), rules, bool(options & FILTERS))
    if is_overtaken:
        return
    assert len({tuple(messages_of(read_stream(heard, rules))) for heard, code in runs if code != 1009}) <= 1, "it depends on the split"


class SmallComposer(Composer):
    """Composes no messages that take long."""

    def octets(self, verb: int, bits: int, payload: bytes) -> bytes:
        if verb == Act.ZEROS:
            return self.frame(0x80 | 0x40 | 2, self.compressed(bytes(bits * 40) + payload))
        return super().octets(verb, bits, payload)


def messages_of(plain: Plain) -> list[Message]:
    """Return the messages of a stream."""
    return [(kind, payload or b"") for name, kind, payload, *_ in plain.events if name == "message"]


def decided(messages: list[Message], most: int) -> tuple[list[Message], bool]:
    """Return what is left of messages, and whether one of them ends it all."""
    left: list[Message] = []
    for kind, payload in messages:
        shown = payload[:most]
        if kind == TEXT:
            shown = shown.decode("utf-8", "ignore").encode()
        decision = decide(shown, len(payload) <= most)
        if decision == ChunkDecision.END:
            return left, True
        if decision == ChunkDecision.PASS:
            left.append((kind, payload))
        for each in decision.payloads:
            assert isinstance(each, bytes)
            left.append((kind, each))
    return left, False


def relay(options: int, limit: int, pieces: list[bytes]) -> tuple[bytes, int]:
    """Relay in pieces; what the receiver got, and the code of the Close of ours that it was sent; 0: none."""
    scene = SocketScene(options, limit)
    extension = b""
    if options & COMPRESSED:
        extension = DEFLATE % (b"; client_no_context_takeover; server_no_context_takeover" if options & FORGETS else b"")
    with scene.loop:
        client: Any = scene.client(0)
        client.transport.peer_sends(OPENING % extension)
        scene.settle()
        upstream: Any = scene.upstreams[0]
        opened = OPENED % (acceptance(upstream.requests.messages[-1:]), extension)
        upstream.transport.peer_sends(opened)
        scene.settle()
        assert client.heard.startswith(b"HTTP/1.1 101 "), client.heard
        sender, receiver = (client, upstream) if options & CLIENT else (upstream, client)
        before, told = len(receiver.heard), len(sender.heard)
        for piece in pieces:
            sender.transport.peer_sends(piece)
            if options & PINGS:
                # what comes while something is held waits, or overtakes it
                scene.settle()
            else:
                scene.let_go()
        scene.let_go()
        sender.transport.peer_ends()
        scene.let_go()
        # what the sender is told is a Close of ours; silence would be the cause of another
        heard, close = receiver.heard[before:], sender.heard[told:]
        scene.wind_down()
    return heard, code_of(close, not options & CLIENT) if close else 0


def code_of(close: bytes, masked: bool) -> int:
    """Return the code of a Close that is all that a side was told."""
    rules = Rules(masked, may_compress=False, takeover=True, when_long=CUT_LONG, most=LARGE)
    ((name, _, payload, *_),) = read_stream(close, rules).events
    assert name == "close" and payload
    return int.from_bytes(payload[:2], "big")


def check(heard: bytes, code: int, sent: bytes, plain: Plain, expected: list[Message], is_ended: bool, rules: Rules, filters: bool) -> None:
    """What arrived breaks no rule, and is what the handler let pass."""
    got = read_stream(heard, rules)
    undecodable = frozenset({"deflate_data", "too_long"})
    if filters or not got.wrong & undecodable:
        assert not got.wrong, f"the receiver is sent what breaks the rules: {set(got.wrong)}"
    arrived = messages_of(got)
    if code == 1009:
        assert arrived == expected[: len(arrived)], "other messages"
        return
    if not filters and plain.wrong & undecodable:
        # a message that cannot be decoded is no business of one who looks on
        assert sent.startswith(heard) or code
        return
    assert arrived == expected, f"{arrived} instead of {expected}"
    if is_ended:
        assert code == 1008, code
    elif plain.wrong:
        assert code in (1002, 1007), (code, plain.wrong)
    else:
        assert code == 0, code
        if not filters:
            close = [end for name, *_, end in plain.events if name == "close"]
            assert heard == (sent[: close[0]] if close else sent), "not what was sent"


def seeds() -> Iterator[bytes]:
    """Yield the inputs to begin with: those of the streams, for each kind of handler."""
    for seed in websocket_streams.seeds():
        if seed[0] & websocket_streams.RAW:
            continue
        base = seed[0] & (CLIENT | COMPRESSED | FORGETS)
        for more in (0, FILTERS, FILTERS | SLOW, FILTERS | SLOW | PINGS):
            yield bytes((base | more, seed[1] % 3)) + seed[2:]
