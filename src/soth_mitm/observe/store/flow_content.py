"""The content of one flow, put together from its pieces: heads, bodies, messages, events."""

import functools
from collections.abc import Iterable

import msgspec

from soth_mitm._dataplane.http.messages import StreamChunk
from soth_mitm.observe.flow_record import Fields
from soth_mitm.observe.framers import framer_for
from soth_mitm.observe.search_words import word_set
from soth_mitm.observe.store.content import BINARY, SHORTENED, UNDECODED, StoredMessage, StoredPiece
from soth_mitm.observe.store.flow_row import FlowDetail, FlowRow, media_type

LONGEST_TEXT = 1 << 18
"""Characters of one flow that are searched by words."""


class FlowMessageEvent(msgspec.Struct, frozen=True):
    """One event of a stream, one line, or one message of gRPC."""

    at: float
    """Seconds since the flow's start: when its end came."""
    to_client: bool
    kind: str
    """`sse_data`, `ndjson_line`, `grpc_message` or `eventstream_message`."""
    event_type: str | None
    event_id: str | None
    data: bytes
    is_complete: bool


class Side:
    """One side of a flow: the request with its content, or the response with its."""

    def __init__(self, pieces: Iterable[StoredPiece]) -> None:
        self.fields: Fields = ()
        self.trailers: Fields = ()
        self.chunks: list[tuple[float, bytes]] = []
        """Of the body, its content codings removed: seconds since the flow's start, and octets."""
        self.messages: list[StoredMessage] = []
        flags = 0
        for piece in pieces:
            self.fields = self.fields or piece.fields
            self.trailers = self.trailers or piece.trailers
            self.chunks += [(at / 1e6, data) for at, data in piece.chunks]
            self.messages += piece.messages
            flags |= piece.flags
        self.is_shortened = bool(flags & SHORTENED)
        """Whether more of the body passed than is kept."""
        self.is_undecoded = bool(flags & UNDECODED)
        """Whether the content coding could not be removed, so that the body is as it was sent."""
        self.is_binary = bool(flags & BINARY)
        """Whether the body is no text, and not kept."""

    @functools.cached_property
    def body(self) -> bytes:
        """The body, as much of it as is kept."""
        return b"".join(data for _, data in self.chunks)

    @property
    def media(self) -> str:
        """Its type, without parameters, in lower case."""
        return media_type(self.fields)

    @property
    def text(self) -> str:
        """The body as text; octets that are no UTF-8 become U+FFFD."""
        return self.body.decode("utf-8", "replace")

    def values(self, name: str) -> list[str]:
        """Return the values of a field of the head; `name` is in lower case."""
        wanted = name.encode("latin-1", "replace")
        return [value.decode("utf-8", "replace") for field, value in self.fields if field.lower() == wanted]


class FlowContent:
    """All of a flow: its row, what is kept beside, request and response, messages in order."""

    def __init__(self, row: FlowRow, detail: FlowDetail, request: Side, response: Side) -> None:
        self.row = row
        self.detail = detail
        self.request = request
        self.response = response

    @property
    def messages(self) -> list[StoredMessage]:
        """The messages of a WebSocket, both ways, in their order."""
        return sorted([*self.request.messages, *self.response.messages], key=lambda message: message.at_us)

    def events(self) -> list[FlowMessageEvent]:
        """Return the events of the streams, both ways, in their order; none of a flow that has no stream."""
        found: list[FlowMessageEvent] = []
        for to_client, side in ((False, self.request), (True, self.response)):
            encodings = side.values("grpc-encoding")
            framer = framer_for(side.media, encodings[0].encode() if encodings else None)
            if framer is None:
                continue
            at = 0.0
            for at, data in side.chunks:
                found += [_event(chunk, at, to_client) for chunk in framer.frames(data)]
            if not self.row.is_open:
                found += [_event(chunk, at, to_client) for chunk in framer.last_frames()]
        return sorted(found, key=lambda event: event.at)

    # --- what a filter asks (soth_mitm.observe.filter_predicate.Content)

    def header_values(self, name: str) -> list[str]:
        """Return the values of a field, in the heads of request and response."""
        return self.request.values(name) + self.response.values(name)

    @functools.cached_property
    def _texts(self) -> str:
        # of a call of a model what was said comes first: in the events of a stream words are divided
        call = self.detail.call or {}
        texts = [text for name in ("text", "reasoning") if isinstance(text := call.get(name), str) and text]
        texts += [self.request.text, self.response.text]
        texts += [message.data.decode("utf-8", "replace") for message in self.messages if message.opcode == 1]
        return "\n".join(texts)

    def body_text(self) -> str:
        """Return the text of both bodies and of the messages, and what a model said."""
        return self._texts

    def all_text(self) -> str:
        """Return the URL with the text, as much of it as is searched by words."""
        return f"{self.row.url}\n{self._texts}"[:LONGEST_TEXT]

    @functools.cached_property
    def _words(self) -> set[str]:
        return word_set(self.all_text())

    def words(self) -> set[str]:
        """Return the words of `all_text()`."""
        return self._words


def _event(chunk: StreamChunk, at: float, to_client: bool) -> FlowMessageEvent:
    return FlowMessageEvent(
        at=at,
        to_client=to_client,
        kind=str(chunk.frame_kind),
        event_type=chunk.event_type,
        event_id=chunk.event_id,
        data=chunk.payload,
        is_complete=chunk.complete,
    )
