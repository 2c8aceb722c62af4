"""Take texts out of responses."""

import re
from collections.abc import Iterable
from uuid import UUID

from soth_mitm import (
    ChunkDecision,
    FrameKind,
    HandlerDecision,
    InterceptHandler,
    RawRequest,
    RawResponse,
    ResponseDecision,
    SseEvent,
    StreamChunk,
)
from soth_mitm.rules.deltas import CannotFollow, Deltas
from soth_mitm.rules.matching import Hosts
from soth_mitm.rules.sought import Sought, charset_of

# What a part of a body, or an older copy of it, is asked for by: either is none that was searched.
_ASKS_FOR_LESS = ("Range", "If-Range", "If-None-Match", "If-Modified-Since")
# Formats in which no text is to be found by searching.
_UNSEARCHED = re.compile(r"(?!image/svg\+xml)(image|audio|video|font)/", re.IGNORECASE)
_BINARY = (FrameKind.GRPC_MESSAGE, FrameKind.WEBSOCKET_BINARY)
_UNREADABLE = "this response cannot be searched for what is to be redacted: "


class Redact(InterceptHandler):
    """Takes texts out of bodies and streams."""

    def __init__(self, sought: Sought, hosts: Iterable[str], deltas: bool) -> None:
        self._sought = sought
        self._hosts = Hosts(hosts)
        self._follows = deltas
        self._streams: dict[int, Deltas] = {}
        self._whole = HandlerDecision.forward(remove=_ASKS_FOR_LESS)

    def _is_about(self, request: RawRequest | None) -> bool:
        # of one that is not known it is
        return request is None or self._hosts.match_request(request)

    def on_request(self, request: RawRequest) -> HandlerDecision:
        """Ask for whole bodies."""
        asks_for_less = any(name in request.headers for name in _ASKS_FOR_LESS)
        return self._whole if asks_for_less and self._is_about(request) else HandlerDecision.ALLOW

    def on_response_head(self, response: RawResponse) -> ResponseDecision:
        """Hold what is to be searched."""
        request = response.request
        if not self._is_about(request):
            return ResponseDecision.UNFILTERED
        types = response.headers.get_all("content-type")
        is_unsearched = bool(types) and all(_UNSEARCHED.match(each) for each in types)
        if response.streaming or is_unsearched or (request is not None and request.method == "HEAD"):
            return ResponseDecision.PASS
        return ResponseDecision.HOLD

    def on_response_body(self, response: RawResponse) -> ResponseDecision:
        """Search a body."""
        if not response.body_complete:
            return ResponseDecision.block(502, f"{_UNREADABLE}it is longer than body.max_size_bytes, or late\n")
        if response.decode_error is not None:
            return ResponseDecision.block(502, f"{_UNREADABLE}{response.decode_error}\n")
        try:
            charsets = [charset_of(each) for each in response.headers.get_all("content-type")]
            left = self._sought.in_content(response.body, *charsets)
        except ValueError as error:
            return ResponseDecision.block(502, f"{_UNREADABLE}{error}\n")
        return ResponseDecision.PASS if left == response.body else ResponseDecision.replace(body=left)

    def filter_stream_chunk(self, chunk: StreamChunk) -> ChunkDecision:
        """Search a frame."""
        if chunk.direction != "to_client" or not self._is_about(chunk.request):
            return ChunkDecision.PASS
        if chunk.truncated:
            return ChunkDecision.END
        if self._follows and chunk.frame_kind is FrameKind.SSE_DATA:
            try:
                events = self._streams.setdefault(chunk.flow_id, Deltas(self._sought)).feed(chunk.text, chunk.event_type)
            except (CannotFollow, RecursionError):
                return ChunkDecision.END
            if events is not None:
                return _in_place(events, chunk)
        left = self._sought.starred(chunk.payload) if chunk.frame_kind in _BINARY else self._sought.in_content(chunk.payload)
        return ChunkDecision.PASS if left == chunk.payload else ChunkDecision.replace(left)

    def on_stream_end(self, connection_id: UUID, flow_id: int) -> None:
        """Forget what was held of a stream."""
        self._streams.pop(flow_id, None)


def _in_place(events: list[SseEvent | str], chunk: StreamChunk) -> ChunkDecision:
    if len(events) == 1:
        return ChunkDecision.replace(events[0])
    event = None if chunk.event_type == "message" else chunk.event_type
    own = [SseEvent(each, event=event, id=chunk.event_id, retry=chunk.retry) if isinstance(each, str) else each for each in events]
    return ChunkDecision.replace(*own)


def redact(
    *values: str | bytes | re.Pattern[str], replacement: str = "[redacted]", hosts: Iterable[str] = ("*:*",), deltas: bool = True
) -> InterceptHandler:
    """Put `replacement` in place of each of `values` in the responses of `hosts`: in bodies, and in frames of streams to the client.

    A value is an exact text, or a compiled pattern. It is found in JSON with escapes as well, and with `deltas` in the text of a language
    model that comes in many events (OpenAI, Anthropic), wherever these divide it: what may be the beginning of an exact text waits, and
    where there are patterns the last 256 characters do, so a longer match is not found across events. In gRPC, and in binary messages of
    WebSockets, it becomes as many asterisks.

    What cannot be searched is not let through: a body that is too long, late, or not to be decoded is answered 502, a frame that is too
    long ends its stream. Images, audio, video and fonts are not searched. Requests lose Range, If-Range, If-None-Match and
    If-Modified-Since. `ValueError` and `TypeError` say what is wrong with a value.

    >>> import re
    >>> from soth_mitm import rules
    >>> handler = rules.redact(re.compile(r"[\\w.+-]+@[\\w-]+\\.[\\w.-]+"), "Project Nightingale", hosts=["llm.example.com:443"])
    """
    return Redact(Sought(values, replacement), hosts, deltas)
