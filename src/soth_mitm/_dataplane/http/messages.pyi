import enum
from collections.abc import Iterable, Mapping
from typing import Literal, Never, TypeAlias, final
from uuid import UUID

from soth_mitm._dataplane.wire.headers import Headers
from soth_mitm.chunk_decision import ChunkDecision
from soth_mitm.connection import ConnectionMeta
from soth_mitm.decision import HandlerDecision
from soth_mitm.response_decision import ResponseDecision

_GivenHeaders: TypeAlias = Headers | Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]

BODILESS: tuple[int, ...]
SSE_DATA: FrameKind

class FrameKind(enum.StrEnum):
    """What one `StreamChunk` is."""

    SSE_DATA = "sse_data"
    NDJSON_LINE = "ndjson_line"
    GRPC_MESSAGE = "grpc_message"
    EVENTSTREAM_MESSAGE = "eventstream_message"
    WEBSOCKET_TEXT = "websocket_text"
    WEBSOCKET_BINARY = "websocket_binary"
    WEBSOCKET_CLOSE = "websocket_close"

class Message:
    """What requests and responses have in common."""
    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def http_version(self) -> str:
        """``"HTTP/1.0"``, ``"HTTP/1.1"`` or ``"HTTP/2"``, as the sender said."""
    @property
    def headers(self) -> Headers:
        """The `Headers` as received."""
    @property
    def trailers(self) -> Headers:
        """The `Headers` that followed the body; empty when there were none, or when they have not arrived."""
    @property
    def body(self) -> bytes:
        """The content with its content codings removed, or `raw_body` when that fails: then `decode_error` says why.

        Empty when a response is `streaming`: its frames go to ``on_stream_chunk``.
        """
    @property
    def raw_body(self) -> bytes:
        """The body as sent, content codings included, transfer coding excluded; bytes that the object owns.

        Empty for a conversation, and when a response is `streaming`.
        """
    @property
    def body_truncated(self) -> bool:
        """Whether the body is longer than ``body.max_size_bytes``, or memory was short for that of a response.

        Then `body` is its beginning.
        """
    @property
    def decode_error(self) -> str | None:
        """Why `body` could not be decoded, None when it could. A body that is cut is decoded as far as it goes, without an error."""
    @property
    def connection_meta(self) -> ConnectionMeta:
        """The client's connection, with what is known of the upstream's by now. None if the message was built without one."""
    @property
    def flow_id(self) -> int:
        """The number of the request and its response, unique among all proxies of the process."""

@final
class RawRequest(Message):
    """A request, as a handler sees it. Read-only; made by the proxy, and by `build` in tests."""
    @staticmethod
    def build(
        *,
        method: str = "GET",
        url: str = "http://localhost/",
        headers: _GivenHeaders = (),
        body: bytes = b"",
        trailers: _GivenHeaders = (),
        connection_meta: ConnectionMeta | None = None,
        flow_id: int = 0,
        body_truncated: bool = False,
        body_complete: bool = True,
        conversation: bool = False,
        began: float | None = None,
        decode_limit: int = 33554432,
    ) -> RawRequest:
        """Make a request as the proxy would have received it, to test a handler with.

        `url` is absolute and names scheme and authority; a Host header is put first unless `headers` has one. `body` is what the wire would
        carry: with a Content-Encoding header it must be so encoded. `body_truncated`, `body_complete` and `conversation` make a request of
        which the handler does not see all. ValueError says which rule of HTTP the parts break.
        """
    def changed(self, decision: HandlerDecision) -> RawRequest:
        """Return this request as `decision` would send it; the request itself if that changes nothing.

        `decision` is ``HandlerDecision.ALLOW`` or ``HandlerDecision.forward(...)``, and another kind is a ValueError. Where `to` names
        another origin, `scheme`, `authority` and Host are those of that origin; whether the request may go there is not asked. A body of
        bytes is `body`. One that is an async iterable is not asked for its items: `body` is empty, and `body_problem` ``"conversation"``.
        Content-Length and Transfer-Encoding of a new body are written when it is sent, and are not among the headers.

        ValueError says why the decision cannot be applied to this request. Returned by `on_request` it would be answered 502.
        """
    @property
    def method(self) -> str:
        """The method as sent, such as ``"POST"``; methods are case-sensitive."""
    @property
    def path(self) -> str:
        """The target in origin form, query included, such as ``"/v1/items?limit=3"``; ``"*"`` for OPTIONS of the whole server."""
    @property
    def url(self) -> str:
        """Scheme, authority and path in one string."""
    @property
    def scheme(self) -> str:
        """The scheme of the URL: ``"https"`` or ``"http"``."""
    @property
    def authority(self) -> str:
        """What the message names: its Host, or the authority of an absolute-form target, in the spelling of patterns.

        Where the request goes is `connection_meta.target`.
        """
    @property
    def began(self) -> float | None:
        """When the request's head had come, in seconds of `time.monotonic()`. None in a request that was built without it."""
    @property
    def body_complete(self) -> bool:
        """Whether `raw_body` is the whole body. `body_problem` says why not."""
    @property
    def body_problem(self) -> Literal["conversation", "too_long", "late", "undecodable"] | None:
        """Why `body` is not all that the upstream is going to read, or None when it is. A gate that looks at bodies blocks what has one.

        ``"conversation"``: decided on at its head (gRPC, an upgrade, or ``body.buffer_request_bodies`` is off), and no more of it is shown.
        ``"too_long"``: longer than ``body.max_size_bytes``; `body` is its beginning. ``"late"``: not complete after
        ``body.buffer_timeout_ms``; `body` is what has arrived. ``"undecodable"``: `decode_error` says why. With
        ``body.incomplete = "refuse"`` the proxy answers such a request itself, and the handler never sees one.
        """

@final
class RawResponse(Message):
    """A response, as a handler sees it. Read-only; made by the proxy, and by `build` in tests."""
    @staticmethod
    def build(
        *,
        status: int = 200,
        reason: str | None = None,
        headers: _GivenHeaders = (),
        body: bytes = b"",
        trailers: _GivenHeaders = (),
        request: RawRequest | None = None,
        connection_meta: ConnectionMeta | None = None,
        flow_id: int = 0,
        body_truncated: bool = False,
        body_complete: bool = True,
        streaming: bool = False,
        decode_limit: int = 33554432,
    ) -> RawResponse:
        """Make a response as the proxy would have received it, to test a handler with.

        `body` is what the wire would carry: with a Content-Encoding header it must be so encoded. `connection_meta` and `flow_id` are those
        of `request` when that is given. ValueError says which rule of HTTP the parts break.
        """
    @property
    def status(self) -> int:
        """The status code, such as ``200``."""
    @property
    def reason(self) -> str:
        """The reason phrase as received, often ``""``."""
    @property
    def body_complete(self) -> bool:
        """Whether `body` is all that the upstream sends. In ``on_response_head`` and of a stream it is False."""
    @property
    def streaming(self) -> bool:
        """Whether this is shown at its head, because its frames go to ``on_stream_chunk`` one by one."""
    _note: tuple[tuple[object, object], ...] | None
    """What a Chain has to remember of the flow."""
    def _shown(self, with_body: bool, note: tuple[tuple[object, object], ...]) -> RawResponse:
        """Return this response as `on_response_body` is given it, or as `on_response_head`. For a Chain."""
    def changed(self, decision: ResponseDecision) -> RawResponse:
        """Return this response as `decision` would send it; the response itself if that changes nothing.

        `decision` is ``ResponseDecision.PASS``, ``UNFILTERED``, ``change(...)`` or ``replace(...)``, and another kind is a ValueError. A
        body of bytes is `body`. One that is an async iterable is not asked for its items: `body` is empty, and `body_complete` is False.

        ValueError says why the decision cannot be applied to this response. Returned by a hook it would be answered 502.
        """
    @property
    def request(self) -> RawRequest | None:
        """The request that this answers, with its body unless that was let go. None in a response that was built without one."""

@final
class StreamChunk:
    """One frame of a stream: an SSE event, an NDJSON line, a gRPC message, a message of AWS, a WebSocket message or its close.

    `payload` is the frame's content in bytes; `truncated` says that the frame was longer than the budget of one frame. `complete` is False
    for such a frame, and for a last SSE event that came without its blank line: it may have been cut anywhere. `sequence` counts from 0 for
    each flow and direction. `request` is the flow's request; of one whose body is long, memory may be so scarce that it is let go.
    `event_type` is that of an SSE event or of a message of AWS, `event_id` and `retry` are those of an SSE event; else they are None.
    `replaced` says that ``filter_stream_chunk`` sent it in place of what came, `injected` that the handler sent it unasked.
    """
    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @staticmethod
    def build(
        payload: bytes,
        frame_kind: FrameKind | str = ...,
        *,
        truncated: bool = False,
        complete: bool | None = None,
        event_type: str | None = None,
        event_id: str | None = None,
        retry: int | None = None,
        connection_id: UUID | None = None,
        connection_meta: ConnectionMeta | None = None,
        flow_id: int = 0,
        request: RawRequest | None = None,
        direction: str = "to_client",
        sequence: int = 0,
        replaced: bool = False,
        injected: bool = False,
    ) -> StreamChunk:
        """Make a chunk, to test a handler with. It is complete unless it is truncated or `complete` says otherwise."""
    @property
    def payload(self) -> bytes:
        """The frame's content: the data lines of an SSE event joined by LF, a line without its end, a message without its prefix."""
    @property
    def text(self) -> str:
        """`payload` as text. Bytes that are no UTF-8 become U+FFFD."""
    @property
    def frame_kind(self) -> FrameKind:
        """What the frame is."""
    @property
    def truncated(self) -> bool:
        """Whether the frame was longer than ``body.max_size_bytes``: then `payload` is its beginning."""
    @property
    def complete(self) -> bool:
        """False for a truncated frame, and for a last SSE event that came without its blank line."""
    @property
    def request(self) -> RawRequest | None:
        """The request of the flow. None in a chunk that was built without one, or when memory was short."""
    @property
    def event_type(self) -> str | None:
        """The type of an SSE event or of a message of AWS; else None."""
    @property
    def event_id(self) -> str | None:
        """The last event id of an SSE stream; else None."""
    @property
    def retry(self) -> int | None:
        """The reconnection time of an SSE event, in milliseconds; else None."""
    @property
    def connection_id(self) -> UUID:
        """`connection_meta.connection_id`. None in a chunk that was built without one."""
    @property
    def connection_meta(self) -> ConnectionMeta:
        """The connection of the client."""
    @property
    def flow_id(self) -> int:
        """The number of the request and its response, unique among all proxies of the process."""
    @property
    def direction(self) -> str:
        """``"to_client"`` or ``"to_upstream"``."""
    @property
    def sequence(self) -> int:
        """Counts the frames of a flow and direction from 0."""
    @property
    def replaced(self) -> bool:
        """Whether ``filter_stream_chunk`` sent it in place of what came."""
    @property
    def injected(self) -> bool:
        """Whether the handler sent it unasked."""
    _note: tuple[tuple[object, object], ...] | None
    """What a Chain has to remember of the flow."""
    def changed(self, decision: ChunkDecision) -> tuple[StreamChunk, ...]:
        """Return the chunks that `decision`, a ``ChunkDecision``, sends in place of this one: itself for ``PASS``, none for ``DROP``.

        Those of a ``replace`` are `replaced`, and have in them what a reader of the stream finds. ValueError says why the decision cannot
        be applied to this chunk. Returned by `filter_stream_chunk` it would end the stream, as ``END`` does, which sends nothing.
        """

def noted_chunk(chunk: StreamChunk, note: tuple[tuple[object, object], ...]) -> StreamChunk:
    """Return the chunk as it is shown after a decision about the response that left `note`. For tests."""
