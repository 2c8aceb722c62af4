"""One client's bytes and the upstreams' answers, in any pieces: both sides are sent the same, and the handler sees the same.

Input: see `operations`. What ``client`` says is one stream, each ``upstream`` is the answer to one request, given when the request is
complete. The settings are those of `scene.settings_of`, and two bytes that cut. Where somebody speaks HTTP/2, see `http2_relays`.
With hooks that decide about responses the handler decides by what it is shown, see `DecidingByContent`.
"""

from __future__ import annotations

from typing import Any

from fuzz import http2_relays
from fuzz.conversations import SWITCHED, Stream, finals, request_stream, response_stream
from fuzz.cutting import every_way
from fuzz.deciding import DecidingByContent
from fuzz.exchanges import CREDENTIALS, HTTP2_CLIENT, HTTP2_UPSTREAMS, ExchangeClient, ExchangeScene, check_end, check_permits
from fuzz.exchanges import WORDS as WORDS
from fuzz.exchanges import mutate as mutate
from fuzz.exchanges import seeds as seeds
from fuzz.http2_agreement import Said, pairs_of
from fuzz.operations import parse
from fuzz.scene import Peer, Upstream
from fuzz.scripted_handler import DECIDING

MOST_ANSWERS = 12


class RecordingUpstream(Upstream):
    """An upstream that remembers what it was sent, byte by byte."""

    heard = b""

    def hear(self, data: bytes) -> None:
        self.heard += data
        super().hear(data)


class RecordingClient(ExchangeClient):
    """A client that remembers what it was sent, byte by byte."""

    heard = b""

    def hear(self, data: bytes) -> None:
        self.heard += data
        super().hear(data)


class RelayScene(ExchangeScene):
    """One client; upstreams that answer with what is left of `answers`."""

    def __init__(self, settings: bytes, answers: list[bytes], cut: tuple[int, int] | None) -> None:
        # a long body is streamed, since whether a connection goes on after its 413 depends on what of it had come; a hook that fails cuts
        # nothing; dials succeed at once
        super().__init__(bytes((settings[0] & ~36, settings[1], settings[2] & ~16)) + settings[3:], DecidingByContent.kind(settings[7]))
        self._answers = iter(answers)
        self._cut = cut

    def _connect(self) -> Peer:
        return self.attach(RecordingUpstream)

    def new_client(self) -> RecordingClient:
        return RecordingClient(self)

    def pieces(self, data: bytes, bytewise: bool) -> list[bytes]:
        """Return `data` as it arrives in this run."""
        if self._cut is None:
            return [data]
        three, single = every_way(data, *self._cut)
        return [piece for piece in (single if bytewise else three) if piece]

    def say(self, peer: Peer, data: bytes, bytewise: bool) -> None:
        """Let a peer say something, and the others what follows from it."""
        for piece in self.pieces(data, bytewise):
            peer.transport.peer_sends(piece)
            self.settle()
            if peer in self.clients:
                self.answer(bytewise)

    def answer(self, bytewise: bool) -> None:
        """Answer each request that is complete, until there is none."""
        asked = True
        while asked:
            asked = False
            for peer in list(self.upstreams):
                requests = peer.requests.messages
                if requests and requests[-1].complete and len(finals(peer.responses)) < len(requests) and not peer.transport.closing:
                    answer = next(self._answers, b"")
                    if not is_whole_answer(answer, peer.requests):
                        answer = b"HTTP/1.1 204 No Content\r\n\r\n"
                    self.say(peer, answer, bytewise)
                    asked = True


def is_whole_answer(data: bytes, requests: Stream) -> bool:
    """Tell whether this answers the last of the requests, and nothing is left: what is left could be taken for the next answer."""
    alone = request_stream()
    alone.messages = requests.messages[-1:]
    stream = response_stream(alone)
    stream.feed(data)
    return len(finals(stream)) == 1 and stream.at_boundary


def run(data: bytes) -> None:
    """Test one input."""
    settings, operations = parse(data)
    settings = settings.ljust(8, b"\0")
    if settings[6] & (HTTP2_CLIENT | HTTP2_UPSTREAMS):
        http2_relays.run(settings, operations)
        return
    settings = settings[:6] + b"\0" + settings[7:8]
    text = b"".join(operation.data for operation in operations if operation.verb == "client")
    answers = [operation.data for operation in operations if operation.verb == "upstream"][:MOST_ANSWERS]
    cut = settings[4], settings[5]
    runs = [relay(settings, answers, text, *way) for way in ((None, False), (cut, False), (cut, True))]
    if any(scene.counters.framing_errors for scene, _ in runs) and b"content-encoding" in b"".join(answers).lower():
        # how much comes out of what cannot be decoded, or not within the limit of one read, depends on the reads
        runs = [(scene, without_chunks(got)) for scene, got in runs]
    whole = runs[0][1]
    for _, pieces in runs[1:]:
        for what, one, other in zip(("client", "upstreams", "handler"), whole, pieces, strict=True):
            assert one == other, f"another split, and the {what} got something else: {one!r} {other!r}"


def relay(
    settings: bytes, answers: list[bytes], text: bytes, cut: tuple[int, int] | None, bytewise: bool
) -> tuple[RelayScene, tuple[Any, ...]]:
    """Relay in pieces, or whole; return the scene, and what the client, the upstreams and the handler got."""
    scene = RelayScene(settings, answers, cut)
    with scene.loop:
        client: Any = scene.client(0)
        scene.say(client, text, bytewise)
        check_answered(client)
        scene.wind_down()
    check_permits(scene)
    check_end(scene)
    sent = [(peer.heard, peer.transport.aborted) for peer in scene.upstreams if isinstance(peer, RecordingUpstream)]
    all_said = request_stream(scene.settings.head_limit)
    all_said.feed(text)
    # of a request that turns out to be malformed behind what is decided on, more or less, or nothing, may have been shown and sent before
    # it is cut
    is_malformed = bool(all_said.fault)
    upstreams = [
        cut_short(peer) if aborted or is_malformed else heard for peer, (heard, aborted) in zip(scene.upstreams, sent, strict=True)
    ]
    if settings[7] & (CREDENTIALS | (1 << len(DECIDING)) - 1):
        # content that the proxy frames itself is framed as it came
        pairs = [(as_read(pair.response), [as_read(interim) for interim in pair.interims]) for pair in pairs_of(client)]
        answers_got = [pair for pair in pairs if pair[0] is not None or pair[1]]
        asked = [[pair.request for pair in pairs_of(peer) if pair.request.complete] for peer in scene.upstreams]
        sent_to = [] if is_malformed else [requests for requests in asked if requests]
        return scene, (answers_got, sent_to, all_said.fault or told(scene))
    return scene, (client.heard, [heard for heard in upstreams if heard], all_said.fault or told(scene))


def as_read(said: Said | None) -> Said | None:
    """Return a message without the part of a body that was cut."""
    return said if said is None or said.complete else said._replace(content=b"", trailers=[])


def check_answered(client: RecordingClient) -> None:
    """Where everybody does his part no time has to pass."""
    complete = sum(message.complete for message in client.requests.messages)
    over = client.transport.closing or client.transport.eof_written
    waits = not over and client.responses.fault != SWITCHED and len(finals(client.responses)) < complete
    assert not waits, "a request that is complete has no answer, though every upstream gave its own"


def without_chunks(got: tuple[Any, ...]) -> tuple[Any, ...]:
    """Leave out the frames that the handler was shown."""
    *bytes_sent, shown = got
    if isinstance(shown, str):
        return (*bytes_sent, shown)
    requests, calls, decided = shown
    frames = ("on_stream_chunk", "filter_stream_chunk")
    return (*bytes_sent, (requests, *([call for call in each if call[0] not in frames] for each in (calls, decided))))


def cut_short(peer: Peer) -> object:
    """Return what is the same of a cut connection in every split: the whole messages on it."""
    return [(message.head.raw, bytes(message.raw)) for message in peer.requests.messages if message.complete]


def told(scene: ExchangeScene) -> object:
    """Return everything that the handler was shown. Trailers of a body that is cut may have been there already, or not."""
    requests = [
        (
            *(request.method, request.path, request.raw_body, request.body_complete, request.body_truncated),
            request.body_complete and request.trailers.raw,
        )
        for request, _ in scene.handler.asked
    ]
    decided = [
        (question.hook, question.outcome, shown(question.shown), str(question.decision))
        for question in scene.handler.questions
        if question.hook in DECIDING
    ]
    return requests, [(name, shown(value)) for name, _, value in scene.handler.told], decided


def shown(value: Any) -> object:
    """Return what a hook was shown, comparable."""
    if hasattr(value, "payload"):
        return value.payload, value.frame_kind, value.truncated, value.sequence
    if hasattr(value, "status"):
        return value.status, value.raw_body, value.body_truncated, value.streaming, value.trailers.raw
    return None
