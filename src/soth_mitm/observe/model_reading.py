"""Calls of models read out of what a sink is given: `CallReading` makes a `ModelCall` of a flow's record and its content."""

from soth_mitm._dataplane.http.messages import RawRequest
from soth_mitm._dataplane.wire.framer import Framer
from soth_mitm.llm.answer_reader import AnswerReader
from soth_mitm.llm.model_call import ModelCall
from soth_mitm.llm.recognition import Recognised, Recogniser, may_be_call
from soth_mitm.observe.flow_record import FlowRecord
from soth_mitm.observe.framers import framer_for

TEXT_LIMIT = 65_536
"""Characters of text, reasoning and arguments that are kept of one call, unless it is said otherwise."""
LONGEST_ANSWER = 1 << 20
"""Bytes of a plain answer that are read."""

_RECOGNISER = Recogniser()


class CallReading:
    """A call of a model while its flow arrives.

    `begin` tells whether it is one; then give it the response's content with `feed`, its content coding removed, and at the end `end`.
    Times are seconds since the flow's start. Nothing that a peer sends raises.
    """

    def __init__(self, *, text_limit: int = TEXT_LIMIT) -> None:
        self._text_limit = text_limit
        self._call: Recognised | None = None
        self._reader: AnswerReader | None = None
        self._is_stream = False
        self._framer: Framer | None = None
        self._plain = bytearray()
        self._is_cut = False
        self._problem: str | None = None
        self._request: RawRequest | None = None

    @staticmethod
    def may_be(record: FlowRecord) -> bool:
        """Tell whether the record's method and path are those of a call, so that its request's body is worth keeping for `begin`."""
        return bool(record.scheme) and may_be_call(record.method, record.path)

    def begin(self, record: FlowRecord, body: bytes, *, is_whole: bool = True) -> Recognised | None:
        """Return what the request asks which model for, or None: it is no call of one. `body` has no content coding any more."""
        authority = f"[{record.host}]:{record.port}" if ":" in record.host else f"{record.host}:{record.port}"
        wanted = (b"content-type", b"anthropic-version")
        try:
            self._request = RawRequest.build(
                method=record.method,
                url=f"{record.scheme}://{authority}{record.path.partition('?')[0]}",
                headers=[(name, value) for name, value in record.request_fields if name.lower() in wanted],
                body=body,
                body_truncated=not is_whole,
                connection_meta=record.connection,
                flow_id=record.flow_id,
            )
            self._call = _RECOGNISER.recognise(self._request)
        except ValueError:
            # what a peer sent is no request that could be built again, such as a path with octets that are no URL
            self._call = None
        return self._call

    def answer(self, record: FlowRecord, encoding: bytes | None = None) -> None:
        """The head of the response is there."""
        if self._call is None or self._reader is not None:
            return
        media = next((value for name, value in record.response_fields if name.lower() == b"content-type"), b"")
        self._framer = framer_for(media.partition(b";")[0].strip().lower().decode("latin-1"))
        self._is_stream = self._framer is not None
        self._reader = AnswerReader(self._call, status=record.status, streamed=self._is_stream, began=0.0, text_limit=self._text_limit)

    def feed(self, data: bytes, at: float) -> None:
        """More of the response's content came."""
        if self._reader is None or not data:
            return
        if self._framer is None:
            room = LONGEST_ANSWER - len(self._plain)
            self._plain += data[:room]
            self._is_cut = self._is_cut or len(data) > room
            return
        for chunk in self._framer.frames(data):
            self._reader.feed(chunk.payload, chunk.event_type or "", now=at, complete=chunk.complete, truncated=chunk.truncated)

    def miss(self, why: str) -> None:
        """Something of the response's content was not given."""
        if self._reader is not None:
            self._is_cut = True
            self._reader.miss(why)

    def fail_decoding(self, problem: str) -> None:
        """The response's content coding could not be removed."""
        self._problem = problem

    def end(self, record: FlowRecord) -> ModelCall | None:
        """The flow is over: return what came of the call; None if it is none, or got no answer at all."""
        reader = self._reader
        if self._call is None or reader is None:
            return None
        now = record.took or 0.0
        if self._framer is not None:
            for chunk in self._framer.last_frames():
                reader.feed(chunk.payload, chunk.event_type or "", now=now, complete=chunk.complete, truncated=chunk.truncated)
        elif record.outcome.startswith("cut_"):
            reader.read(bytes(self._plain), now=now, truncated=True, problem=self._problem)
        else:
            reader.read(bytes(self._plain), now=now, truncated=self._is_cut, problem=self._problem)
        self._plain.clear()
        return reader.end(now=now, flow_id=record.flow_id, connection_id=record.connection.connection_id, request=self._request)
