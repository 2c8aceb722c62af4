"""`LlmObserver`: a handler that tells of each call of a model, when it has ended."""

from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from uuid import UUID

from soth_mitm._dataplane.http.messages import FrameKind, RawRequest, RawResponse, StreamChunk
from soth_mitm.escaping import get_logger
from soth_mitm.handler import InterceptHandler
from soth_mitm.llm.answer_reader import AnswerReader
from soth_mitm.llm.model_call import ModelCall
from soth_mitm.llm.recognition import Recogniser

log = get_logger("soth_mitm.llm")

# Streams that are read at once. It is only reached where ends of streams are not told.
MOST_OPEN = 8192

_READ = (FrameKind.SSE_DATA, FrameKind.NDJSON_LINE, FrameKind.EVENTSTREAM_MESSAGE)


class _Open:
    """A stream that is being read."""

    __slots__ = ("expected", "reader", "request")

    def __init__(self, reader: AnswerReader, request: RawRequest) -> None:
        self.reader = reader
        self.request = request
        self.expected = 0


class LlmObserver(InterceptHandler):
    """Tells of each call of a model that passes: which model, tokens of each kind, tools, the time to the first token, why it ended.

    It decides nothing, changes nothing and makes nothing wait; it works beside other handlers, and by itself. `on_call` is called with a
    `ModelCall` when the answer is over, whole or cut; it may be a coroutine function. Bodies are read of requests that look like calls
    of a model, by method and path, and of their answers; of all others nothing is decoded.

    `endpoints` are further hosts by destination pattern, and the provider to be told of each: `{"llm.corp.example:443": "vllm"}`. Hosts
    that are not named are recognised all the same, by path and body; then the provider is `openai-compatible` and the like. `text_limit`
    is how many characters of text, reasoning and arguments are kept of one call, all together. `ValueError` or `TypeError` says what is
    wrong with an argument.

    Not told of, since the proxy shows no response of them: requests that got none from their server, and plain answers that were cut.
    `on_call` runs on the loop of the connection, under `handler.response_timeout_ms`; a failure is counted like that of any handler.
    """

    def __init__(
        self,
        on_call: Callable[[ModelCall], None | Awaitable[None]],
        *,
        endpoints: Mapping[str, str] | None = None,
        text_limit: int = 262_144,
    ) -> None:
        if not callable(on_call):
            raise TypeError(f"on_call must be a function that takes a ModelCall, got {on_call!r}")
        if text_limit < 0:
            raise ValueError(f"text_limit must be 0 or more characters, not {text_limit}")
        self._on_call = on_call
        self._recogniser = Recogniser(endpoints)
        self._text_limit = text_limit
        self._open: dict[int, _Open] = {}
        self.failures = 0
        """How many times our own reading failed. Nothing that a peer sends should make it."""
        self.unread = 0
        """How many streams were not read since 8192 others were open."""

    def on_response(self, response: RawResponse) -> None | Awaitable[None]:
        """A response came: with its body, or at the head of a stream."""
        request = response.request
        reader = None if request is None else self._reader_of(request, response)
        if request is None or reader is None:
            return None
        if response.streaming:
            if len(self._open) < MOST_OPEN:
                self._open[response.flow_id] = _Open(reader, request)
            else:
                self.unread += 1
            return None
        try:
            reader.read(response.body, now=monotonic(), truncated=response.body_truncated, problem=response.decode_error)
        except Exception as error:
            self._failed(error, reader)
        return self._tell(reader, request)

    def on_stream_chunk(self, chunk: StreamChunk) -> None:
        """An event of a stream came."""
        stream = self._open.get(chunk.flow_id)
        if stream is None or chunk.direction != "to_client" or chunk.frame_kind not in _READ:
            return
        if chunk.sequence != stream.expected:
            stream.reader.miss("events of the answer were not shown, since a handler was slow")
        stream.expected = chunk.sequence + 1
        try:
            stream.reader.feed(chunk.payload, chunk.event_type or "", now=monotonic(), complete=chunk.complete, truncated=chunk.truncated)
        except Exception as error:
            self._failed(error, stream.reader)

    def on_stream_end(self, connection_id: UUID, flow_id: int) -> None | Awaitable[None]:
        """A stream is over."""
        stream = self._open.pop(flow_id, None)
        return None if stream is None else self._tell(stream.reader, stream.request)

    def _reader_of(self, request: RawRequest, response: RawResponse) -> AnswerReader | None:
        try:
            call = self._recogniser.recognise(request)
        except Exception as error:
            self._failed(error, None)
            return None
        if call is None:
            return None
        return AnswerReader(call, status=response.status, streamed=response.streaming, began=request.began, text_limit=self._text_limit)

    def _failed(self, error: Exception, reader: AnswerReader | None) -> None:
        """Say that our own code failed: it must not end the flow, as an exception of a handler may."""
        self.failures += 1
        if reader is not None:
            reader.miss("the observer failed to read the answer")
        if self.failures == 1:
            log.warning("reading a call of a model failed: %r (further failures are counted only)", error, exc_info=error)

    def _tell(self, reader: AnswerReader, request: RawRequest) -> None | Awaitable[None]:
        meta = request.connection_meta
        connection_id = None if meta is None else meta.connection_id
        return self._on_call(reader.end(now=monotonic(), flow_id=request.flow_id, connection_id=connection_id, request=request))
