"""One flow on its way into a store: its row and its pieces, from the updates that a sink is given."""

from typing import Any

from soth_mitm.llm.model_call import ModelCall
from soth_mitm.metrics import FLOW_OUTCOMES
from soth_mitm.observe.flow_record import FlowKind, FlowRecord, FlowUpdate
from soth_mitm.observe.masking import Masker
from soth_mitm.observe.model_reading import CallReading
from soth_mitm.observe.store.content import PieceCoder, encode_record
from soth_mitm.observe.store.flow_row import COLUMNS, OPEN, OVER, client_of, detail_of, program_of, storable
from soth_mitm.observe.store.schema import MOST_PIECES, piece_id
from soth_mitm.observe.store.side_writing import HeadMask, SideWriting

INSERT_FLOW = f"insert or replace into flow ({', '.join(COLUMNS)}, detail) values ({', '.join('?' * (len(COLUMNS) + 1))})"
LONGEST_NAME = 1000
"""Characters of a name, a reason or an error that are kept."""
LONGEST_PATH = 16_384
MOST_TOOLS = 64

_NO_CALL: tuple[None, ...] = (None,) * 8


class FlowWriting:
    """One flow. `content` is how many bytes of each body are kept, `most` how many bytes of pieces all together."""

    def __init__(self, masker: Masker, heads: HeadMask, coder: PieceCoder, *, content: int, most: int) -> None:
        self.id = 0
        """In the store; 0: it has none yet."""
        self.is_stored = False
        """Whether a row of it is in the file."""
        self._masker = masker
        self._coder = coder
        self._most = most
        self._size = 0
        self._missed = 0
        self._record: FlowRecord | None = None
        self._request = SideWriting(0, masker, heads, content)
        self._response = SideWriting(1, masker, heads, content)
        self._reading: CallReading | None = None
        self._asked: bytearray | None = None
        self._has_asked = False
        self._call: ModelCall | None = None
        self._provider: str | None = None
        self._model: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it."""
        return self._record is not None and self._record.is_over

    def take(self, update: FlowUpdate) -> None:
        """Take an update."""
        record = update.record
        if self._record is None and CallReading.may_be(record):
            self._reading, self._asked = CallReading(), bytearray()
        self._record = record
        self._request.head(record.request_fields)
        has_answer = record.status != 0 or bool(record.response_fields)
        if has_answer:
            self._response.head(record.response_fields)
        if record.kind is FlowKind.TUNNEL:
            return
        response = [piece for piece in update.pieces if piece.to_client]
        request = [piece for piece in update.pieces if not piece.to_client] if len(response) < len(update.pieces) else response[:0]
        for index, piece in enumerate(request, 1):
            data = self._request.body(piece.data, piece.at, record.is_over and index == len(request))
            if self._asked is not None:
                self._asked += data
        if self._asked is not None and (has_answer or record.is_over or record.timings.sent is not None):
            self._recognise(record, self._asked)
        if self._reading is not None and has_answer:
            self._reading.answer(record)
        for index, piece in enumerate(response, 1):
            data = self._response.body(piece.data, piece.at, record.is_over and index == len(response))
            if self._reading is not None:
                self._reading.feed(data, piece.at)
        for message in update.messages:
            (self._response if message.to_client else self._request).message(message)
        self._missed += update.missed
        if record.is_over:
            self._end(record)

    def _recognise(self, record: FlowRecord, body: bytearray) -> None:
        assert self._reading is not None
        call = self._reading.begin(record, bytes(body), is_whole=record.request_kept >= record.request_size)
        self._asked = None
        if call is None:
            self._reading = None
        else:
            self._provider, self._model = call.provider, call.model

    def _end(self, record: FlowRecord) -> None:
        if record.kind is FlowKind.HTTP:
            if record.request_kept < record.request_size:
                self._request.miss()
            if record.response_kept < record.response_size:
                self._response.miss()
        if self._reading is not None:
            if record.response_kept < record.response_size or self._response.is_shortened:
                self._reading.miss("the answer is longer than what is kept of one")
            if self._response.problem is not None:
                self._reading.fail_decoding(self._response.problem)
            self._call = self._reading.end(record)
            self._reading = None
        self._request.end(record.request_trailers)
        self._response.end(record.response_trailers)

    def pieces(self) -> list[tuple[int, bytes]]:
        """Return the pieces that are to be written now: ids and blobs."""
        found = []
        for side in (self._request, self._response):
            for piece in side.take():
                if self._size >= self._most or side.number >= MOST_PIECES:
                    side.miss()
                    self._missed += len(piece.messages)
                    continue
                blob = self._coder.encode(piece)
                self._size += len(blob)
                found.append((piece_id(self.id, side.side, side.number), blob))
                side.number += 1
        return found

    def stored(self) -> None:
        """What was taken is in the file."""
        self.is_stored = True
        self._request.written, self._response.written = self._request.number, self._response.number

    def undo(self) -> None:
        """What was taken since the last time is not in the file."""
        self._request.undo()
        self._response.undo()

    def row(self, revision: int, session: int, *, replayed: bool = False) -> tuple[Any, ...]:
        """Return the values of `INSERT_FLOW`."""
        record, call = self._record, self._call
        assert record is not None
        masked_path = self._masker.path(record.path)
        meta = record.connection
        process = meta.process_info
        detail = detail_of(record, missed=self._missed, call=None if call is None else self._call_dict(call))
        return (
            self.id,
            revision,
            session,
            str(meta.connection_id),
            record.started,
            record.took,
            OVER if record.is_over else OPEN,
            record.outcome if record.outcome in FLOW_OUTCOMES else "",
            _short(record.cause),
            record.kind.value,
            record.scheme,
            _short(record.host),
            record.port,
            _short(record.method),
            storable(masked_path[:LONGEST_PATH]),
            record.status,
            record.protocol,
            _short(program_of(meta)),
            None if process is None else process.pid,
            _short(client_of(meta)),
            self._response.media,
            record.request_size,
            record.response_size,
            record.timings.first_byte,
            self._request.number + self._response.number,
            "" if call is None or call.error is None else _short(self._masked(call.error)),
            *self._call_columns(call),
            int(replayed),
            0,
            encode_record(detail, self._coder),
        )

    def _call_columns(self, call: ModelCall | None) -> tuple[Any, ...]:
        if call is None:
            if self._provider is None:
                return _NO_CALL
            return (self._provider, self._model and _short(self._model), *_NO_CALL[2:])
        tools = " ".join(dict.fromkeys(_short(tool.name) for tool in call.tools[:MOST_TOOLS]))
        return (
            call.provider,
            call.model and _short(call.model),
            call.tokens.input,
            call.tokens.output,
            call.tokens.cache_read,
            call.first_token,
            call.stop and _short(call.stop),
            tools or None,
        )

    def _masked(self, text: str) -> str:
        return self._masker.text(text.encode("utf-8", "replace")).decode("utf-8", "replace")

    def _call_dict(self, call: ModelCall) -> dict[str, Any]:
        found = call.as_dict()
        for name in ("text", "reasoning"):
            found[name] = self._masked(found[name])
        for tool in found["tools"]:
            tool["arguments"] = self._masked(tool["arguments"])
        if found["error"] is not None:
            found["error"] = self._masked(found["error"])
        return found


def _short(text: str) -> str:
    return text if text.isascii() and len(text) <= LONGEST_NAME and "\0" not in text else storable(text[:LONGEST_NAME])
